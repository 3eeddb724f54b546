"""Fine-tuning: chosen recipes are trained on labelled examples, and the checkpoints are evaluated on all objectives.

It is a further round over the same ledger. Its recipes are the starting points and the tuned checkpoints; its
objectives are those of the sweep (what was forgotten) and the fine-tuning tasks (what was learned). Training and
serving take the GPUs in turns: the engines stop before the worker groups train, and start again, once, after all
training.
"""

from __future__ import annotations

import shutil
import time

from cluster.errors import RemoteError
from cluster.training import Group, progress, room, train_runs, write_starts
from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private, read_json_if_exists
from orchestrator.core.progress import say
from orchestrator.results.board import Board, FinetunedRow, FinetuneResults
from orchestrator.stages.compute import Compute, finetune_group
from orchestrator.stages.evaluate import evaluate, missing_blocks
from orchestrator.stages.finetune_runs import FinetuneRuns, finetuned_round, plan_runs
from orchestrator.stages.open import Round, Sweep
from orchestrator.stages.record import known_invalid, record
from orchestrator.stages.score import score
from tasks.finetuning.run import Run

EVERY_S = 10.0
"""Seconds between lines of progress."""


def finetune(sweep: Sweep, board: Board, compute: Compute) -> None:
    """Train the runs that are left to train, and evaluate starts and checkpoints; with nothing to do, nothing starts.

    Args:
        board: the recipes that starting points are chosen among, all of them evaluated.

    Raises:
        UserError: no recipe meets a starting point, or the cluster has no room for a run.
        OSError, StorageError: an answer cannot be stored.
    """
    planned = plan_runs(sweep, board)
    if to_train := _untrained(sweep, planned):
        compute.release()
        compute.join()
        train(sweep, planned, to_train, compute)
    trained = {run.recipe.id for run in planned.all}
    evaluable = {start.recipe.id for start in planned.starts} - trained
    evaluable |= {run.recipe.id for run in planned.all if run.files.model.exists()}
    evaluated = finetuned_round(sweep, planned)
    evaluated = evaluated.of([recipe for recipe in evaluated.recipes if recipe.id in evaluable])
    evaluate(sweep, evaluated, compute)
    _tidy(sweep, planned, evaluated)


def _untrained(sweep: Sweep, planned: FinetuneRuns) -> list[Run]:
    """List the runs to train: those that are not finished, and those whose removed weights are needed again.

    The weights of a task's run are needed where it has questions to answer, those of the baseline where a run to train
    starts from them.
    """
    questions = [suite.questions for suite in finetuned_round(sweep, planned).suites]
    invalid = known_invalid(sweep, sweep.layout)
    baseline = planned.baseline

    def is_to_train(run: Run) -> bool:
        if not run.is_finished:
            return True
        if run is baseline or run.files.model.exists():
            return False
        return bool(sweep.ledger.missing(run.recipe.id, questions, sweep.config.workers))

    found = [run for run in planned.all if is_to_train(run) and run.recipe.id not in invalid]
    if baseline and baseline not in found and not baseline.files.model.exists():
        found += [baseline] if any(run.start == baseline.files.model for run in found) else []
    return found


# -------------------------------------------------------------------- training
def train(sweep: Sweep, planned: FinetuneRuns, runs: list[Run], compute: Compute) -> None:
    """Train the baseline, then all other runs, as far as the command's limit allows.

    A run that fails is stored as a failure, and its recipe has no score.

    Args:
        runs: those of `planned` that are left to train.

    Raises:
        EngineStartError: the cluster has no room for a run.
        UserError: a starting checkpoint cannot be written.
    """
    for run in runs:
        # Answers belong to weights: those of weights that are trained again do not count any more.
        sweep.forget(run.recipe.id)
        run.files.result.unlink(missing_ok=True)
        sweep.layout.failure(run.recipe.id).unlink(missing_ok=True)
    starts = {run.tuning.start.id: run.tuning.start for run in runs if run.start.parent == sweep.layout.starts}
    say(f"{len(runs)} runs of fine-tuning; writing {len(starts)} starting checkpoints")
    make_private(sweep.layout.tuning)
    try:
        write_starts(list(starts.values()), sweep.layout.starts)
    except RemoteError as error:
        raise UserError(f"finetune.starts: a starting checkpoint cannot be written: {error}") from None
    group = finetune_group(sweep)
    # The baseline first: other runs may start from it.
    for part in (
        [run for run in runs if run is planned.baseline],
        [run for run in runs if run is not planned.baseline],
    ):
        if part and not compute.is_exhausted():
            _train_part(sweep, part, group, compute)


def _train_part(sweep: Sweep, runs: list[Run], group: Group, compute: Compute) -> None:
    """Train runs at the same time, store failures, and count the time towards the command's limit."""
    groups = min(room(group), len(runs))
    counted_at = logged_at = time.monotonic()
    for failure in train_runs(runs, group, stop=compute.is_exhausted):
        now = time.monotonic()
        compute.spend(groups * group.gpu_hours(now - counted_at))
        counted_at = now
        record(sweep, sweep.layout, failure)
        if failure is not None:
            say(f"{failure.recipe_id} {failure.status}: {failure.message}")
        elif now - logged_at >= EVERY_S:
            logged_at = now
            say(progress(runs))
    say(progress(runs))


def _tidy(sweep: Sweep, planned: FinetuneRuns, evaluated: Round) -> None:
    """Remove starting checkpoints that no run needs any more, and tuned weights where the sweep does not keep them."""
    settings = sweep.config.finetune
    assert settings is not None, "the caller checks"
    shutil.rmtree(sweep.layout.ray_train, ignore_errors=True)
    if all(run.is_finished for run in planned.all):
        shutil.rmtree(sweep.layout.starts, ignore_errors=True)
        if not settings.keep and not missing_blocks(sweep, evaluated):
            for run in planned.all:
                shutil.rmtree(run.files.model, ignore_errors=True)


# -------------------------------------------------------------------- results
def finetune_results(sweep: Sweep, board: Board) -> FinetuneResults:
    """Score starting points and runs, from stored answers alone.

    Args:
        board: as for `finetune`.

    Raises:
        UserError: no recipe meets a starting point.
    """
    planned = plan_runs(sweep, board)
    scored = score(sweep, finetuned_round(sweep, planned))
    rows = {row.recipe.id: row for row in scored.rows}
    starts = tuple((start, rows[start.recipe.id]) for start in planned.starts)

    def finetuned(run: Run) -> FinetunedRow:
        return FinetunedRow(run.tuning, rows[run.recipe.id], read_json_if_exists(run.files.result))

    return FinetuneResults(
        starts,
        runs=tuple(map(finetuned, planned.runs)),
        notes=(*scored.notes, *sweep.tasks.training.skipped, *sweep.tasks.training.known),
        tasks=scored.tasks,
        baseline=finetuned(planned.baseline) if planned.baseline else None,
    )
