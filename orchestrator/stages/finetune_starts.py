"""The starting points of fine-tuning: recipes by name, or chosen among the scored merges by a rule."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.config.finetune import Rule
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Recipe, find_recipe
from orchestrator.recipes.tuning import BASELINE, Start
from orchestrator.results.board import Board, Row

CANDIDATE_ID = re.compile("[0-9a-f]{4,20}")
"""A recipe's id, or its beginning."""


def check_starts(config: SweepConfig, recipes: Sequence[Recipe]) -> None:
    """Check the names of `finetune.starts` before anything is evaluated.

    What looks like a candidate of the sweep's search, by its id or its label, is found or not when the search is over.

    Args:
        recipes: those of the sweep file.

    Raises:
        UserError: a name is no recipe of the sweep, or a rule chooses among merges and there are none.
    """
    finetune = config.finetune
    if finetune is None:
        return
    named = {f"finetune.starts[{index}]": start for index, start in enumerate(finetune.starts) if start != BASELINE}
    if finetune.baseline:
        named["finetune.baseline.start"] = finetune.baseline.start
    searched = {space.method for space in config.search.space} if config.search else set()
    merges = [recipe for recipe in recipes if not recipe.is_copy]
    for where, start in named.items():
        if isinstance(start, Rule):
            if not (merges or config.search):
                raise UserError(
                    f"{where} ({start.words}): the sweep has no merges to choose among; add some to recipes"
                )
        elif not (searched and (CANDIDATE_ID.fullmatch(start) or start.split(" ")[0] in searched)):
            _find(recipes, start, where)


def _find(recipes: Sequence[Recipe], name: str, where: str) -> Recipe:
    try:
        return find_recipe(recipes, name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def choose_starts(config: SweepConfig, board: Board, baseline: Recipe | None) -> list[Start]:
    """Choose the recipes that `finetune.starts` names, each once, with the rule that chose it.

    Args:
        baseline: the recipe of the instruction-tuned baseline; None where the sweep has none.

    Raises:
        UserError: a name is no recipe of the sweep, a named recipe is invalid or failed, or no merge meets a rule.
    """
    assert config.finetune is not None, "the caller checks"
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
    """Find a recipe by name, as `find_recipe` takes it.

    Args:
        where: the key of the sweep file that names it, for messages.

    Raises:
        UserError: no recipe has this name, or it is invalid or failed.
    """
    recipe = _find([row.recipe for row in board.rows], name, where)
    row = next(row for row in board.rows if row.recipe is recipe)
    if row.status in {RecipeStatus.INVALID, RecipeStatus.FAILED}:
        raise UserError(f"{where}: {name!r} is {row.status} and cannot be trained; name another recipe")
    return recipe


def _by_rule(config: SweepConfig, board: Board, rule: Rule, where: str) -> list[Start]:
    """Choose the best scored merge that meets the rule's floors; with `per`, the best of each method."""
    signs = {name: objective.sign for name, objective in config.objectives.items()}
    # Only merges: no parents, no checkpoints from elsewhere, and no fine-tuned candidates of a joint search.
    merges = [row for row in board.rows if row.status == RecipeStatus.SCORED and not row.recipe.is_copy]

    def passes(row: Row) -> bool:
        return all(signs[name] * (row.scores[name].value - worst) >= 0 for name, worst in rule.floor.items())

    rows = [row for row in merges if passes(row)]
    if not rows:
        raise UserError(f"{where} ({rule.words}): none of the {len(merges)} scored merges meets it; change the rule")
    methods = list(dict.fromkeys(row.method for row in rows)) if rule.per else [None]
    starts = []
    for method in methods:
        members = [row for row in rows if method in (None, row.method)]
        best = min(members, key=lambda row: _rank(board, rule, signs, merges, row))
        starts.append(Start(best.recipe.label, best.recipe, rule.words))
    return starts


def _rank(board: Board, rule: Rule, signs: dict[str, float], merges: Sequence[Row], row: Row) -> float:
    """Rank a merge, less is better: by one objective, or by the distance from the best value of each axis.

    The distance is Euclidean, with each axis scaled to its range over all merges.
    """
    if rule.best is not None:
        return -signs[rule.best] * row.scores[rule.best].value
    total = 0.0
    for name in board.axes:
        values = [signs[name] * other.scores[name].value for other in merges]
        span = max(values) - min(values)
        total += ((max(values) - signs[name] * row.scores[name].value) / span) ** 2 if span else 0.0
    return float(total**0.5)
