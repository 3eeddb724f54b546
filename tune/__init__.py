"""The search beyond the grid: its space, Optuna's study, and the race.

It may import `orchestrator.core`, `config`, `recipes`, `stats` and `ledger`, `tasks` and `cluster`.
"""
