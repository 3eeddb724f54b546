"""The runs of fine-tuning: the starting points, and every run from them; nothing is trained here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config.finetune import REPLAYING, Baseline, Finetune
from orchestrator.recipes.recipe import Recipe
from orchestrator.recipes.tuning import BASELINE, Start, Tuning, baseline_as_finetune, settings
from orchestrator.results.board import Board
from orchestrator.stages.finetune_starts import choose_starts, find_start
from orchestrator.stages.open import Round, Sweep
from tasks.finetuning.examples import Labelled, digest
from tasks.finetuning.run import Run


@dataclass(frozen=True)
class FinetuneRuns:
    """All starting points and runs of a sweep's fine-tuning, trained or not."""

    starts: list[Start]
    runs: list[Run]
    """The runs on the tasks."""
    baseline: Run | None
    """The run of the instruction-tuned baseline, which is trained first, as others may start from it."""

    @property
    def all(self) -> list[Run]:
        """All runs, the baseline first."""
        return [*([self.baseline] if self.baseline else []), *self.runs]

    @property
    def recipes(self) -> list[Recipe]:
        """The recipes of the starting points, then those of the tuned checkpoints, each once."""
        recipes = (*(start.recipe for start in self.starts), *(run.recipe for run in self.runs))
        return list({recipe.id: recipe for recipe in recipes}.values())


def plan_runs(sweep: Sweep, board: Board) -> FinetuneRuns:
    """Choose the starting points, and work out every run.

    Args:
        board: the recipes that the rules choose among, all of them evaluated.

    Raises:
        UserError: no recipe meets a starting point.
    """
    finetune = sweep.config.finetune
    assert finetune is not None, "the caller checks"
    baseline = _baseline_run(sweep, board, finetune, finetune.baseline) if finetune.baseline else None
    starts = choose_starts(sweep.config, board, baseline.recipe if baseline else None)
    runs = [run for task in finetune.tasks for run in _task_runs(sweep, finetune, task, starts, baseline)]
    return FinetuneRuns(starts, runs, baseline)


def finetuned_round(sweep: Sweep, runs: FinetuneRuns) -> Round:
    """The round of starting points and tuned checkpoints, on all objectives and fine-tuning tasks."""
    return sweep.finetuned.of(runs.recipes)


def _task_runs(sweep: Sweep, finetune: Finetune, task: str, starts: list[Start], baseline: Run | None) -> Iterator[Run]:
    """Yield the runs of one task: one for each seed, feasible budget, starting point and method."""
    general = sweep.tasks.training.general
    for seed in finetune.seeds:
        examples = sweep.tasks.training.by_task[task, seed]
        for budget in finetune.budgets(task):
            part = examples if budget == "all" else examples[:budget]
            if budget not in ("all", len(part)):
                continue  # it is beyond the task's training examples, which `TrainingExamples.skipped` says
            for start in starts:
                is_baseline = baseline is not None and start.recipe.id == baseline.recipe.id
                folder = baseline.files.model if baseline and is_baseline else None
                for method in (each for each in finetune.method if budget in finetune.budgets(task, each)):
                    given = settings(finetune, finetune.steps(len(part), budget, method), method, digest(general))
                    tuning = Tuning(
                        start.recipe, digest(part), method, seed, given, task, start.label, len(part), str(budget)
                    )
                    yield make_run(sweep, finetune, tuning, part, folder, general if method in REPLAYING else ())


def _baseline_run(sweep: Sweep, board: Board, finetune: Finetune, baseline: Baseline) -> Run:
    """Make the run of the instruction-tuned baseline."""
    start = find_start(board, baseline.start, "finetune.baseline.start")
    examples = sweep.tasks.training.baseline
    own = baseline_as_finetune(finetune, baseline)
    given = settings(own, own.steps(len(examples), "all", "full"), "full")
    tuning = Tuning(start, digest(examples), "full", 0, given, BASELINE, baseline.start, len(examples), "all")
    return make_run(sweep, finetune, tuning, examples, None)


def make_run(
    sweep: Sweep,
    finetune: Finetune,
    tuning: Tuning,
    examples: tuple[Labelled, ...],
    start: Path | None,
    general: tuple[Labelled, ...] = (),
) -> Run:
    """Make a run of a tuning: with the files, the tokenizer and the settings that training needs besides.

    Args:
        examples: what it learns from, in order.
        start: the folder of the checkpoint that it starts from; None for DIR/tuning/starts/<id of its recipe>.
        general: the general instructions of `icft` and `lora_replay`; empty for any other method.
    """
    return Run(
        tuning,
        start or sweep.layout.starts / tuning.start.id,
        sweep.layout.run(tuning.id).path,
        Path(sweep.serving.folder),
        examples,
        sweep.config.dtype,
        finetune.save_steps,
        finetune.gradient_checkpointing,
        general,
    )
