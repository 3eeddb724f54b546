"""A run of fine-tuning as a record: what it starts from, what it learns from, how.

A tuned checkpoint is a recipe again, a model as it is whose digest is the run's id. So it is served, evaluated,
stored and scored as every other recipe is, and its questions are known before it is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.finetune import Baseline, ExampleBudget, Finetune, Method
from orchestrator.core.errors import UserError
from orchestrator.core.records import Identified, identity, provenance
from orchestrator.recipes.recipe import Point, Recipe, Source, single

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
        shown = (("start", self.start_label), ("task", self.task), ("examples", self.budget), ("seed", self.seed))
        return Point(self.method, shown)

    def recipe(self, folder: Path, dtype: str) -> Recipe:
        """What comes of it, as a recipe.

        Args:
            folder: where the tuned weights are, or will be.
        """
        return single(Source(self.id, self.label, str(folder)), dtype, self.point)


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, in DIR/tuning/<id of its Tuning>."""

    path: Path

    @property
    def result(self) -> Path:
        """What the run was and took, as JSON; written last, so that it says that the run is finished."""
        return self.path / "RESULT.json"

    @property
    def is_finished(self) -> bool:
        """Whether the run was trained to its end. Its weights may have been removed since."""
        return self.result.exists()

    @property
    def model(self) -> Path:
        """The tuned weights, with their tokenizer; all of them, or nothing."""
        return self.path / "model"

    @property
    def saving(self) -> Path:
        """The tuned weights while they are written."""
        return self.path / ".saving"

    @property
    def checkpoints(self) -> Path:
        """Where the run can be resumed; removed when it is finished."""
        return self.path / "checkpoints"

    @property
    def progress(self) -> Path:
        """The step that it is at, as JSON; removed when it is finished."""
        return self.path / "progress.json"

    @property
    def error(self) -> Path:
        """Why the last attempt ended, as JSON."""
        return self.path / "error.json"

    def process(self, rank: int) -> Path:
        """Where the process of a rank runs, as JSON, so that it can be killed when it hangs."""
        return self.path / f"process-{rank}.json"

    @property
    def processes(self) -> list[Path]:
        """Those of the last attempt."""
        return sorted(self.path.glob("process-*.json"))

    @property
    def start(self) -> Path:
        """Where a joint search writes the merge that the run starts from, as `start/<recipe id>`."""
        return self.path / "start"


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


def largest_budget(budgets: Sequence[ExampleBudget], objective: str, task: str, there: int) -> int:
    """Args:
        there: how many training examples the task has.

    Raises:
        UserError: none, or fewer than a budget.
    """
    if not there:
        way = "name them with generation.own.<task>.train, or take a task that has a training split"
        raise UserError(f"finetune.tasks.{objective}: {task} has no training examples; {way}")
    largest = max(there if budget == "all" else budget for budget in budgets)
    if largest > there:
        raise UserError(
            f"finetune.examples: {largest} are wanted, but {task} has {there} training examples; lower it, or write all"
        )
    return largest
