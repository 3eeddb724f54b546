"""The second phase's plan: which recipes are fine-tuned, on which examples, how; each run an immutable record.

A tuned checkpoint is a recipe again, a model as it is whose digest is the run's id. So it is served, asked, stored and
scored as every other recipe is, and what it will be asked is known before it is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.board import Board, Row
from orchestrator.config import SweepConfig, UserError
from orchestrator.finetune import Baseline, Finetune, Method, Rule
from orchestrator.recipe import Point, Recipe, Source, find_recipe, single
from orchestrator.records import Identified, identity, provenance

BASELINE = "baseline"


@dataclass(frozen=True)
class Tuning(Identified):
    """One run of fine-tuning."""

    start: Recipe = identity()
    data: str = identity()
    """Digest of the tokens it learns from, in order: the task, its prompt, the subset and the tokenizer are in it."""
    method: Method = identity()
    seed: int = identity()
    """Of the subset, the order of the examples and, for LoRA, of the adapter's first weights."""
    settings: dict[str, Any] = identity()
    """See `settings`; only what moves the weights."""
    task: str = provenance()
    start_label: str = provenance()
    examples: int = provenance()
    budget: str = provenance()
    """As the sweep says: a number, or `all`."""

    @property
    def label(self) -> str:
        return self.point.label

    @property
    def point(self) -> Point:
        told = (("start", self.start_label), ("task", self.task), ("examples", self.budget), ("seed", self.seed))
        return Point(self.method, told)

    def recipe(self, folder: Path, dtype: str) -> Recipe:
        """What comes of it, as a recipe.

        Args:
            folder: where the tuned weights are, or will be.
        """
        return single(Source(self.id, self.label, str(folder)), dtype, self.point)


@dataclass(frozen=True)
class Start:
    """A recipe that is fine-tuned."""

    label: str
    recipe: Recipe
    rule: str
    """Why this one, in words."""


def settings(finetune: Finetune, steps: int, method: Method, general: str = "") -> dict[str, Any]:
    """What `Tuning.settings` holds of a run on a task.

    Args:
        general: digest of ICFT's general instructions, as tokens.
    """
    same = ("learning_rate", "batch_size", "accumulation", "max_length", "optimizer")
    given = {"steps": steps, **{key: getattr(finetune, key) for key in same}}
    if method != "full":
        given["lora"] = finetune.lora.model_dump()
    if method == "icft":
        assert finetune.icft is not None, "checked with the sweep file"
        given["icft"] = {**finetune.icft.model_dump(exclude={"examples"}), "general": general}
    return given


def baseline_as_finetune(finetune: Finetune, baseline: Baseline) -> Finetune:
    """The settings of the instruction-tuned baseline: those of the tasks, but for what it says itself."""
    own = {key: getattr(baseline, key) for key in ("epochs", "learning_rate", "max_length")}
    return finetune.model_copy(update={**own, "min_steps": 1})


def largest_budget(finetune: Finetune, objective: str, task: str, there: int) -> int:
    """
    Args:
        there: how many training examples the task has.

    Raises:
        UserError: none, or fewer than a budget.
    """
    if not there:
        way = "name them with generation.own.<task>.train, or take a task that has a training split"
        raise UserError(f"finetune.tasks.{objective}: {task} has no training examples; {way}")
    largest = max(there if budget == "all" else budget for budget in finetune.examples)
    if largest > there:
        raise UserError(
            f"finetune.examples: {largest} are asked for, but {task} has {there} training examples; lower it, or "
            "write all"
        )
    return largest


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
            found.append(Start(item, find_start(config, board, item, f"finetune.starts[{index}]"), "named"))
    unique: dict[str, Start] = {}
    for start in found:
        unique.setdefault(start.recipe.id, start)
    return list(unique.values())


def find_start(config: SweepConfig, board: Board, name: str, where: str) -> Recipe:
    try:
        recipe = find_recipe([row.recipe for row in board.rows], name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    row = next(row for row in board.rows if row.recipe is recipe)
    if row.status in {"invalid", "failed"}:
        raise UserError(f"{where}: {name!r} is {row.status} and cannot be trained; name another recipe")
    return recipe


def _by_rule(config: SweepConfig, board: Board, rule: Rule, where: str) -> list[Start]:
    signs = {name: 1.0 if o.direction == "maximize" else -1.0 for name, o in config.objectives.items()}
    merges = [row for row in board.rows if row.status == "scored" and row.method not in {"parent", "candidate"}]

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
    for name in board.objectives:
        values = [signs[name] * other.scores[name].value for other in merges]
        span = max(values) - min(values)
        total += ((max(values) - signs[name] * row.scores[name].value) / span) ** 2 if span else 0.0
    return float(total**0.5)
