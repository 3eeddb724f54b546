"""A sweep from beginning to end. Read `run_sweep` first: it is the whole system in a dozen lines.

    sweep.yaml → config → recipes × questions → what the ledger does not know yet → blocks → pool → answers
    → ledger → scores → front → report

The ledger is the truth. To resume is to run the same command: what is answered is not asked again, and what is
reported is computed from the stored answers, whoever asked them and when.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.board import Board, Row, Suite, mark, write_board
from orchestrator.config import Published, SweepConfig, UserError
from orchestrator.files import make_private, write_atomic, write_json
from orchestrator.parents import resolve
from orchestrator.planning.plan import check_disk
from orchestrator.progress import Progress, say
from orchestrator.recipe import Recipe, Source, expand
from orchestrator.records import Answer, Asked, Block, Failure, Profile, Serving
from orchestrator.scores import combine
from orchestrator.serving import make_profile, make_serving
from orchestrator.storage.ledger import Ledger
from orchestrator.storage.lock import driving, locked
from orchestrator.storage.note import Note, ledger_place, read_note, write_note, write_questions
from orchestrator.storage.store import patiently
from orchestrator.sweepfile import load_config

if TYPE_CHECKING:
    from cluster.measuring import Work
    from tasks.scoring import LedgerLM
    from tasks.suites import SuiteTask

WRITERS, AT_ONCE = 16, 64
"""Threads that write blocks, and blocks that may wait for them."""


def run_sweep(path: Path, out: Path, max_gpu_hours: float | None = None) -> Board:
    """Run a sweep, or go on with it, and write its report.

    Args:
        path: the sweep file.
        out: results folder, private to its owner; created if missing.
        max_gpu_hours: stop handing out work once the workers have been held this long (a worker without a GPU
            counts as one); what is under way is finished and stored.

    Raises:
        UserError: the sweep file, a parent, a task or the results folder is wrong, or object storage cannot be had.
        KeyboardInterrupt: interrupted; all finished blocks are stored.
    """
    from cluster.session import session
    from orchestrator.second_phase import check_training

    config = load_config(path)
    with locked(out), driving(out):
        sweep = open_sweep(config, out)
        if config.finetune:
            check_training(sweep)
        blocks = open_blocks(sweep)
        with session(out / "ray") if blocks else contextlib.nullcontext():
            ask(sweep, blocks, max_gpu_hours)
            if config.finetune:
                continue_into_fine_tuning(sweep)
        return publish(sweep)


@dataclass(frozen=True)
class Sweep:
    """A sweep with everything found: what to ask of whom, and what is known."""

    config: SweepConfig
    out: Path
    sources: dict[str, Source]
    recipes: list[Recipe]
    serving: Serving
    profile: Profile
    lm: LedgerLM
    suites: list[SuiteTask]
    ledger: Ledger


def open_sweep(config: SweepConfig, out: Path) -> Sweep:
    """Resolve parents and tasks; write down the result, so that `report` needs no parents."""
    files = resolve(config)
    sources = {name: found.source for name, found in files.items()}
    check_disk(config, max(found.parameters for found in files.values()), len(expand(config, sources)))
    serving = make_serving(config, files, out / "serving")
    profile = make_profile(config)
    sweep = _load(config, out, sources, serving, profile)
    write_note(out, Note(config, sources, serving, profile, asked_digests(sweep)))
    write_questions(out, {"sweep": sweep.suites})
    return sweep


def reopen_sweep(out: Path) -> Sweep:
    """The sweep whose results are in `out`, from what `run` wrote down there.

    Raises:
        UserError: there is none, or its tasks ask other questions today.
    """
    note = read_note(out)
    sweep = _load(note.config, out, note.sources, note.serving, note.profile)
    changed = [name for name, digest in asked_digests(sweep).items() if note.digests.get(name) != digest]
    if changed:
        raise UserError(
            f"{out}: the questions of {changed[0]} are not those that were asked (its task file, its data or lm-eval "
            "has changed since); the stored answers do not belong to them: restore it, or `run` to ask the new ones"
        )
    return sweep


def asked_digests(sweep: Sweep) -> dict[str, str]:
    """Objective, place and task → digest of its questions."""
    return {
        f"{suite.objective}/{index}/{suite.name}": hashlib.sha256(
            "".join(question.id for question in suite.questions).encode()
        ).hexdigest()
        for index, suite in enumerate(sweep.suites)
    }


def _load(config: SweepConfig, out: Path, sources: dict[str, Source], serving: Serving, profile: Profile) -> Sweep:
    from tasks.suites import keep_private, load_suites, open_lm, remember

    lm = open_lm(config, serving)
    keep_private(config, out)
    recipes = expand(config, sources)
    ledger = Ledger(ledger_place(config, out), serving, profile)
    suites = load_suites(config, lm)
    remember(suites, config, out / "metrics")
    return Sweep(config, out, sources, recipes, serving, profile, lm, suites, ledger)


# -------------------------------------------------------------------- asking
def open_blocks(sweep: Sweep) -> list[Block]:
    """What the ledger does not know yet. A recipe stays invalid under the serving, profile and mergekit that found it
    so; failed ones get another chance."""
    failures, now = stored_failures(sweep.out), context(sweep)

    def is_hopeless(recipe: Recipe) -> bool:
        failure = failures.get(recipe.id)
        return failure is not None and failure.status == "invalid" and failure.context == now

    recipe_ids = [recipe.id for recipe in sweep.recipes if not is_hopeless(recipe)]
    return sweep.ledger.missing_of(recipe_ids, [suite.questions for suite in sweep.suites], sweep.config.workers)


def ask(sweep: Sweep, blocks: list[Block], max_gpu_hours: float | None) -> None:
    """Stream blocks to the workers and their answers into the ledger. With nothing to ask, nothing is started."""
    from cluster.measuring import unmeasured
    from cluster.pool import Pool
    from cluster.session import session
    from cluster.shares import slerp_shares, unknown_shares

    shares = unknown_shares(sweep.config, sweep.sources, sweep.out)
    texts = unmeasured(sweep.suites, _stored_texts(sweep))
    if not (blocks or shares or texts):
        return
    for block in blocks:
        failure_file(sweep.out, block.recipe_id).unlink(missing_ok=True)
    recipes = {recipe.id: recipe for recipe in sweep.recipes}
    with (
        engines(sweep),
        session(sweep.out / "ray"),
        Progress(blocks) as progress,
        slerp_shares(shares, sweep.out, progress.note),
        recording(sweep, texts, progress) as record,
        Pool(worker_spec(sweep), limit=len(blocks), tell=progress.note) as pool,
    ):
        for result in pool.run(recipes, blocks, stop=_budget(sweep.config, pool.crew.held_s, max_gpu_hours)):
            record(result)


@contextlib.contextmanager
def recording(
    sweep: Sweep, texts: Sequence[Work], progress: Progress
) -> Iterator[Callable[[Asked | Failure | None], None]]:
    """Gives what becomes of a result: stored, its texts measured (and these others), shown.

    Raises:
        as `keeping`.
    """
    from cluster.measuring import measuring

    with measuring(sweep.suites, texts, progress.note) as measure, keeping(sweep) as store:

        def record(result: Asked | Failure | None) -> None:
            store(result)
            measure(result)
            progress.update(result)

        yield record


@contextlib.contextmanager
def engines(sweep: Sweep) -> Iterator[None]:
    """Around engines: their scratch is gone before and after, and what vLLM says when none starts is kept.

    Raises:
        UserError: no engine could be started.
    """
    from cluster.crew import EngineStartError

    def clear() -> None:
        """What workers that were killed left half-written, too."""
        for folder in (sweep.out / "checkpoints" / "scratch", *(sweep.out / "checkpoints").glob(".*.tmp")):
            shutil.rmtree(folder, ignore_errors=True)

    clear()
    try:
        yield
    except EngineStartError as error:
        write_atomic(sweep.out / "engine-error.txt", error.detail)
        raise UserError(f"{error} (all of it: {sweep.out / 'engine-error.txt'})") from None
    finally:
        clear()


def _stored_texts(sweep: Sweep) -> Iterator[Answer]:
    """Answers to generation tasks; the ledgers of sweeps without any are not read for it."""
    from tasks.suites import generation_tasks

    if generation_tasks(sweep.suites):
        for recipe_id in sweep.ledger.ahead(recipe.id for recipe in sweep.recipes):
            yield from sweep.ledger.answers(recipe_id).values()


def keep(sweep: Sweep, result: Asked | Failure | None) -> None:
    """Write down what came of a block before anything else happens."""
    if isinstance(result, Asked):
        patiently(lambda: sweep.ledger.write(result), say)
    elif isinstance(result, Failure):
        make_private(sweep.out / "failures")
        failure = dataclasses.replace(result, context=context(sweep))
        write_json(failure_file(sweep.out, result.recipe_id), dataclasses.asdict(failure))


@contextlib.contextmanager
def keeping(sweep: Sweep) -> Iterator[Callable[[Asked | Failure | None], None]]:
    """Gives a `keep` that does not wait for the disk: threads write, many blocks side by side. On leaving, whatever the
    reason, all of them are stored, or it is said why not.

    Raises:
        OSError, StorageError: as `Ledger.write`, at a later call or on leaving.
    """
    writing: deque[tuple[Future[None], Asked]] = deque()

    def settle(most: int) -> None:
        while writing and (len(writing) > most or writing[0][0].done()):
            future, asked = writing.popleft()
            future.result()
            sweep.ledger.note(asked)

    def store(result: Asked | Failure | None) -> None:
        if isinstance(result, Asked):
            writing.append((threads.submit(patiently, partial(sweep.ledger.put, result), say), result))
        else:
            keep(sweep, result)
        settle(AT_ONCE)

    with ThreadPoolExecutor(WRITERS) as threads:
        try:
            yield store
        finally:
            settle(0)


def context(sweep: Sweep) -> str:
    """What an `invalid` depends on besides the recipe."""
    return f"{sweep.serving.id} {sweep.profile.id} mergekit {importlib.metadata.version('mergekit')}"


def worker_spec(sweep: Sweep) -> Any:
    """What every worker is told."""
    from cluster.worker import WorkerSpec

    checkpoints = sweep.out / "checkpoints"
    return WorkerSpec(
        serving=sweep.serving,
        tokenizer_files={file.name: file.read_bytes() for file in sorted(Path(sweep.serving.folder).iterdir())},
        boot=sweep.sources[next(iter(sweep.config.parents))],
        sources={
            f"{'parents' if name in sweep.config.parents else 'candidates'}.{name}": source
            for name, source in sweep.sources.items()
        },
        dtype=sweep.config.dtype,
        workers=sweep.config.workers,
        models=len(sweep.config.parents),
        scratch=str(checkpoints / "scratch"),
        keep=str(checkpoints) if sweep.config.checkpoints.keep else None,
    )


def _budget(config: SweepConfig, held_s: Callable[[], float], hours: float | None) -> Callable[[], bool]:
    return lambda: hours is not None and config.workers.gpu_hours(held_s()) >= hours


# -------------------------------------------------------------------- what came of it
def publish(sweep: Sweep, beside: Published | None = None) -> Board:
    """Scores from the stored answers, the front, and all result files; others' figures beside, where given."""
    from orchestrator.report.page import write_report

    board = make_board(sweep)
    if sweep.config.finetune and is_complete(board):
        from orchestrator.second_phase import make_tuned

        tuned = make_tuned(sweep, board)
        board = dataclasses.replace(board, tuned=tuned, notes=tuple(dict.fromkeys((*board.notes, *tuned.notes))))
    write_board(board, sweep.out)
    write_report(board, sweep.out, beside)
    return board


