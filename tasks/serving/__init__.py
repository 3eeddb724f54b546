"""Engines that load a recipe's weights and answer questions: vLLM, and the fake backend.

It may import what `tasks` may, and `tasks.merging`.
"""
