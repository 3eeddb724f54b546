"""The tasks of clinical text generation: their data sets, prompts and metrics.

It may import what `tasks` may, and `tasks.evaluation.requests`.
"""
