"""Differences of recipes, paired by document, with intervals that all hold at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.stats.estimates import Floats
from orchestrator.stats.power import detectable_from
from orchestrator.stats.scores import Score, TaskScore, estimates
from orchestrator.stats.simultaneous import critical


@dataclass(frozen=True)
class Difference:
    """The difference a - b of two recipes on one objective or task, paired by document."""

    task: str
    """The task, or the tasks with + between them."""
    a: float
    b: float
    low: float
    high: float
    """95 % interval of a - b, from `low` to `high`; NaN where it is not known."""
    won: list[int]
    """Indices of the documents on which only a is correct; empty for several tasks, and where the metric is not
    binary."""
    lost: list[int]
    """Indices of the documents on which only b is correct; empty as `won`."""

    detectable: float
    """The difference that such an interval shows with a probability of 80 %; NaN where it is not known."""

    @property
    def value(self) -> float:
        """The difference a - b."""
        return self.a - self.b


def differences(pairs: Sequence[tuple[Score, Score]]) -> list[Difference]:
    """Compute a - b of each pair, with intervals that all hold at once with 95 %."""
    statements = [estimates([a]) - estimates([b]) for a, b in pairs]
    normal = critical(statements)
    found = []
    for (a, b), statement in zip(pairs, statements, strict=True):
        (low,), (high,) = statement.interval(normal)
        (shown,) = detectable_from(statement, normal)
        won, lost = _flips(a, b)
        name = " + ".join(task.task for task in a.tasks)
        found.append(Difference(name, a.value, b.value, float(low), float(high), won, lost, float(shown)))
    return found


def difference(a: TaskScore, b: TaskScore) -> Difference:
    """Compare two recipes on one task alone, with the interval of a single statement."""
    return differences([(alone(a), alone(b))])[0]


def alone(task: TaskScore) -> Score:
    """Make the score of one task of several."""
    return Score(task.value, (task,), (1.0,))


def _flips(a: Score, b: Score) -> tuple[list[int], list[int]]:
    first, second = a.tasks[0].documents, b.tasks[0].documents
    if len(a.tasks) > 1 or not (_binary(first) and _binary(second)):
        return [], []
    return np.flatnonzero((first == 1) & (second == 0)).tolist(), np.flatnonzero((first == 0) & (second == 1)).tolist()


def _binary(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())
