"""Which difference a comparison can show, and how many questions would show a wanted one.

A comparison shows a difference where its interval leaves out 0. A difference is detectable if it is shown with a
probability of 80 % (`POWER`), so it is as far from 0 as the interval is long on that side, plus the 80 % quantile of
its error. Before there are answers the error follows from the discordance: the share of questions on which only one of
two recipes is right. The difference in verdicts on one question then has the variance d - δ², for a discordance d and a
difference δ (McNemar 1947; Connor 1987), and no difference is larger than its discordance. The weights of the tasks and
the clusters of their documents are those of `orchestrator.stats.estimates`, as is the interval.

Simulations in tests/unit/orchestrator/test_power.py compare the realised power with the stated one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from orchestrator.stats.estimates import NORMAL, Estimates, Floats, Ints

POWER = 0.8
"""Probability with which a detectable difference is shown."""
MISSED = float(ndtri(POWER))
DISCORDANCE = 0.1
"""Assumed share of questions on which only one of two recipes is right, where no answers say."""
LONG_TAIL = 5.0
"""Standard deviations that the largest difference of a document in a text metric is taken to have."""
MOST = 1e6
"""Largest factor by which more questions are looked for."""


@dataclass(frozen=True)
class Design:
    """How the documents of an objective add up to its error, whatever the answers are."""

    spread: float
    """Variance of a mean over the objective if one document's variance is 1: the sum of squared cluster weights."""
    largest: float
    """Weight of the heaviest cluster of a task."""
    degrees: float
    """Degrees of freedom of a variance that is estimated from these documents (Satterthwaite)."""

    @classmethod
    def of(cls, weights: Sequence[float], clusters: Sequence[Ints]) -> Design:
        """Add up the weights of each cluster's documents.

        Args:
            weights: of each task in its objective.
            clusters: of each task, the number of each document's cluster; shape (documents,).
        """
        together: dict[int, float] = {}
        variances, degrees, largest = [], [], 0.0
        for weight, numbers in zip(weights, clusters, strict=True):
            found, counts = np.unique(numbers, return_counts=True)
            cells = weight / len(numbers) * counts
            for cluster, cell in zip(found.tolist(), cells.tolist(), strict=True):
                together[cluster] = together.get(cluster, 0.0) + cell
            variances.append(float((cells**2).sum()))
            degrees.append(max(len(found) - 1, 1))
            largest = max(largest, float(cells.max()))
        spread = math.fsum(cell**2 for cell in together.values())
        freedom = sum(variances) ** 2 / sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
        return cls(spread, largest, freedom)

    def times(self, factor: float) -> Design:
        """The design with so many times the documents of each task."""
        return Design(self.spread / factor, self.largest / factor, self.degrees * factor)


@dataclass(frozen=True)
class Unlike:
    """How unlike the answers of two recipes are, document by document."""

    variance: float
    """Of a document's difference; of verdicts, the discordance."""
    verdicts: bool = True
    """Whether a document is right or wrong, so that a difference cannot be larger than the discordance."""

    def at(self, difference: float) -> float:
        """The variance of a document's difference where the mean difference is this."""
        return max(self.variance, difference) - difference**2 if self.verdicts else self.variance

    def seen(self, difference: float, seen: float) -> float:
        """The variance of a document's difference that goes with a mean difference as seen, of a difference as it is.

        Where chance makes a difference in verdicts smaller, fewer of them differ: discordance and difference go
        together, the more so the nearer the difference is to the discordance.
        """
        if not self.verdicts:
            return self.variance
        discordance = max(self.variance, difference)
        slope = difference * (1 - discordance) / max(discordance - difference**2, 1e-12)
        return discordance + slope * (seen - difference) - seen**2

    @property
    def reach(self) -> float:
        """The largest difference of a document that is to be expected."""
        return 1.0 if self.verdicts else LONG_TAIL * math.sqrt(self.variance)


def detectable(design: Design, unlike: Unlike, normal: float = NORMAL) -> float | None:
    """Compute the difference that is shown with a probability of 80 %; None where even the largest is not.

    Args:
        normal: the normal quantile of the interval; larger for one of a family.
    """
    shown = float(stdtrit(design.degrees, ndtr(normal)))

    def lacks(difference: float) -> float:
        error = math.sqrt(unlike.at(difference) * design.spread)
        seen = difference - MISSED * error  # so much or more is seen four times in five
        variance = unlike.seen(difference, seen) * design.spread
        return shown * math.sqrt(max(variance, 0.0) + 2 * (unlike.reach * design.largest) ** 2) - seen

    if not unlike.verdicts:
        return lacks(0.0)  # its variance is the same whatever the difference
    return _root(lacks, 0.0, 1.0) if lacks(1.0) <= 0 else None


def times_needed(design: Design, unlike: Unlike, wanted: float, normal: float = NORMAL) -> float | None:
    """Compute how many times the documents of each task would make a difference detectable; None for beyond `MOST`.

    Args:
        wanted: the difference; above 0.
        normal: as for `detectable`.
    """

    def lacks(log: float) -> float:
        found = detectable(design.times(math.exp(log)), unlike, normal)
        return (1.0 if found is None else found) - wanted

    low, high = -math.log(MOST), math.log(MOST)
    if lacks(high) > 0:
        return None
    return math.exp(_root(lacks, low, high))


def detectable_from(differences: Estimates, normal: float = NORMAL) -> Floats:
    """Compute the detectable difference of each comparison from the error that its answers show.

    Args:
        differences: of recipes; NaN where their error is not known.

    Returns:
        Shape (numbers,).
    """
    low, high = differences.interval(normal)
    longer = np.maximum(differences.values - low, high - differences.values)
    return np.asarray(longer + MISSED * differences.ses)


def family_normal(comparisons: int, level: float = 0.95) -> float:
    """Compute the normal quantile of intervals that hold at once if their errors are independent (Šidák 1967).

    Comparisons that share answers need less, which `orchestrator.stats.simultaneous` computes once there are some.
    """
    return float(ndtri((1 + level ** (1 / max(1, comparisons))) / 2))


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Find where a falling function is 0, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return high
