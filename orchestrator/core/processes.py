"""Work that is shared out to the cores of this machine, by copies of this process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


WORTH_S = 1.0
"""Seconds of work from which on it is shared out: a copy of a large process takes a tenth of a second to start."""
PATIENCE_S = 120.0
"""Seconds after which a copy that gives no further result is killed."""


def usable_cores() -> int:
    """Return how many copies of this process can work at once.

    It is 1 where a process with threads is not safely copied, and in a copy.
    """
    return 1 if sys.platform != "linux" or multiprocessing.current_process().daemon else len(os.sched_getaffinity(0))


def shared_out(work: Callable[[T], R], items: Sequence[T], takes_s: float) -> Iterator[R]:
    """Yield `work(item)` for each item, in order, computed by copies of this process where it is much.

    The copies are forked, so that they have all that is loaded here and `work` is not pickled; its results are. What a
    copy does not give, because it was killed, or its work raises or waits for a thread that it has no copy of, is
    computed here, and raises here. The copies end with this process, whatever ends it.

    Args:
        work: does not print, and uses no connection that is open here.
        items: each copy computes every so many-th.
        takes_s: about how many seconds all of it takes on one core.
    """
    processes = min(usable_cores(), len(items)) if takes_s >= WORTH_S else 1
    if processes <= 1:
        yield from map(work, items)
        return
    copies: list[tuple[Any, Connection]] = []
    try:
        for index in range(processes):
            copies.append(_copy(work, items[index::processes], [reading for _, reading in copies]))
        for number, item in enumerate(items):
            found = _take(*copies[number % processes])
            yield work(item) if found is None else found[0]
    finally:
        for copy, reading in copies:
            copy.kill()
            copy.join()
            reading.close()


def _copy(work: Callable[[T], R], items: Sequence[T], others: Sequence[Connection]) -> tuple[Any, Connection]:
    """Start a copy that computes some items; return it, and where its results can be read.

    Args:
        others: what is open of the copies before. Only this process may hold them: who writes to it has to notice when
            it ends.
    """
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)
    copy = context.Process(target=_compute, args=(work, items, writing, [*others, reading]), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of copying a process that has threads
        copy.start()
    writing.close()
    return copy, reading


def _compute(work: Callable[[T], R], items: Sequence[T], writing: Connection, others: Sequence[Connection]) -> None:
    """In a copy: compute some items, and write each result, or None where there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts all; the first process then ends the others
    for other in others:
        other.close()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # its other threads were not copied
    with contextlib.suppress(BrokenPipeError):  # the first process has ended
        for item in items:
            try:
                data = pickle.dumps((work(item),), pickle.HIGHEST_PROTOCOL)
            except Exception:  # computed again where it can be told
                data = pickle.dumps(None)
            writing.send_bytes(data)


def _take(copy: Any, reading: Connection) -> tuple[Any] | None:
    """Return a copy's next result in a tuple; None where it has none."""
    with contextlib.suppress(EOFError, OSError):
        if reading.poll(PATIENCE_S):
            found: tuple[Any] | None = pickle.loads(reading.recv_bytes())
            return found
        copy.kill()
    return None
