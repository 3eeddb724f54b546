"""Fine-tuning: chosen recipes are trained on labelled examples, and what comes of them is evaluated on everything.

It is a further round over the same ledger: its recipes are the starting points and the tuned checkpoints, its
objectives those of the sweep (what was forgotten) and the fine-tuning tasks (what was learned). Training and serving
take the GPUs in turns: the engines are released while worker groups train, and start again, once, when all have.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

from cluster.training import Group, group_of, progress, room, train_runs, write_starts
from orchestrator.core.files import make_private, read_json_if_exists
from orchestrator.core.progress import say
from orchestrator.results.board import Board, FinetunedRow, FinetuneResults, Row
from orchestrator.results.failures import read_failures
from orchestrator.stages.compute import Compute
from orchestrator.stages.evaluate import evaluate, missing_blocks
from orchestrator.stages.finetune_runs import FinetuneRuns, finetuned_round, plan_runs
from orchestrator.stages.open import Round, Sweep
from orchestrator.stages.record import invalid_context, record
from orchestrator.stages.score import score
from tasks.finetuning.run import Run

EVERY_S = 10.0
"""Seconds between lines of progress."""


def finetune(sweep: Sweep, board: Board, compute: Compute) -> None:
    """Train what is not trained and evaluate what is not evaluated; with nothing to do, nothing is started.

    Args:
        board: of the recipes that starting points are chosen among, all of them evaluated.

    Raises:
        UserError: a start or a rule that nothing meets, or the cluster has no room for a run.
    """
    planned = plan_runs(sweep, board)
    if to_train := _untrained(sweep, planned):
        compute.release()
        compute.join()
        train(sweep, planned, to_train, compute)
    there = {start.recipe.id for start in planned.starts}
    there |= {run.recipe.id for run in planned.all if run.files.model.exists()}
    evaluated = finetuned_round(sweep, planned)
    evaluated = evaluated.of([recipe for recipe in evaluated.recipes if recipe.id in there])
    evaluate(sweep, evaluated, compute)
    _tidy(sweep, planned, evaluated)


def _untrained(sweep: Sweep, planned: FinetuneRuns) -> list[Run]:
    """Runs that are not finished, and those whose weights are gone but are needed: to be evaluated, or to start
    from."""
    failures, evaluated = read_failures(sweep.layout), finetuned_round(sweep, planned)
    questions = [suite.questions for suite in evaluated.suites]

    def is_invalid(run: Run) -> bool:
        failure = failures.get(run.recipe.id)
        return failure is not None and failure.status == "invalid" and failure.context == invalid_context(sweep)

    def is_needed(run: Run) -> bool:
        is_gone = not run.files.model.exists()
        is_open = is_gone and bool(sweep.ledger.missing(run.recipe.id, questions, sweep.config.workers))
        return not run.is_finished or (is_open and run is not planned.baseline)

    found = [run for run in planned.all if is_needed(run) and not is_invalid(run)]
    base = planned.baseline
    if base and base not in found and not base.files.model.exists():
        found += [base] if any(run.start == base.files.model for run in found) else []
    return found


# -------------------------------------------------------------------- training
def train(sweep: Sweep, planned: FinetuneRuns, runs: list[Run], compute: Compute) -> None:
    """The baseline, then all others; what fails is written down, and its recipe has no score."""
    settings, workers = sweep.config.finetune, sweep.config.workers
    assert settings is not None, "the caller looks"
    for run in runs:
        # Answers belong to weights; those of weights that are made anew are given anew.
        sweep.forget(run.recipe.id)
        run.files.result.unlink(missing_ok=True)
        sweep.layout.failure(run.recipe.id).unlink(missing_ok=True)
    starts = {r.tuning.start.id: r.tuning.start for r in runs if r.start.parent == sweep.layout.starts}
    say(f"{len(runs)} runs of fine-tuning; writing {len(starts)} starting checkpoints")
    make_private(sweep.layout.tuning)
    write_starts(list(starts.values()), sweep.layout.starts)
    group = group_of(settings, settings.gpus_of_a_run(workers.gpus), sweep.layout.ray_train, workers.patience)
    for part in (
        [run for run in runs if run is planned.baseline],
        [run for run in runs if run is not planned.baseline],
    ):
        if part and not compute.is_exhausted():
            _follow(sweep, part, group, compute)


def _follow(sweep: Sweep, runs: list[Run], group: Group, compute: Compute) -> None:
    """Train runs, and record what fails; the time is counted towards the command's limit."""
    groups, said, seen = min(room(group), len(runs)), time.monotonic(), time.monotonic()
    for result in train_runs(runs, group, stop=compute.is_exhausted):
        now = time.monotonic()
        compute.spend(groups * group.gpu_hours(now - seen))
        seen = now
        record(sweep, sweep.layout, result)
        if result is not None:
            say(f"{result.recipe_id} {result.status}: {result.message}")
        elif now - said >= EVERY_S:
            said = now
            say(progress(runs))
    say(progress(runs))


def _tidy(sweep: Sweep, planned: FinetuneRuns, evaluated: Round) -> None:
    """Starting checkpoints go when no run needs them; tuned weights where the sweep does not keep them."""
    settings = sweep.config.finetune
    assert settings is not None, "the caller looks"
    shutil.rmtree(sweep.layout.ray_train, ignore_errors=True)
    if all(run.is_finished for run in planned.all):
        shutil.rmtree(sweep.layout.starts, ignore_errors=True)
        if not settings.keep and not missing_blocks(sweep, evaluated):
            for run in planned.all:
                shutil.rmtree(run.files.model, ignore_errors=True)


# -------------------------------------------------------------------- what came of it
def finetune_results(sweep: Sweep, board: Board) -> FinetuneResults:
    """Scores of starts and runs, from stored answers alone.

    Args:
        board: as for `finetune`.
    """
    planned = plan_runs(sweep, board)
    scored = score(sweep, finetuned_round(sweep, planned))
    rows = {row.recipe.id: row for row in scored.rows}
    starts = tuple((start, rows[start.recipe.id]) for start in planned.starts)
    return FinetuneResults(starts, tuple(_finetuned_rows(planned, rows)), scored.notes)


def _finetuned_rows(planned: FinetuneRuns, rows: dict[str, Row]) -> Iterator[FinetunedRow]:
    for run in planned.runs:
        yield FinetunedRow(run.tuning, rows[run.recipe.id], read_json_if_exists(run.files.result))
