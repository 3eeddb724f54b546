"""What one worker does, without Ray: merge, serve, evaluate, generate, fine-tune.

Of mergefront it may import only `orchestrator.core`, `config`, `recipes`, `models`, `sizing` and `stats`.
"""
