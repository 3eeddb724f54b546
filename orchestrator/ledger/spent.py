"""What blocks of answers took: workers' time, and the wall-clock time in which any worker was at it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.records import Drafted


@dataclass(frozen=True)
class Spent:
    """The time that one block took its worker."""

    worker: str
    """host:pid"""
    device: str
    """Name of the worker's device; empty for a block that was stored without it."""
    written: float
    """When it was stored: seconds since the epoch, by the driver's clock."""
    swap_s: float
    """Seconds until the recipe's weights were loaded …"""
    answer_s: float
    """… and from then until the block was answered."""
    drafted: Drafted | None = None
    """What speculative decoding did; None where there was none."""

    def span(self, cost: str) -> tuple[float, float]:
        """Return the begin and the end of the time that one of the costs (`COSTS`) took, in seconds since the epoch."""
        answering = self.written - self.answer_s
        return (answering - self.swap_s, answering) if cost == "swap_s" else (answering, self.written)


@dataclass(frozen=True)
class Busy:
    """One kind of work of several blocks."""

    wall_s: float
    """Seconds in which at least one worker was at it."""
    worker_s: float
    """Seconds of all workers."""
    workers: int
    """The most workers that were at it at the same time."""
    devices: tuple[str, ...]
    """Names of the workers' devices."""


def busy(blocks: Iterable[Spent], cost: str) -> Busy:
    """Sum up what one of the costs (`COSTS`) of several blocks took."""
    blocks = [block for block in blocks if getattr(block, cost) > 0]
    spans = [block.span(cost) for block in blocks]
    at_it, most, wall, since = 0, 0, 0.0, 0.0
    # Where one span ends as another begins, the end comes first: a worker does one block after the other.
    for time, step in sorted((time, step) for span in spans for time, step in zip(span, (1, -1), strict=True)):
        wall += (time - since) if at_it else 0.0
        at_it, since = at_it + step, time
        most = max(most, at_it)
    devices = tuple(dict.fromkeys(block.device for block in blocks if block.device))
    return Busy(wall, sum(getattr(block, cost) for block in blocks), most, devices)
