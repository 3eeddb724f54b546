"""A fine-tuning run as a record: its starting point, its training data and its settings.

A fine-tuned checkpoint is a recipe again: a model as it is, whose digest is the run's id. So it is served, evaluated,
stored and scored like every other recipe, and its questions are known before it is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.finetune import REPLAYING, Baseline, ExampleBudget, Finetune, Method
from orchestrator.core.errors import UserError
from orchestrator.core.records import Identified, identity, provenance
from orchestrator.recipes.recipe import Point, Recipe, Source, single

BASELINE = "baseline"


@dataclass(frozen=True)
class Tuning(Identified):
    """One fine-tuning run."""

    start: Recipe = identity()
    """The recipe that is fine-tuned."""
    data: str = identity()
    """Digest of the training tokens, in order; it depends on the task, its prompt, the subset and the tokenizer."""
    method: Method = identity()
    seed: int = identity()
    """Random seed of the subset, of the order of the examples and, for LoRA, of the adapter's initial weights."""
    settings: dict[str, Any] = identity()
    """What the function `settings` returns: only settings that affect the weights."""
    task: str = provenance()
    """Name of the task in `finetune.tasks`; `baseline` for the baseline's run."""
    start_label: str = provenance()
    examples: int = provenance()
    """Number of training examples."""
    budget: str = provenance()
    """The budget as the sweep file has it: a number, or `all`."""

    @property
    def label(self) -> str:
        """The run in words, such as `lora start=… task=… examples=8 seed=0`."""
        return self.point.label

    @property
    def without_seed(self) -> str:
        """The runs of all seeds in words, such as `lora start=… task=… examples=8`."""
        return self.label.removesuffix(f" seed={self.seed}")

    @property
    def point(self) -> Point:
        """The point of the fine-tuned checkpoint: the method, and what distinguishes the runs of a sweep."""
        shown = (("start", self.start_label), ("task", self.task), ("examples", self.budget), ("seed", self.seed))
        return Point(self.method, shown)

    def recipe(self, folder: Path, dtype: str) -> Recipe:
        """Make the recipe of the fine-tuned checkpoint.

        Args:
            folder: where the fine-tuned weights are, or will be.
            dtype: the sweep's.
        """
        return single(Source(self.id, self.label, str(folder)), dtype, self.point)


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, in DIR/tuning/<id of its Tuning>."""

    path: Path

    @property
    def result(self) -> Path:
        """Settings, results and costs of the run, as JSON; written last, so it exists only if the run is finished."""
        return self.path / "RESULT.json"

    @property
    def is_finished(self) -> bool:
        """Whether the run was trained to its end; its weights may have been removed since."""
        return self.result.exists()

    @property
    def model(self) -> Path:
        """Folder of the fine-tuned weights with their tokenizer; it exists only when complete."""
        return self.path / "model"

    @property
    def saving(self) -> Path:
        """Folder of the fine-tuned weights while they are being written."""
        return self.path / ".saving"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints that the run resumes from; removed when it is finished."""
        return self.path / "checkpoints"

    @property
    def progress(self) -> Path:
        """The current step, as JSON; removed when the run is finished."""
        return self.path / "progress.json"

    @property
    def error(self) -> Path:
        """Why the last attempt ended, as JSON."""
        return self.path / "error.json"

    def process(self, rank: int) -> Path:
        """Return the file that names the process of a rank, as JSON, so that it can be killed when it hangs."""
        return self.path / f"process-{rank}.json"

    @property
    def processes(self) -> list[Path]:
        """The process files of the last attempt."""
        return sorted(self.path.glob("process-*.json"))

    @property
    def start(self) -> Path:
        """Folder in which a joint search writes the merge that the run starts from, as `start/<recipe id>`."""
        return self.path / "start"


@dataclass(frozen=True)
class Start:
    """A starting point: a recipe that is fine-tuned."""

    label: str
    recipe: Recipe
    rule: str
    """Why it was chosen, in words."""


def settings(finetune: Finetune, steps: int, method: Method, general: str = "") -> dict[str, Any]:
    """Return the settings of a run on a task, for `Tuning.settings`.

    Args:
        steps: number of optimiser steps.
        general: digest of the tokens of the general instructions that `icft` and `lora_replay` show.
    """
    same = ("learning_rate", "batch_size", "accumulation", "max_length", "optimizer")
    given = {"steps": steps, **{key: getattr(finetune, key) for key in same}}
    if method != "full":
        given["lora"] = finetune.lora.model_dump()
    if method in REPLAYING:
        assert finetune.icft is not None, "checked with the sweep file"
        # Without a difficulty the curriculum is off; the default is left out, as ids from before it was a setting are.
        unused = {"examples"} | ({"difficulty"} if method != "icft" or finetune.icft.difficulty == "loss" else set())
        given["icft"] = {**finetune.icft.model_dump(exclude=unused), "general": general}
    return given


def baseline_as_finetune(finetune: Finetune, baseline: Baseline) -> Finetune:
    """Return the settings for training the baseline: those of `finetune`, with the baseline's own in their place."""
    own = {key: getattr(baseline, key) for key in ("epochs", "learning_rate", "max_length")}
    return finetune.model_copy(update={**own, "min_steps": 1})


def feasible_budgets(
    budgets: Sequence[ExampleBudget], objective: str, task: str, there: int
) -> list[tuple[ExampleBudget, int]]:
    """Return the budgets that a task has enough training examples for, each with its number of examples.

    Args:
        budgets: those of the task, as the sweep file has them.
        objective: the name in `finetune.tasks`, for messages.
        task: the name of its generation task, for messages.
        there: number of training examples that the task has.

    Raises:
        UserError: the task has no training examples, or fewer than every budget.
    """
    if not there:
        way = "name them with generation.own.<task>.train, or take a task that has a training split"
        raise UserError(f"finetune.tasks.{objective}: {task} has no training examples; {way}")
    sizes = [(budget, there if budget == "all" else budget) for budget in budgets]
    feasible = [(budget, size) for budget, size in sizes if size <= there]
    if not feasible:
        raise UserError(
            f"finetune.tasks.{objective}.examples: at least {min(size for _, size in sizes)} are requested, but {task} "
            f"has {there} training examples; add a smaller number, or all"
        )
    return feasible
