"""What a sweep does and what is known of it: layers that import only what is below them, and never Ray itself."""
