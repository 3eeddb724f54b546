"""Means over the seeds of a training, with their errors over seeds and over documents.

The score of a run has two sources of error that cross: its seed s (which examples it learned from, and in which order)
and the documents d that it is evaluated on. In the model μ + a_s + b_d + c_sd the mean over S seeds and N documents has
the variance σ_a²/S + σ_b²/N + σ_c²/SN. The variance of the seeds' means over S estimates the first and the last of
them, with S - 1 degrees of freedom; what the documents' contributions have beyond the last one estimates the second.

With three seeds the first has two degrees of freedom, and nothing makes up for them: an interval that took the seeds'
spread for known would hold far less often than it says. The half width here is √(t²·V_seeds + h²), where h is that of
`Estimates.interval` over the documents: each error with the quantile of its own degrees of freedom. Such an interval
covers at least as often as it says, whatever the share of each (Banerjee 1960, Sankhyā 22).

Everything is linear: differences are of the runs of the same seed on the same documents, so that what makes examples or
documents hard for both cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from orchestrator.stats.estimates import Estimates
from orchestrator.stats.scores import Score, estimates

BySeed = Mapping[int, Score]
"""Seed → the score of its run."""
FURTHEST = 2.0**20
"""A ratio beyond which its interval counts as open."""


@dataclass(frozen=True)
class SeedMean:
    """A number that is the mean over the seeds of a training."""

    runs: Estimates
    """The number for each seed, in the order of the seeds; a single one where no seed is drawn (a parent, a merge)."""

    @classmethod
    def of(cls, scores: Sequence[Score]) -> SeedMean:
        """Take the mean over the scores of several seeds, or one score as it is."""
        return cls(estimates(scores))

    def __sub__(self, other: SeedMean) -> SeedMean:
        """Subtract seed by seed and document by document; what has no seeds is the same for each."""
        return SeedMean(self.runs - other.runs)

    def __mul__(self, factor: float) -> SeedMean:
        return SeedMean(self.runs * factor)

    @property
    def seeds(self) -> int:
        """Number of seeds; 1 also where no seed is drawn."""
        return len(self.runs.values)

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return float(self.runs.values.mean())

    @property
    def by_seed(self) -> float:
        """The variance that comes from the seeds; 0 for one seed, which does not show it."""
        return float(self.runs.values.var(ddof=1) / self.seeds) if self.seeds > 1 else 0.0

    @cached_property
    def by_document(self) -> float:
        """The variance that comes from the documents and is the same for all seeds; NaN where a task has only one."""
        variance = float(self._over_documents.variances[0])
        if self.seeds > 1:
            own = self.runs.contributions() - self._over_documents.contributions()
            variance -= float((own**2).sum()) / (self.seeds * (self.seeds - 1))
        return max(variance, 0.0)

    @property
    def se(self) -> float:
        """The standard error, over seeds and documents; NaN where it is not known."""
        error = math.sqrt(self.by_seed + self.by_document)
        return error if error > 0 else math.nan  # that a sample shows no error does not mean that there is none

    def interval(self, family: int = 1) -> tuple[float, float]:
        """Compute the two ends of the 95 % interval; NaN where it is not known.

        Args:
            family: number of statements that hold together at 95 % (Bonferroni's bound).
        """
        normal = -float(ndtri(0.025 / family))
        ends = self._over_documents.interval(normal)
        seeds = float(stdtrit(self.seeds - 1, ndtr(normal))) * math.sqrt(self.by_seed) if self.seeds > 1 else 0.0
        below, above = (math.hypot(float(end[0]) - self.value, seeds) for end in ends)
        return self.value - below, self.value + above

    def differs(self, family: int = 1) -> bool:
        """Whether the interval leaves out 0; False where it is not known."""
        low, high = self.interval(family)
        return low > 0 or high < 0

    @cached_property
    def _over_documents(self) -> Estimates:
        runs = self.runs
        return replace(runs, values=runs.values.mean(keepdims=True), cells=runs.cells.mean(axis=0, keepdims=True))


def paired(one: BySeed, other: BySeed) -> SeedMean | None:
    """Compute the difference of two starting points' runs over the seeds that both have; None where there is none."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None
    return SeedMean.of([one[seed] for seed in seeds]) - SeedMean.of([other[seed] for seed in seeds])


def mean_of(numbers: Sequence[SeedMean]) -> SeedMean:
    """Take the mean of several numbers over the same seeds and documents."""
    runs = [number.runs for number in numbers]
    values = np.mean([each.values for each in runs], axis=0)
    return SeedMean(replace(runs[0], values=values, cells=np.mean([each.cells for each in runs], axis=0)))


@dataclass(frozen=True)
class Ratio:
    """A ratio of two scores, with its interval."""

    value: float
    low: float
    high: float
    """Infinite where the interval is open: the denominator may be 0."""


def ratio(number: SeedMean, base: SeedMean, family: int = 1) -> Ratio | None:
    """Compute number / base with Fieller's interval: every θ at which number - θ·base does not differ from 0.

    Args:
        family: as for `SeedMean.interval`.

    Returns:
        None where a score is not above 0, so that there is no share of it, or where no error is known.
    """
    if number.value <= 0 or base.value <= 0 or math.isnan(number.interval()[0]):
        return None

    from scipy.optimize import brentq  # slow to import, which every sweep's start would wait for

    value = far = number.value / base.value
    least = (number - base * value).interval(family)

    def end(theta: float, place: int) -> float:
        # No narrower than at the ratio itself: two models that answer alike differ by what no document shows.
        difference = number - base * theta
        ends = difference.interval(family)[place], difference.value + least[place]
        return (min, max)[place](ends)

    while far < FURTHEST and not end(far, 1) < 0:
        far *= 2
    low = float(brentq(end, 0.0, value, args=(0,))) if end(0.0, 0) > 0 else 0.0
    return Ratio(value, low, float(brentq(end, value, far, args=(1,))) if far < FURTHEST else math.inf)
