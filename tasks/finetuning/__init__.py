"""Fine-tuning by trl: the examples, ICFT's curriculum, and one run of training.

It may import what `tasks` may, `tasks.evaluation` and `tasks.generation`.
"""
