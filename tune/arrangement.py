"""The race's order over the documents of all tasks and objectives, and what each document adds to its objective."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.stats.estimates import Floats, Ints
from tasks.evaluation.ranges import Ranges
from tune.racing import TINY, Draws, race_order


@dataclass(frozen=True)
class TaskPart:
    """A task as a part of an objective."""

    objective: str
    keys: Sequence[str]
    """Of each document; the same question has one key everywhere."""
    part: float
    """What the task's score is multiplied with in the objective: its weight, below 0 where lower is better."""
    ranges: Ranges

    @property
    def reach(self) -> float:
        """How much the task can change the objective; where no range is known, as a metric from 0 to 1."""
        return abs(self.part) * (self.ranges.width if math.isfinite(self.ranges.width) else 1.0)


@dataclass(frozen=True)
class RacedTask:
    """A task with its documents in the race's order."""

    objective: str
    part: float
    """As in `TaskPart`."""
    documents: Ints
    """Numbers of the documents, from 0, in the race's order; shape (documents,)."""
    draws: Ints
    """Number of each of these documents' draw among those of the objective; shape (documents,)."""
    places: Ints
    """Place of each of these documents' draw among all; shape (documents,)."""
    ranges: Ranges

    @cached_property
    def tops(self) -> Floats:
        """The largest that each document can add to the objective, infinite where none is known; (documents,)."""
        best = self.ranges.high if self.part > 0 else self.ranges.low
        if self.ranges.unknown or not np.isfinite(best).all():
            return np.full(len(self.draws), np.inf)
        return np.asarray(self.part / len(self.draws) * (self.ranges.weights * best[:, None]).mean(axis=0))

    @property
    def unbounded(self) -> str:
        """Which metric nothing bounds, and why; empty where all are bounded."""
        open_end = f"no {'largest' if self.part > 0 else 'least'} value is known"
        return self.ranges.unknown or ("" if np.isfinite(self.tops).all() else open_end)

    def until(self, place: int) -> int:
        """Count the documents whose draw is before a place."""
        return int(np.searchsorted(self.places, place))

    def values(self, own: Floats, metrics: Floats, otherwise: Floats) -> tuple[Floats, bool]:
        """Compute what each of the first documents adds to the objective, and whether this is as it was known to be.

        Args:
            own: value of each metric for each of them; shape (metrics, documents).
            metrics: the metrics' values over them; shape (metrics,).
            otherwise: the task's score plus their influences, for metrics that are no sum over documents.
        """
        exact = self.ranges.values(own, metrics)
        found = self.part / len(self.draws) * (otherwise if exact is None else exact)
        is_within = bool((found <= self.tops[: len(found)] + TINY * abs(self.part)).all())
        return found, bool(self.unbounded) or (exact is not None and is_within)


@dataclass(frozen=True)
class Arrangement:
    """The race's order over all documents."""

    draws: tuple[Draws, ...]
    """Of each objective."""
    tasks: tuple[RacedTask, ...]
    size: int
    """Number of draws."""
    first: int
    """Number of draws that give every task a score."""

    def until(self, share: float) -> int:
        """Return the number of draws of a rung that has a share of them."""
        return max(math.ceil(share * self.size), self.first)


def arrange(objectives: Sequence[str], parts: Sequence[TaskPart], seed: int) -> Arrangement:
    """Draw the order."""
    weight = _weights(parts)
    order, first = race_order([part.keys for part in parts], weight, seed)
    place = {key: number for number, key in enumerate(order)}
    draws, tasks = {}, []
    for name in objectives:
        own = {place[key] for part in parts if part.objective == name for key in part.keys}
        places = np.array(sorted(own))
        weights = np.array([weight[order[each]] for each in places])
        draws[name] = places, Draws(weights, int((places < first).sum()), np.zeros(len(places)))
    for part in parts:
        places, drawn = draws[part.objective]
        own_places = np.array([place[key] for key in part.keys])
        documents = np.argsort(own_places, kind="stable")
        in_order = own_places[documents]
        task = RacedTask(
            part.objective, part.part, documents, np.searchsorted(places, in_order), in_order,
            part.ranges.ordered(documents),
        )  # fmt: skip
        np.add.at(drawn.tops, task.draws, task.tops)
        tasks.append(task)
    return Arrangement(tuple(each for _, each in draws.values()), tuple(tasks), len(order), first)


def _weights(parts: Sequence[TaskPart]) -> dict[str, float]:
    """The weight of each key: what a document can change in its objective, 1 on the average of each objective.

    A question of several tasks has the largest of its weights.
    """
    found: dict[str, float] = {}
    for part in parts:
        same = [other for other in parts if other.objective == part.objective]
        mean = sum(other.reach for other in same) / sum(len(other.keys) for other in same)
        weight = part.reach / len(part.keys) / mean
        found.update({key: max(weight, found.get(key, 0.0)) for key in part.keys})
    return found
