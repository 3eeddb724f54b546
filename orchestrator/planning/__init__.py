"""The command `plan`: what a sweep would do and need; imports `stages` and whatever that may import."""
