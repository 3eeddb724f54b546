"""Scores and their differences, with standard errors and intervals.

A score has an influence for each document: how much the score would change if that document had more weight. Influences
have mean zero. Their standard deviation over √n is the standard error; `orchestrator.stats.estimates` says what else
follows from them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from orchestrator.config.objectives import Objective
from orchestrator.stats.estimates import Estimates, Floats, Ints, Part


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
    values: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """Value of each metric that the objective names for each document, NaN where it has none; shape (metrics,
    documents)."""
    share: float = 1.0
    """The task's share of its group, for objectives with `average: groups`."""
    counted: dict[str, int] = field(default_factory=dict)
    """Metric → number of documents that have it; lm-eval aggregates over those."""
    reasoning: Reasoning | None = None
    """What was cut from its replies; None where the objective has no `think_end_token`."""
    clusters: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """Number of each document's cluster, shape (documents,): documents of any task and objective with the same number
    are one draw. By default a document is a cluster of its own, the same in all objectives with this task."""
    measures: dict[str, float] = field(default_factory=dict)
    """Measure of its replies (see `orchestrator.config.measures`) → its value; NaN where nothing is measured."""
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of multiple choice, label of a place → how often it was chosen, and how often it is right."""

    def __post_init__(self) -> None:
        if not len(self.clusters):
            object.__setattr__(self, "clusters", own_clusters(self.task, len(self.influence)))
        assert math.isfinite(self.value) and np.isfinite(self.influence).all(), f"{self.task} has no score"

    @property
    def width(self) -> float:
        """The width of the values that a document can have: 1, or for metrics of another scale the largest seen."""
        return float(np.fmax.reduce(np.abs(self.documents), initial=max(1.0, abs(self.value))))


@dataclass(frozen=True)
class Score:
    """The score of one recipe on one objective: a weighted sum of tasks."""

    value: float
    tasks: tuple[TaskScore, ...]
    weights: tuple[float, ...]
    """Weight of each task; they sum to 1."""

    @cached_property
    def se(self) -> float | None:
        """The standard error of `value`; None where nothing varies among the documents, or a task has only one."""
        se = float(estimates([self]).ses[0])
        return se if se > 0 else None


def own_clusters(task: str, documents: int) -> Ints:
    """Number documents that are clusters of their own, by the task's name and their place in it."""
    first = int.from_bytes(hashlib.sha256(task.encode()).digest()[:4], "big") << 31
    return first + np.arange(documents, dtype=np.int64)


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


def estimates(scores: Sequence[Score]) -> Estimates:
    """Put the scores of several recipes on one objective, over the same documents, into one linear form."""
    parts = []
    for weight, *tasks in zip(scores[0].weights, *(score.tasks for score in scores), strict=True):
        assert all(np.array_equal(task.clusters, tasks[0].clusters) for task in tasks), "they have the same documents"
        influences = np.stack([task.influence for task in tasks])
        parts.append(Part(weight, influences, tasks[0].clusters, max(task.width for task in tasks)))
    return Estimates.of(np.array([score.value for score in scores]), parts)


def on_part(score: Score, part: Score) -> Score:
    """Restrict a score to the documents that another has of each task, which are the first ones, with its own weights.

    A document's value is taken for the task's value and the document's influence on it, which of a mean it is.
    """
    tasks = []
    for task, some in zip(score.tasks, part.tasks, strict=True):
        own = task.value + task.influence[: len(some.influence)]
        value, documents = float(own.mean()), task.documents[: len(own)]
        tasks.append(replace(task, value=value, influence=own - value, documents=documents, clusters=some.clusters))
    value = math.fsum(weight * task.value for weight, task in zip(score.weights, tasks, strict=True))
    return Score(value, tuple(tasks), score.weights)


def interval(a: Score, b: Score) -> tuple[float, float]:
    """Compute the 95 % interval of a - b, paired by document; NaN where it is not known."""
    low, high = (estimates([a]) - estimates([b])).interval()
    return float(low[0]), float(high[0])


def as_row(scores: dict[str, Score]) -> dict[str, Any]:
    """Return the scores as columns of the leaderboard: each objective, and its standard error as `<objective>_se`."""
    return {
        key: value for name, score in scores.items() for key, value in ((name, score.value), (f"{name}_se", score.se))
    }