def continue_into_fine_tuning(sweep: Sweep) -> None:
    """The second phase, once the first is complete: its rules choose among all recipes."""
    from orchestrator.second_phase import fine_tune

    board = make_board(sweep)
    if is_complete(board):
        fine_tune(sweep, board)


def is_complete(board: Board) -> bool:
    return all(row.status != "pending" for row in board.rows)


def make_board(sweep: Sweep) -> Board:
    from tasks.suites import generation_tasks

    failures = stored_failures(sweep.out)
    ahead = sweep.ledger.ahead(recipe.id for recipe in sweep.recipes)
    rows = [_row(sweep, recipe, failures.get(key)) for recipe, key in zip(sweep.recipes, ahead, strict=True)]
    suites = tuple(
        Suite(
            suite.objective,
            suite.name,
            tuple(metric for metric, _ in suite.metrics),
            suite.documents,
            len(suite.questions),
            sum(question.truncated > 0 for question in suite.questions),
            suite.share,
            suite.split,
        )
        for suite in sweep.suites
    )
    slerp = _read_json(sweep.out / "slerp.json")
    said = (note for task in generation_tasks(sweep.suites) for note in task.notes())
    notes = (*sweep.ledger.damaged, *dict.fromkeys(said))
    return Board(sweep.config, sweep.serving, sweep.profile, suites, tuple(mark(sweep.config, rows)), slerp, notes)


def _row(sweep: Sweep, recipe: Recipe, failure: Failure | None) -> Row:
    from tasks.judge import score_task
    from tasks.scoring import Unanswered

    costs = sweep.ledger.costs(recipe.id)
    lm = sweep.lm.knowing(sweep.ledger.answers(recipe.id))
    try:
        scores = [score_task(suite, lm) for suite in sweep.suites]
    except Unanswered:
        return Row(recipe, failure.status if failure else "pending", {}, costs, failure=failure)
    combined = {
        name: combine(objective, [score for score in scores if score.objective == name])
        for name, objective in sweep.config.objectives.items()
    }
    return Row(recipe, "scored", combined, costs)


def failure_file(out: Path, recipe_id: str) -> Path:
    return out / "failures" / f"{recipe_id}.json"


def stored_failures(out: Path) -> dict[str, Failure]:
    """Recipe id → why it has no score.

    Raises:
        UserError: a file there is none of ours.
    """
    found = {}
    for file in sorted((out / "failures").glob("*.json")):
        try:
            found[file.stem] = Failure(**_read_json(file))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{file}: is damaged ({error}); delete it, and `run` finds out again") from None
    return found


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
