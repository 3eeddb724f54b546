"""Work that is shared out to the cores of this machine, by copies of this process."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


WORTH_S = 1.0
"""Seconds of work from which on it is shared out: a copy of a large process takes a tenth of a second to start."""
BETWEEN_S = 0.1
"""Seconds for which a copy collects results before it sends them."""
PATIENCE_S = 120.0
"""Seconds after which a copy that gives no further result is killed."""


def usable_cores() -> int:
    """Return how many copies of this process can work at once.

    It is 1 where a process with threads is not safely copied, and in a copy.
    """
    return 1 if sys.platform != "linux" or multiprocessing.current_process().daemon else len(os.sched_getaffinity(0))


def copies_for(items: int, takes_s: float) -> int:
    """Return how many copies `shared_out` makes for so many items that take so long together; 1 for none."""
    return max(1, min(usable_cores(), items)) if takes_s >= WORTH_S else 1


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
    processes = copies_for(len(items), takes_s)
    if processes == 1:
        yield from map(work, items)
        return
    copies: list[_Copy] = []
    gc.freeze()  # a collection would write to every page of memory that the processes share, and so copy it
    try:
        for index in range(processes):
            copies.append(_Copy(work, items[index::processes], [copy.reading for copy in copies]))
        for number, item in enumerate(items):
            found = copies[number % processes].next()
            yield work(item) if found is None else found[0]
    finally:
        for copy in copies:
            copy.end()
        gc.unfreeze()


class _Copy:
    """A copy of this process that computes some items.

    Args:
        others: what is open of the copies before. Only this process may hold them: who writes to it has to notice when
            it ends.
    """

    def __init__(self, work: Callable[[T], R], items: Sequence[T], others: Sequence[Connection]) -> None:
        context = multiprocessing.get_context("fork")
        self.reading, writing = context.Pipe(duplex=False)
        inherited = [*others, self.reading]
        self.process = context.Process(target=_compute, args=(work, items, writing, inherited), daemon=True)
        self._results = deque[bytes | None]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of copying a process that has threads
            self.process.start()
        writing.close()

    def next(self) -> tuple[Any] | None:
        """Return the next result in a tuple; None where there is none."""
        with contextlib.suppress(EOFError, OSError):
            if not self._results and not self.reading.poll(PATIENCE_S):
                self.process.kill()
            if not self._results:
                self._results.extend(pickle.loads(self.reading.recv_bytes()))
        result = self._results.popleft() if self._results else None
        return None if result is None else pickle.loads(result)

    def end(self) -> None:
        """End the copy, whatever it does."""
        self.process.kill()
        self.process.join()
        self.reading.close()


def _compute(work: Callable[[T], R], items: Sequence[T], writing: Connection, others: Sequence[Connection]) -> None:
    """In a copy: compute some items, and write a list of results from time to time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal interrupts all; the first process then ends the others
    for other in others:
        other.close()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # its other threads were not copied
    results, sent = list[bytes | None](), time.monotonic()
    with contextlib.suppress(BrokenPipeError):  # the first process has ended
        for number, item in enumerate(items, 1):
            results.append(_tried(work, item))
            if number == len(items) or time.monotonic() > sent + BETWEEN_S:
                writing.send_bytes(pickle.dumps(results))
                results, sent = [], time.monotonic()


def _tried(work: Callable[[T], R], item: T) -> bytes | None:
    """Compute an item, and pickle it in a tuple; None where one of both raises: it is done where that can be told."""
    try:
        return pickle.dumps((work(item),), pickle.HIGHEST_PROTOCOL)
    except Exception:
        return None
