"""Storing the results of blocks: answers go into the ledger, failures into their files."""

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
from orchestrator.results.failures import read_failures, write_failure
from orchestrator.results.layout import Layout
from orchestrator.stages.open import Round, Sweep

WRITERS, WAITING_BLOCKS = 16, 64
"""Threads that write blocks, and most blocks that may wait for them."""

Result = Answered | Failure | None
"""The result of a block; None where no result has arrived since the last."""


def invalid_context(sweep: Sweep) -> str:
    """Everything besides the recipe that makes it invalid: serving, numeric profile and mergekit's version."""
    return f"{sweep.serving.id} {sweep.profile.id} mergekit {importlib.metadata.version('mergekit')}"


def known_invalid(sweep: Sweep, layout: Layout) -> set[str]:
    """Ids of the recipes that were found invalid under today's serving, numeric profile and mergekit.

    Another attempt cannot help these.

    Args:
        layout: where failures are written.
    """
    now = invalid_context(sweep)
    failures = read_failures(layout)
    return {key for key, each in failures.items() if each.status == "invalid" and each.context == now}


def record(sweep: Sweep, layout: Layout, result: Result) -> None:
    """Store one result; on return it is on the disk, or in the bucket.

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
    """Provide a function that stores a result, has its texts measured, and shows it in the progress bar.

    Args:
        texts: texts that were stored earlier and are still to be measured.

    Raises:
        OSError, StorageError: as `storing`.
    """
    with measuring(evaluated.suites, texts, progress.note) as measure, storing(sweep, evaluated.layout) as store:

        def take(result: Result) -> None:
            store(result)
            measure(result)
            progress.update(result)

        yield take


@contextlib.contextmanager
def storing(sweep: Sweep, layout: Layout) -> Iterator[Callable[[Result], None]]:
    """Provide a `record` that does not wait for the disk, as threads write many blocks at once.

    On leaving, also because of an error, it waits until all of them are stored.

    Raises:
        OSError, StorageError: as `Ledger.write`, at a later call or on leaving.
    """
    writing: deque[tuple[Future[None], Answered]] = deque()

    def settle(most: int) -> None:
        """Note in the ledger what is written, and wait until at most so many blocks are left."""
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
