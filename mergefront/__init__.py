"""The names that a notebook or a script needs, imported from where they are defined; it may import every package.

from pathlib import Path

import mergefront

sweep = mergefront.load_sweep(Path("sweep.yaml"))
print(mergefront.describe(mergefront.plan(sweep)))
board = mergefront.run_sweep(Path("sweep.yaml"), Path("results"))
board = mergefront.read_board(Path("results"))  # later, from the stored answers alone
for row in board.front:
    print(row.recipe.label, {name: score.value for name, score in row.scores.items()})
"""

from orchestrator.config.load import load_config as load_sweep
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.records import Answer, RecipeStatus
from orchestrator.ledger.ledger import Ledger
from orchestrator.planning.plan import Plan, describe
from orchestrator.planning.plan import make_plan as plan
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.board import Board, Row
from orchestrator.stages.publish import read_board
from orchestrator.stats.differences import difference, differences
from orchestrator.stats.scores import Score
from orchestrator.sweep import Stage, run_sweep

__all__ = [
    "Answer",
    "Board",
    "Ledger",
    "Plan",
    "Recipe",
    "RecipeStatus",
    "Row",
    "Score",
    "Stage",
    "SweepConfig",
    "UserError",
    "describe",
    "difference",
    "differences",
    "load_sweep",
    "plan",
    "read_board",
    "run_sweep",
]
