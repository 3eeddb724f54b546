"""How long a worker may go without an answer before it counts as hung: far longer than the like has ever taken."""

from __future__ import annotations

from orchestrator.core.records import Asked, Block

TIMES = 10
"""Of the slowest so far."""
UNKNOWN = 12
"""Floors, for what has never been done yet: a first engine compiles, a first parent is fetched."""


class Patience:
    """
    Args:
        floor: seconds that are always granted.
    """

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self._start: float | None = None
        self._swap = 0.0
        self._rates: dict[bool, float] = {}
        """Whether texts were written → seconds a token, of the slowest block."""

    def started(self, seconds: float) -> None:
        self._start = max(self._start or 0.0, seconds)

    def answered(self, asked: Asked) -> None:
        kind, rate = _kind(asked.block), asked.answer_s / _tokens(asked.block)
        self._swap = max(self._swap, asked.swap_s)
        self._rates[kind] = max(self._rates.get(kind, 0.0), rate)

    def for_start(self) -> float:
        """Seconds that an engine may take to start."""
        return self._limit(self._start)

    def for_block(self, block: Block) -> float:
        """Seconds that a worker may take over a block."""
        rate = self._rates.get(_kind(block))
        return self._limit(None if rate is None else self._swap + rate * _tokens(block))

    def _limit(self, slowest: float | None) -> float:
        return UNKNOWN * self.floor if slowest is None else max(self.floor, TIMES * slowest)


def _kind(block: Block) -> bool:
    return any(question.decoding for question in block.questions)


def _tokens(block: Block) -> int:
    return sum(question.tokens for question in block.questions)
