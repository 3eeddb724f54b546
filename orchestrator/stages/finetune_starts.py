"""Where fine-tuning starts: recipes by name, or chosen among the scored merges by a rule."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.finetune import Rule
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Recipe, find_recipe
from orchestrator.recipes.tuning import BASELINE, Start
from orchestrator.results.board import Board, Row


# -------------------------------------------------------------------- where to start from
def choose_starts(config: SweepConfig, board: Board, baseline: Recipe | None) -> list[Start]:
    """The recipes that `finetune.starts` names, each once, with the rule that chose it.

    Raises:
        UserError: a name that is no recipe of the sweep, a recipe without scores, or a rule that nothing meets.
    """
    assert config.finetune is not None
    found: list[Start] = []
    for index, item in enumerate(config.finetune.starts):
        if isinstance(item, Rule):
            found += _by_rule(config, board, item, f"finetune.starts[{index}]")
        elif item == BASELINE:
            assert baseline is not None, "checked with the sweep file"
            found.append(Start(BASELINE, baseline, "the instruction-tuned baseline"))
        else:
            found.append(Start(item, find_start(board, item, f"finetune.starts[{index}]"), "named"))
    unique: dict[str, Start] = {}
    for start in found:
        unique.setdefault(start.recipe.id, start)
    return list(unique.values())


def find_start(board: Board, name: str, where: str) -> Recipe:
    try:
        recipe = find_recipe([row.recipe for row in board.rows], name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    row = next(row for row in board.rows if row.recipe is recipe)
    if row.status in {RecipeStatus.INVALID, RecipeStatus.FAILED}:
        raise UserError(f"{where}: {name!r} is {row.status} and cannot be trained; name another recipe")
    return recipe


def _by_rule(config: SweepConfig, board: Board, rule: Rule, where: str) -> list[Start]:
    signs = {name: objective.sign for name, objective in config.objectives.items()}
    # Not models as they are: parents, checkpoints from elsewhere, and what a joint search has fine-tuned.
    merges = [row for row in board.rows if row.status == RecipeStatus.SCORED and not row.recipe.is_copy]

    def passes(row: Row) -> bool:
        return all(signs[name] * (row.scores[name].value - worst) >= 0 for name, worst in rule.floor.items())

    rows = [row for row in merges if passes(row)]
    if not rows:
        raise UserError(f"{where} ({rule.words}): none of the {len(merges)} scored merges meets it; change the rule")
    families = list(dict.fromkeys(row.method for row in rows)) if rule.per else [None]
    starts = []
    for family in families:
        members = [row for row in rows if family in (None, row.method)]
        best = min(members, key=lambda row: _rank(board, rule, signs, merges, row))
        starts.append(Start(best.recipe.label, best.recipe, rule.words))
    return starts


def _rank(board: Board, rule: Rule, signs: dict[str, float], merges: Sequence[Row], row: Row) -> float:
    """The less the better: the objective turned round, or the distance from the ideal point."""
    if rule.best is not None:
        return -signs[rule.best] * row.scores[rule.best].value
    total = 0.0
    for name in board.axes:
        values = [signs[name] * other.scores[name].value for other in merges]
        span = max(values) - min(values)
        total += ((max(values) - signs[name] * row.scores[name].value) / span) ** 2 if span else 0.0
    return float(total**0.5)
