"""What the ledger does not know yet, asked: blocks to the workers, their answers into the ledger."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private, write_atomic, write_json
from orchestrator.core.progress import Progress, say
from orchestrator.core.records import Answer, Asked, Block, Failure
from orchestrator.core.store import patiently
from orchestrator.recipes.recipe import Recipe

if TYPE_CHECKING:
    from cluster.text_metrics import Work
from orchestrator.results.failures import failure_file, stored_failures
from orchestrator.stages.open import Sweep
from orchestrator.stages.score import is_complete, make_board

WRITERS, AT_ONCE = 16, 64
"""Threads that write blocks, and blocks that may wait for them."""


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
    from cluster.pool import Pool
    from cluster.session import session
    from cluster.slerp_pairs import slerp_shares, unknown_shares
    from cluster.text_metrics import unmeasured

    shares = unknown_shares(sweep.config, sweep.sources, sweep.out / "slerp.json")
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
        slerp_shares(shares, sweep.out / "slerp.json", sweep.out / "checkpoints" / "scratch", progress.note),
        recording(sweep, texts, progress) as record,
        Pool(worker_spec(sweep), limit=len(blocks), log=progress.note) as pool,
    ):
        for result in pool.run(recipes, blocks, stop=_budget(sweep.config, pool.workers.seconds, max_gpu_hours)):
            record(result)


@contextlib.contextmanager
def recording(
    sweep: Sweep, texts: Sequence[Work], progress: Progress
) -> Iterator[Callable[[Asked | Failure | None], None]]:
    """Gives what becomes of a result: stored, its texts measured (and these others), shown.

    Raises:
        as `keeping`.
    """
    from cluster.text_metrics import measuring

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
    from cluster.errors import EngineStartError

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
    from tasks.evaluation.suites import generation_tasks

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
    from cluster.spec import WorkerSpec

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
    return lambda: hours is not None and held_s() * (config.workers.gpus_held or 1) / 3600 >= hours


def continue_into_fine_tuning(sweep: Sweep) -> None:
    """The second phase, once the first is complete: its rules choose among all recipes."""
    from orchestrator.stages.finetune import fine_tune

    board = make_board(sweep)
    if is_complete(board):
        fine_tune(sweep, board)
