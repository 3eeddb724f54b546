"""Arithmetic of what fits and how long it takes; imports only `core`, `config` and the layers beside it."""
