"""Learning curves (score against number of labelled examples), and how many examples of two starts are equivalent.

Between two budgets a curve is interpolated linearly over the logarithm of the number of examples. Intervals are
bootstraps over documents, the same for all curves (so that the difficulty of a document cancels out), and over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from orchestrator.stats.estimates import Floats
from orchestrator.stats.scores import Score

DRAWS = 1000
"""Draws of a bootstrap."""
Curve = Mapping[int, Sequence[Score]]
"""Number of examples → the scores of its seeds."""


@dataclass(frozen=True)
class Equivalent:
    """How many examples one starting point needs for the score of another.

    Infinity means more than its largest budget, 0 less than its smallest.
    """

    examples: int
    """Number of examples of the one starting point."""
    equal: float
    """Number of examples with which the other starting point has the same score."""
    low: float
    high: float
    """95 % interval of `equal`, from `low` to `high`."""


def mean_score(scores: Sequence[Score]) -> Score:
    """Average the scores of several seeds over the same documents into one score."""
    tasks = tuple(
        replace(
            same[0],
            value=float(np.mean([task.value for task in same])),
            influence=np.mean([task.influence for task in same], axis=0),
            metrics={
                key: float(np.mean([task.metrics[key] for task in same]))
                for key in same[0].metrics
                if all(key in task.metrics for task in same)
            },
        )
        for same in zip(*(score.tasks for score in scores), strict=True)
    )
    return replace(scores[0], value=float(np.mean([score.value for score in scores])), tasks=tasks)


def spread(scores: Sequence[Score]) -> float | None:
    """Compute the standard deviation over seeds; None for a single seed."""
    return float(np.std([score.value for score in scores], ddof=1)) if len(scores) > 1 else None


def equivalents(one: Curve, other: Curve, sign: float = 1.0, seed: int = 0) -> list[Equivalent]:
    """Compute, for each budget of `one`, the number of examples with which `other` has the same score.

    Args:
        sign: +1 where higher is better, else -1.
        seed: random seed of the bootstrap.
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
    """Compute both curves on resampled documents and seeds; shape (DRAWS, budgets)."""
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
    """Find the number of examples at which a curve first reaches a value.

    It is 0 for a value below the first point, and infinite where the curve never reaches it.
    """
    if value <= curve[0]:
        return float(sizes[0]) if value == curve[0] else 0.0
    for left in range(len(sizes) - 1):
        if curve[left] < value <= curve[left + 1]:
            share = (value - curve[left]) / (curve[left + 1] - curve[left])
            return float(sizes[left] * (sizes[left + 1] / sizes[left]) ** share)
    return float("inf")
