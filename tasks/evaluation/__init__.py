"""lm-eval's tasks as questions, and the scores of their answers.

It may import what `tasks` may, `tasks.benchmarks` and `tasks.generation`.
"""
