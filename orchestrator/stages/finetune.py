"""The second phase: recipes of the first are fine-tuned, and what comes of them is asked everything again.

It is a sweep over the same ledger: its recipes are the starting points and the tuned checkpoints, its objectives those
of the first phase (what was forgotten) and the fine-tuning tasks (what was learned). Training and serving take the GPUs
in turns: the pool is closed while worker groups train, and opened once when all have.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.finetune import Baseline, Finetune
from orchestrator.config.objectives import Objective
from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.core.progress import say
from orchestrator.core.records import Failure
from orchestrator.recipes.tuning import BASELINE, Start, Tuning, baseline_as_finetune, largest_budget, settings
from orchestrator.results.board import Board, FinetunedRow, FinetuneResults, Row
from orchestrator.results.failures import failure_file, stored_failures
from orchestrator.results.manifest import write_questions
from orchestrator.stages.evaluate import ask, context, keep, open_blocks
from orchestrator.stages.finetune_starts import choose_starts, find_start
from orchestrator.stages.open import Sweep
from orchestrator.stages.score import make_board

if TYPE_CHECKING:
    from tasks.evaluation.ledger_lm import LedgerLM
    from tasks.evaluation.suites import SuiteTask
    from tasks.finetuning.examples import Labelled
    from tasks.finetuning.run import Run

EVERY_S = 10.0
"""Seconds between lines of progress."""


@dataclass(frozen=True)
class Phase:
    sweep: Sweep
    """The second one: its recipes are the starts, then what comes of the runs."""
    starts: list[Start]
    runs: list[Run]
    """The tasks', start by start."""
    baseline: Run | None
    """Comes before the others; it may be where they start."""

    @property
    def all_runs(self) -> list[Run]:
        return [*([self.baseline] if self.baseline else []), *self.runs]


def fine_tune(sweep: Sweep, board: Board) -> None:
    """Train what is not trained and ask what is not asked; with nothing to do, nothing is started.

    Raises:
        UserError: a start, a rule or a training example that does not do.
    """
    from cluster.session import session

    phase = open_phase(sweep, board)
    write_questions(sweep.out, {"sweep": sweep.suites, "tuned": phase.sweep.suites[len(sweep.suites) :]})
    to_train = _to_train(phase)
    with session(sweep.out / "ray") if to_train else contextlib.nullcontext():
        if to_train:
            train(phase, to_train)
        there = {start.recipe.id for start in phase.starts}
        there |= {run.recipe.id for run in phase.all_runs if (run.folder / "model").exists()}
        recipes = [recipe for recipe in phase.sweep.recipes if recipe.id in there]
        asked = dataclasses.replace(phase.sweep, recipes=recipes)
        ask(asked, open_blocks(asked), None)
    _tidy(phase, asked)


# -------------------------------------------------------------------- what there is to do
def open_phase(sweep: Sweep, board: Board) -> Phase:
    """Starts, runs and questions; nothing is trained or asked."""
    finetune = sweep.config.finetune
    assert finetune is not None, "the caller looks"
    config, suites = sweep.config, learning_suites(sweep, finetune.tasks)
    baseline = _baseline_run(sweep, board, finetune, finetune.baseline) if finetune.baseline else None
    general = _general(sweep, finetune)
    starts = choose_starts(config, board, baseline.recipe if baseline else None)
    runs = [run for suite in suites for run in _runs(sweep, finetune, suite, starts, baseline, general)]
    recipes = {recipe.id: recipe for recipe in (*(s.recipe for s in starts), *(run.recipe for run in runs))}
    second = dataclasses.replace(
        sweep,
        config=config.model_copy(update={"objectives": {**config.objectives, **finetune.tasks}}),
        recipes=list(recipes.values()),
        suites=[*sweep.suites, *suites],
    )
    return Phase(second, starts, runs, baseline)


