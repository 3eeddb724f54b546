"""Scores and their differences, with standard errors and intervals.

A score has an influence for each document: how much the score would change if that document had more weight. Influences
have mean zero. Their standard deviation over √n is the standard error; with the differences of two recipes' influences
it is the paired standard error, in which a document's difficulty for both cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.config.objectives import Objective

Floats = npt.NDArray[np.float64]
BOOTSTRAP = 10_000
"""Draws of a bootstrap."""


@dataclass(frozen=True)
class Reasoning:
    """How much of a recipe's replies to a task is reasoning, which is cut before they are scored."""

    tokens: int
    """Tokens that are cut."""
    generated: int
    """Tokens of all replies, reasoning included."""
    replies: int
    unfinished: int
    """Replies whose reasoning never ends; they are scored as a whole, as in lm-eval."""


@dataclass(frozen=True)
class TaskScore:
    """The score of one recipe on one task of one objective."""

    objective: str
    task: str
    metrics: dict[str, float]
    value: float
    """Mean of the metrics that the objective names."""
    influence: Floats
    """Influence of each document on `value`; shape (documents,)."""
    documents: Floats
    """Value of the first metric for each document, NaN where it has none; shape (documents,)."""
    share: float = 1.0
    """The task's share of its group, for objectives with `average: groups`."""
    counted: dict[str, int] = field(default_factory=dict)
    """Metric → number of documents that have it; lm-eval aggregates over those."""
    reasoning: Reasoning | None = None
    """What was cut from its replies; None where the objective has no `think_end_token`."""

    def __post_init__(self) -> None:
        assert math.isfinite(self.value) and np.isfinite(self.influence).all(), f"{self.task} has no score"


@dataclass(frozen=True)
class Score:
    """The score of one recipe on one objective: a weighted sum of independent tasks."""

    value: float
    tasks: tuple[TaskScore, ...]
    weights: tuple[float, ...]
    """Weight of each task; they sum to 1."""

    @property
    def se(self) -> float:
        """The standard error of `value`."""
        return _se(self.weights, [task.influence for task in self.tasks])


def combine(objective: Objective, tasks: Sequence[TaskScore]) -> Score:
    """Combine task scores into the objective's: the mean over its tasks, over its groups, or over all questions."""
    weights = task_weights(objective, [task.share for task in tasks], [len(task.influence) for task in tasks])
    value = math.fsum(weight * task.value for weight, task in zip(weights, tasks, strict=True))
    return Score(value, tuple(tasks), weights)


def task_weights(objective: Objective, shares: Sequence[float], documents: Sequence[int]) -> tuple[float, ...]:
    """Compute the weight of each task in its objective; they sum to 1.

    Args:
        shares: of each task, `TaskScore.share`.
        documents: of each task, their number.
    """
    parts = {
        "tasks": [1.0 for _ in shares],
        "groups": list(shares),
        "questions": [float(number) for number in documents],
    }[objective.average]
    return tuple(part / sum(parts) for part in parts)


def paired_ses(a: Score, others: Sequence[Score]) -> Floats:
    """Compute the paired standard error of a - b for each b of the others, on the same questions; shape (others,)."""
    variances = np.zeros(len(others))
    for index, (weight, task) in enumerate(zip(a.weights, a.tasks, strict=True)):
        if len(task.influence) > 1:
            differences = task.influence - np.stack([b.tasks[index].influence for b in others])
            variances += weight**2 * differences.var(axis=1, ddof=1) / len(task.influence)
    return np.sqrt(variances)


def _se(weights: Sequence[float], influences: Sequence[Floats]) -> float:
    variance = 0.0
    for weight, influence in zip(weights, influences, strict=True):
        if len(influence) > 1:
            variance += weight**2 * float(np.var(influence, ddof=1)) / len(influence)
    return math.sqrt(variance)


@dataclass(frozen=True)
class Difference:
    """The difference a - b of two recipes on one task, paired by document."""

    task: str
    a: float
    b: float
    low: float
    high: float
    """95 % interval of a - b, from `low` to `high`: a percentile bootstrap over the documents."""
    won: list[int]
    """Indices of the documents on which only a is correct; empty where the metric is not binary."""
    lost: list[int]
    """Indices of the documents on which only b is correct; empty where the metric is not binary."""

    @property
    def value(self) -> float:
        """The difference a - b."""
        return self.a - self.b


def difference(a: TaskScore, b: TaskScore, seed: int = 0) -> Difference:
    """Compare two recipes by a paired bootstrap of a - b on the influences (Efron & Tibshirani 1993, §13.3)."""
    means = _resampled(a.influence - b.influence, np.random.default_rng(seed), BOOTSTRAP)
    low, high = (float(a.value - b.value + q) for q in np.quantile(means, (0.025, 0.975)))
    flips = _binary(a.documents) and _binary(b.documents)
    won = np.flatnonzero((a.documents == 1) & (b.documents == 0)).tolist() if flips else []
    lost = np.flatnonzero((a.documents == 0) & (b.documents == 1)).tolist() if flips else []
    return Difference(a.task, a.value, b.value, low, high, won, lost)


def interval(a: Score, b: Score, seed: int = 0) -> tuple[float, float]:
    """Compute the 95 % interval of a - b over the same questions: a percentile bootstrap over each task's documents."""
    generator = np.random.default_rng(seed)
    moved = np.zeros(BOOTSTRAP // 5)
    for weight, x, y in zip(a.weights, a.tasks, b.tasks, strict=True):
        moved += weight * _resampled(x.influence - y.influence, generator, len(moved))
    low, high = np.quantile(a.value - b.value + moved, (0.025, 0.975))
    return float(low), float(high)


def _resampled(influence: Floats, generator: np.random.Generator, count: int) -> Floats:
    """Compute the mean over documents drawn with replacement, `count` times, a hundred at once to limit memory."""
    n = len(influence)
    return np.concatenate(
        [influence[generator.integers(0, n, size=(100, n))].mean(axis=1) for _ in range(count // 100)]
    )


def _binary(values: Floats) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def as_row(scores: dict[str, Score]) -> dict[str, Any]:
    """Return the scores as columns of the leaderboard: each objective, and its standard error as `<objective>_se`."""
    return {
        key: value for name, score in scores.items() for key, value in ((name, score.value), (f"{name}_se", score.se))
    }
