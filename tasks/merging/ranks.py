"""The ranks of an engine that have shards of the same layers, and how they share work on whole tensors.

A merge that has to see whole tensors cannot be cut into shards. So each rank takes some of the tensors, and sends
the results to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed

from tasks.merging.checkpoint import MergeRefused

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """The ranks that share work, as one of them sees them; alone by default."""

    rank: int = 0
    """Number of this one, from 0."""
    size: int = 1
    """How many there are."""
    group: Any = None
    """A process group that takes CPU tensors (gloo); None for a rank alone."""

    def share(self, items: Sequence[Item], costs: Sequence[int], function: Callable[[Item], Any]) -> list[Any]:
        """Apply a function to each item on one rank, and return all results, in order, on every rank.

        All ranks must call it with the same items.

        Args:
            costs: of the items, in any unit; they decide which rank gets which.
            function: returns a CPU tensor, or an object that can be pickled.

        Raises:
            Exception: what the function raised; on the other ranks a MergeRefused or RuntimeError with its message.
        """
        if self.size == 1:
            return [function(item) for item in items]
        owners, mine = deal(costs, self.size), dict[int, Any]()
        error: Exception | None = None
        try:
            for index, item in enumerate(items):
                if owners[index] == self.rank:
                    mine[index] = function(item)
        except Exception as raised:  # sent to the others first: they wait
            error = raised
        self._raise_together(error)
        gathered = self._gather({index: _like(value) for index, value in mine.items()})
        found = {index: like for each in gathered for index, like in each.items()}
        return [self._receive(owners[index], mine.get(index), found[index]) for index in range(len(items))]

    def _raise_together(self, error: Exception | None) -> None:
        """Raise everywhere what went wrong anywhere."""
        note = error and (isinstance(error, MergeRefused), str(error) or type(error).__name__)
        for other in filter(None, self._gather(note)):
            refused, message = other
            raise error or (MergeRefused(message) if refused else RuntimeError(message))

    def _gather(self, value: Any) -> list[Any]:
        gathered: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(gathered, value, group=self.group)
        return gathered

    def _receive(self, source: int, mine: Any, like: Any) -> Any:
        if not isinstance(like, _Like):
            return like
        result = mine.contiguous() if source == self.rank else torch.empty(like.shape, dtype=like.dtype)
        # As bytes: gloo does not know every dtype.
        torch.distributed.broadcast(result.reshape(-1).view(torch.uint8), group=self.group, group_src=source)
        return result


@dataclass(frozen=True)
class _Like:
    """A tensor that is sent on its own."""

    shape: torch.Size
    dtype: torch.dtype


def _like(value: Any) -> Any:
    return _Like(value.shape, value.dtype) if isinstance(value, torch.Tensor) else value


def deal(costs: Sequence[int], size: int) -> list[int]:
    """Choose a rank for each item: the largest first, each to the rank with the least to do."""
    loads, owners = [0] * size, [0] * len(costs)
    for index in sorted(range(len(costs)), key=lambda index: -costs[index]):
        owners[index] = loads.index(min(loads))
        loads[owners[index]] += costs[index]
    return owners