def learning_suites(sweep: Sweep, tasks: dict[str, Objective]) -> list[SuiteTask]:
    """The questions of fine-tuning tasks."""
    from tasks.evaluation.suites import load_suites, remember

    own = sweep.config.model_copy(update={"objectives": tasks})
    suites = load_suites(own, sweep.lm)
    remember(suites, own, sweep.out / "metrics")
    return suites


def _runs(
    sweep: Sweep,
    finetune: Finetune,
    suite: SuiteTask,
    starts: list[Start],
    baseline: Run | None,
    general: tuple[Labelled, ...],
) -> Iterator[Run]:
    """Every start, method, budget and seed of one task."""
    from tasks.finetuning.examples import digest

    kept = digest(general)
    for seed in finetune.seeds:
        examples = training_examples(sweep.lm, finetune, suite, seed)
        for budget in finetune.examples:
            part = tuple(examples if budget == "all" else examples[:budget])
            for start in starts:
                for method in (each for each in finetune.method if budget in finetune.budgets(each)):
                    given = settings(finetune, finetune.steps(len(part), budget, method), method, kept)
                    tuning = Tuning(
                        start.recipe, digest(part), method, seed, given, suite.objective, start.label, len(part),
                        str(budget),
                    )  # fmt: skip
                    from_baseline = baseline is not None and start.recipe.id == baseline.recipe.id
                    folder = baseline.folder / "model" if baseline and from_baseline else None
                    yield make_run(sweep, finetune, tuning, part, folder, general if method == "icft" else ())


def check_training(sweep: Sweep) -> None:
    """What is wrong with the labelled examples is said before anything is asked.

    Raises:
        UserError: too few, or one that does not fit.
    """
    finetune = sweep.config.finetune
    assert finetune is not None, "the caller looks"
    for suite, seed in itertools.product(learning_suites(sweep, finetune.tasks), finetune.seeds):
        training_examples(sweep.lm, finetune, suite, seed)


def training_examples(lm: LedgerLM, finetune: Finetune, suite: SuiteTask, seed: int) -> list[Labelled]:
    """As many as the largest budget takes, in the order of this seed."""
    from tasks.finetuning.examples import labelled, subset
    from tasks.generation.task import GenerationTask

    where = f"finetune.tasks.{suite.objective}"
    if not isinstance(suite.task, GenerationTask):
        raise UserError(f"{where}: {suite.name} is no generation task; take one of these, or write your own (README)")
    training = suite.task.examples.training()
    count = largest_budget(finetune, suite.objective, suite.name, len(training))
    chat = finetune.tasks[suite.objective].apply_chat_template
    return labelled(suite.task, subset(training, count, seed), lm, chat, finetune.max_length, where)


def _general(sweep: Sweep, finetune: Finetune) -> tuple[Labelled, ...]:
    """ICFT's general instructions."""
    from tasks.finetuning.examples import conversations

    if finetune.icft is None:
        return ()
    file = Path(finetune.icft.general)
    return tuple(conversations(file, sweep.lm, finetune.max_length, "finetune.icft.general"))


def _baseline_run(sweep: Sweep, board: Board, finetune: Finetune, baseline: Baseline) -> Run:
    from tasks.finetuning.examples import conversations, digest

    start = find_start(sweep.config, board, baseline.start, "finetune.baseline.start")
    examples = tuple(conversations(Path(baseline.file), sweep.lm, baseline.max_length, "finetune.baseline.file"))
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
    from tasks.finetuning.run import Run

    return Run(
        tuning,
        start or sweep.out / "tuning" / "starts" / tuning.start.id,
        sweep.out / "tuning" / tuning.id,
        Path(sweep.serving.folder),
        examples,
        sweep.config.dtype,
        finetune.save_steps,
        finetune.gradient_checkpointing,
        general,
    )


