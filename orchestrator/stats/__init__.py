"""Scores, fronts and learning curves, arrays in and out; imports only `core`, `config` and the layers beside it."""
