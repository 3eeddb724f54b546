"""What comes of a block, written down before anything else happens: answers into the ledger, failures into their
files."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from cluster.text_metrics import Work, measuring
from orchestrator.core.progress import Progress, say
from orchestrator.core.records import Answered, Failure
from orchestrator.core.store import patiently
from orchestrator.results.failures import write_failure
from orchestrator.results.layout import Layout
from orchestrator.stages.open import Round, Sweep

WRITERS, WAITING_BLOCKS = 16, 64
"""Threads that write blocks, and blocks that may wait for them."""

Result = Answered | Failure | None
"""Of a block; None where nothing has come yet."""


def invalid_context(sweep: Sweep) -> str:
    """What an `invalid` depends on besides the recipe."""
    return f"{sweep.serving.id} {sweep.profile.id} mergekit {importlib.metadata.version('mergekit')}"


def record(sweep: Sweep, layout: Layout, result: Result) -> None:
    """Store a result; on return it is on the disk, or in the bucket.

    Args:
        layout: where failures are written.

    Raises:
        OSError, StorageError: as `Ledger.write`.
    """
    if isinstance(result, Answered):
        patiently(lambda: sweep.ledger.write(result), say)
    elif isinstance(result, Failure):
        write_failure(layout, dataclasses.replace(result, context=invalid_context(sweep)))


@contextlib.contextmanager
def recording(
    sweep: Sweep, evaluated: Round, texts: Sequence[Work], progress: Progress
) -> Iterator[Callable[[Result], None]]:
    """Give a function that stores a result, has its texts measured, and shows it.

    Args:
        texts: stored texts that are still to be measured.

    Raises:
        as `storing`.
    """
    with measuring(evaluated.suites, texts, progress.note) as measure, storing(sweep, evaluated.layout) as store:

        def take(result: Result) -> None:
            store(result)
            measure(result)
            progress.update(result)

        yield take


@contextlib.contextmanager
def storing(sweep: Sweep, layout: Layout) -> Iterator[Callable[[Result], None]]:
    """Give a `record` that does not wait for the disk: threads write, many blocks side by side. On leaving, whatever
    the reason, all of them are stored, or it is said why not.

    Raises:
        OSError, StorageError: as `Ledger.write`, at a later call or on leaving.
    """
    writing: deque[tuple[Future[None], Answered]] = deque()

    def settle(most: int) -> None:
        while writing and (len(writing) > most or writing[0][0].done()):
            future, answered = writing.popleft()
            future.result()
            sweep.ledger.note(answered)

    def store(result: Result) -> None:
        if isinstance(result, Answered):
            writing.append((threads.submit(patiently, partial(sweep.ledger.put, result), say), result))
        else:
            record(sweep, layout, result)
        settle(WAITING_BLOCKS)

    with ThreadPoolExecutor(WRITERS) as threads:
        try:
            yield store
        finally:
            settle(0)