# -------------------------------------------------------------------- training
def _to_train(phase: Phase) -> list[Run]:
    """Runs that are not finished, and those whose weights are gone but are needed: to be asked, or to start from."""
    from tasks.finetuning.train import is_finished

    failures = stored_failures(phase.sweep.out)
    questions = [suite.questions for suite in phase.sweep.suites]

    def is_hopeless(run: Run) -> bool:
        failure = failures.get(run.recipe.id)
        return failure is not None and failure.status == "invalid" and failure.context == context(phase.sweep)

    def is_needed(run: Run) -> bool:
        gone = not (run.folder / "model").exists()
        is_open = gone and bool(phase.sweep.ledger.missing(run.recipe.id, questions, phase.sweep.config.workers))
        return not is_finished(run.folder) or (is_open and run is not phase.baseline)

    found = [run for run in phase.all_runs if is_needed(run) and not is_hopeless(run)]
    base = phase.baseline
    if base and base not in found and not (base.folder / "model").exists():
        found += [base] if any(run.start == base.folder / "model" for run in found) else []
    return found


def train(phase: Phase, runs: list[Run]) -> None:
    """The baseline, then all others; what fails is written down, and its recipe has no score."""
    from cluster.training import group_of, train_runs, write_starts

    sweep, finetune = phase.sweep, phase.sweep.config.finetune
    assert finetune is not None
    home = make_private(sweep.out / "tuning")
    for run in runs:
        # Answers belong to weights; those of weights that are made anew are asked anew.
        sweep.ledger.forget(run.recipe.id)
        (run.folder / "RESULT.json").unlink(missing_ok=True)
        failure_file(sweep.out, run.recipe.id).unlink(missing_ok=True)
    of_phase = {run.tuning.start.id: run.tuning.start for run in runs if run.start.parent == home / "starts"}
    say(f"{len(runs)} runs of fine-tuning; writing {len(of_phase)} starting checkpoints")
    write_starts(list(of_phase.values()), home / "starts")
    workers = sweep.config.workers
    group = group_of(finetune, finetune.gpus_of_a_run(workers.gpus), home / "ray", workers.patience)
    for part in ([run for run in runs if run is phase.baseline], [run for run in runs if run is not phase.baseline]):
        _follow(sweep, part, train_runs(part, group) if part else iter(()))


def _follow(sweep: Sweep, runs: list[Run], results: Iterator[Failure | None]) -> None:
    from cluster.training import progress

    told = time.monotonic()
    for result in results:
        keep(sweep, result)
        if result is not None:
            say(f"{result.recipe_id} {result.status}: {result.message}")
        elif time.monotonic() - told >= EVERY_S:
            told = time.monotonic()
            say(progress(runs))
    if runs:
        say(progress(runs))


def _tidy(phase: Phase, asked: Sweep) -> None:
    """Starting checkpoints go when no run needs them; tuned weights where the sweep does not keep them."""
    from tasks.finetuning.train import is_finished

    finetune = asked.config.finetune
    assert finetune is not None
    shutil.rmtree(asked.out / "tuning" / "ray", ignore_errors=True)
    if all(is_finished(run.folder) for run in phase.all_runs):
        shutil.rmtree(asked.out / "tuning" / "starts", ignore_errors=True)
        if not finetune.keep and not open_blocks(asked):
            for run in phase.all_runs:
                shutil.rmtree(run.folder / "model", ignore_errors=True)


# -------------------------------------------------------------------- what came of it
def make_tuned(sweep: Sweep, board: Board) -> FinetuneResults:
    """The second phase's board: scores of starts and runs, from stored answers alone."""
    phase = open_phase(sweep, board)
    second = make_board(phase.sweep)
    rows = {row.recipe.id: row for row in second.rows}
    starts = tuple((start, rows[start.recipe.id]) for start in phase.starts)
    return FinetuneResults(starts, tuple(_tuned_row(run, rows[run.recipe.id]) for run in phase.runs), second.notes)


def _tuned_row(run: Run, row: Row) -> FinetunedRow:
    file = run.folder / "RESULT.json"
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return FinetunedRow(run.tuning, row, result)
