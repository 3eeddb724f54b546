"""Learning curves: score against the number of labelled examples, and how many examples of one starting point are
worth how many of another.

Between two budgets a curve is taken as straight over the logarithm of the number of examples. Intervals are bootstraps
over documents, the same for all curves (so that what makes a document hard cancels out), and over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from orchestrator.stats.scores import Floats, Score

DRAWS = 1000
Curve = Mapping[int, Sequence[Score]]
"""Number of examples → the scores of its seeds."""


@dataclass(frozen=True)
class Equivalent:
    """`examples` of one starting point are worth `equal` of another, with a 95 % interval. Infinity means more than the
    other's largest budget, 0 less than its smallest."""

    examples: int
    equal: float
    low: float
    high: float


def mean_score(scores: Sequence[Score]) -> Score:
    """The mean of several seeds' scores over the same documents, as a score."""
    tasks = tuple(
        replace(
            same[0],
            value=float(np.mean([task.value for task in same])),
            influence=np.mean([task.influence for task in same], axis=0),
            metrics={key: float(np.mean([task.metrics[key] for task in same])) for key in same[0].metrics},
        )
        for same in zip(*(score.tasks for score in scores), strict=True)
    )
    return replace(scores[0], value=float(np.mean([score.value for score in scores])), tasks=tasks)


def spread(scores: Sequence[Score]) -> float | None:
    """The standard deviation over seeds; None for a single one."""
    return float(np.std([score.value for score in scores], ddof=1)) if len(scores) > 1 else None


def equivalents(one: Curve, other: Curve, sign: float = 1.0, seed: int = 0) -> list[Equivalent]:
    """How many examples of `other` score the same, for each budget of `one`.

    Args:
        sign: +1 where more is better, else -1.
    """
    generator = np.random.default_rng(seed)
    drawn_one, drawn_other = _draws(one, other, generator)
    sizes = np.array(sorted(other), float)
    found = []
    for index, examples in enumerate(sorted(one)):
        own = [sign * value for value in (_means(one)[index], *drawn_one[:, index])]
        curves = [sign * values for values in (_means(other), *drawn_other)]
        read = [_inverse(sizes, curve, value) for value, curve in zip(own, curves, strict=True)]
        low, high = np.quantile(read[1:], (0.025, 0.975), method="closest_observation")
        found.append(Equivalent(examples, read[0], float(low), float(high)))
    return found


def _means(curve: Curve) -> Floats:
    return np.array([np.mean([score.value for score in curve[size]]) for size in sorted(curve)])


def _draws(one: Curve, other: Curve, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Both curves over documents and seeds drawn anew; shape (DRAWS, budgets)."""
    sizes = [len(task.influence) for task in next(iter(one.values()))[0].tasks]
    drawn: tuple[list[list[float]], list[list[float]]] = ([], [])
    for _ in range(DRAWS):
        documents = [generator.integers(0, size, size) for size in sizes]
        for curve, rows in zip((one, other), drawn, strict=True):
            rows.append([_redrawn(curve[size], documents, generator) for size in sorted(curve)])
    return np.array(drawn[0]), np.array(drawn[1])


def _redrawn(scores: Sequence[Score], documents: list[npt.NDArray[np.int64]], generator: np.random.Generator) -> float:
    chosen = [scores[index] for index in generator.integers(0, len(scores), len(scores))]
    values = [
        score.value
        + sum(
            weight * float(task.influence[drawn].mean())
            for weight, task, drawn in zip(score.weights, score.tasks, documents, strict=True)
        )
        for score in chosen
    ]
    return float(np.mean(values))


def _inverse(sizes: Floats, curve: Floats, value: float) -> float:
    """Where the curve first reaches the value: 0 below its first point, infinite where it never does."""
    if value <= curve[0]:
        return float(sizes[0]) if value == curve[0] else 0.0
    for left in range(len(sizes) - 1):
        if curve[left] < value <= curve[left + 1]:
            share = (value - curve[left]) / (curve[left + 1] - curve[left])
            return float(sizes[left] * (sizes[left + 1] / sizes[left]) ** share)
    return float("inf")
