"""How long a worker may take before it counts as hung: far longer than the same kind of work has ever taken."""

from __future__ import annotations

from orchestrator.core.records import Answered, Block

TIMES = 10
"""A limit, as a multiple of the slowest so far."""
UNKNOWN = 12
"""A limit, as a multiple of the floor, for what was never done before: a first engine compiles, a first parent is
downloaded."""


class Timeout:
    """The limit of one kind of work, which grows with the slowest that was observed.

    Args:
        floor: seconds that are always allowed.
    """

    def __init__(self, floor: float) -> None:
        self.floor = floor
        self._slowest: float | None = None

    def observe(self, seconds: float) -> None:
        """Note how long it took once."""
        self._slowest = max(self._slowest or 0.0, seconds)

    def limit(self) -> float:
        """Compute the seconds that it may take."""
        return limit(self.floor, self._slowest)


class Timeouts:
    """The limits of a serving worker: for the start of its engine, and for a block.

    Args:
        floor: seconds that are always allowed.
    """

    def __init__(self, floor: float) -> None:
        self.start = Timeout(floor)
        self._floor, self._swap = floor, 0.0
        self._rates: dict[bool, float] = {}
        """Whether texts were generated → seconds a token, of the slowest block."""

    def observe_block(self, answered: Answered) -> None:
        """Note how long a block took."""
        kind, rate = bool(answered.block.writes), answered.answer_s / _tokens(answered.block)
        self._swap = max(self._swap, answered.swap_s)
        self._rates[kind] = max(self._rates.get(kind, 0.0), rate)

    def block_limit(self, block: Block) -> float:
        """Compute the seconds that a worker may take for a block, a swap of the weights included."""
        rate = self._rates.get(bool(block.writes))
        return limit(self._floor, None if rate is None else self._swap + rate * _tokens(block))


def limit(floor: float, slowest: float | None) -> float:
    """Compute the limit in seconds from the floor and the slowest so far, which is None where there was none."""
    return UNKNOWN * floor if slowest is None else max(floor, TIMES * slowest)


def _tokens(block: Block) -> int:
    return sum(question.tokens for question in block.questions)
