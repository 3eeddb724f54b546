"""Sampling errors of scores and of all that is linear in them, as linear algebra over clusters of documents.

A score is a weighted sum over tasks of means over documents, and a difference of scores, a mean over seeds or a sum
over objectives is one as well. What a document of task t adds to the error of such a number is therefore known: the
task's weight over its number of documents, times the document's influence. Documents are not all draws of their own:
the same question may stand in two tasks or twice in one. Documents with the same number are one cluster, whose parts
add up to its contribution c. Clusters are independent, so that

- the variance of a number is Σ c² over the clusters,
- the covariance of any two numbers, of whatever recipes, tasks and objectives, is Σ c·c',
- Σ c·ξ with independent standard normal ξ draws their errors jointly (a multiplier bootstrap).

Pairing needs no rule of its own: in the difference of two recipes' contributions, what makes a question hard for both
cancels out. Every standard error, interval and simultaneous statement of the report is made of these vectors.

Few documents, or few that differ, show less than the whole spread. An interval is therefore made as if there were two
documents more, with the largest contribution that was seen in either direction; for a difference of verdicts that is
Bonett & Price (2012). Where fewer than five documents differ from the others, what was seen is no measure, and the two
are as far as the metric reaches: equal answers to forty questions do not prove equal recipes. Its quantiles are
Student's, and the side to which the contributions are skewed is longer (Hall 1992). `benchmarks/truth` measures that
such intervals cover at 10, 20 and 40 documents, whatever the metric's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
NORMAL = float(ndtri(0.975))
"""The quantile of a 95 % interval of one number with normal errors of known variance."""
FEW = 5
"""Below so many documents of a task that are unlike the others, their contributions do not show how large one can
be."""
SKEW = 20.0
"""A sample's skewness is multiplied by 1 + SKEW / degrees of freedom, as it is far too small in small samples."""
STRETCH = 0.9
"""Largest product of skewness and quantile: at 1 a side's length has no bound (here it is 1.8 times the other's)."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Part:
    """One task's part in numbers of the same kind, such as the scores of recipes on one objective."""

    weight: float
    influences: Floats
    """Influence of each document on the task's value, mean zero; shape (numbers, documents)."""
    clusters: Ints
    """Number of each document's cluster; shape (documents,)."""
    width: float
    """The largest difference between two documents' values; 1 for a metric from 0 to 1."""


@dataclass(frozen=True)
class Estimates:
    """Numbers that are linear in the same documents, with what each cluster of documents adds to their errors."""

    values: Floats
    """Shape (numbers,)."""
    cells: Floats
    """Contribution of each cluster within each task, the tasks one after the other; shape (numbers, cells). NaN in a
    task of one cluster, which says nothing about its spread."""
    clusters: Ints
    """Number of each cell's cluster; shape (cells,)."""
    sizes: tuple[int, ...]
    """Number of cells of each task."""
    steps: tuple[float, ...]
    """Of each task, the contribution of a document that moves across the metric's whole width."""

    @classmethod
    def of(cls, values: Floats, parts: Sequence[Part]) -> Estimates:
        """Sum each task's influences over clusters.

        A sample of m clusters underestimates its spread by (m - 1) / m on average, which is corrected here.

        Args:
            values: shape (numbers,).
        """
        cells, clusters = zip(*(_cells(part) for part in parts), strict=True)
        steps = tuple(part.weight * part.width / len(part.clusters) for part in parts)
        return cls(values, np.concatenate(cells, axis=1), np.concatenate(clusters), tuple(map(len, clusters)), steps)

    def __sub__(self, other: Estimates) -> Estimates:
        """Subtract numbers over the same tasks and documents; one number is subtracted from each of several."""
        assert np.array_equal(self.clusters, other.clusters), "differences are over the same documents"
        steps = tuple(map(max, self.steps, other.steps))
        return replace(self, values=self.values - other.values, cells=self.cells - other.cells, steps=steps)

    def __mul__(self, factor: float) -> Estimates:
        """Multiply all numbers by a factor, such as -1 to maximise what is minimised."""
        steps = tuple(abs(factor) * step for step in self.steps)
        return replace(self, values=factor * self.values, cells=factor * self.cells, steps=steps)

    def __getitem__(self, rows: slice | Sequence[int] | npt.NDArray[np.bool_ | np.int64]) -> Estimates:
        """Choose some of the numbers."""
        return replace(self, values=self.values[rows], cells=self.cells[rows])

    def contributions(self, among: Ints | None = None) -> Floats:
        """Compute the contribution of each cluster; shape (numbers, clusters).

        Args:
            among: sorted numbers of clusters, these estimates' and more, one a column; these estimates' own by default.
        """
        own = np.unique(self.clusters) if among is None else among
        return _summed(self.cells, np.searchsorted(own, self.clusters), len(own))

    @property
    def variances(self) -> Floats:
        """The squared standard errors, NaN where a task has one cluster; shape (numbers,)."""
        return np.asarray((self.contributions() ** 2).sum(axis=1))

    @property
    def ses(self) -> Floats:
        """The standard errors, NaN where a task has one cluster; shape (numbers,)."""
        return np.sqrt(self.variances)

    @property
    def degrees(self) -> Floats:
        """The degrees of freedom of the variances (Satterthwaite 1946): of a single task, its clusters less one.

        Where nothing varies they are those of the smallest task; shape (numbers,).
        """
        variances = np.add.reduceat(self.cells**2, self._starts, axis=1)
        spread = (variances**2 / np.maximum(np.array(self.sizes) - 1, 1)).sum(axis=1)
        least = np.full(len(self.values), min(self.sizes) - 1.0)
        return np.asarray(np.divide(variances.sum(axis=1) ** 2, spread, out=least, where=spread > 0))

    def interval(self, normal: float = NORMAL) -> tuple[Floats, Floats]:
        """Compute each number's interval, whose ends are NaN where it is not known; shapes (numbers,).

        Args:
            normal: the quantile that the interval would have if errors were normal and their variances known;
                Student's t takes its place.
        """
        contributions = self.contributions()
        variances = (contributions**2).sum(axis=1) + 2 * self._unseen() ** 2
        degrees = self.degrees
        quantiles = stdtrit(degrees, ndtr(normal))
        cubes = (contributions**3).sum(axis=1)
        skew = np.divide(cubes, variances**1.5, out=np.zeros_like(cubes), where=variances > 0)
        skew *= 1 + SKEW / np.maximum(degrees, 1)
        skew = np.clip(skew, -STRETCH / quantiles, STRETCH / quantiles)
        low, high = (np.maximum(quantiles, sign * _straightened(sign * quantiles, skew)) for sign in (1.0, -1.0))
        ses = np.sqrt(variances)
        return self.values - low * ses, self.values + high * ses

    @property
    def _starts(self) -> Ints:
        """The first cell of each task."""
        return np.asarray(np.cumsum([0, *self.sizes[:-1]]))

    def _unseen(self) -> Floats:
        """Compute the largest contribution that one more document may bring; shape (numbers,)."""
        largest = np.zeros(len(self.values))
        for start, size, step in zip(self._starts, self.sizes, self.steps, strict=True):
            cells = self.cells[:, start : start + size]
            seen = np.abs(cells).max(axis=1)
            unlike = np.abs(cells - np.median(cells, axis=1, keepdims=True)) > ROUNDING * step
            largest = np.maximum(largest, np.where(unlike.sum(axis=1) < FEW, np.maximum(seen, step), seen))
        return largest


def _straightened(quantiles: Floats, skew: Floats) -> Floats:
    """Turn quantiles of a symmetric distribution into those of a skewed one (Hall 1992, §3.4); shape (numbers,)."""
    some = np.where(np.abs(skew) > ROUNDING, skew, 1.0)
    found = 3 / some * (np.cbrt(1 + some * (quantiles - some / 6)) - 1)
    return np.where(np.abs(skew) > ROUNDING, found, quantiles)


def _cells(part: Part) -> tuple[Floats, Ints]:
    """Compute the contributions of a task's clusters, and the clusters' numbers."""
    clusters, places = np.unique(part.clusters, return_inverse=True)
    m = len(clusters)
    scale = part.weight / len(places) * (np.sqrt(m / (m - 1)) if m > 1 else np.nan)
    return scale * _summed(part.influences, places, m), clusters


def _summed(columns: Floats, places: Ints, count: int) -> Floats:
    """Sum the columns that have the same place, from 0 to count - 1; shape (rows, columns) → (rows, count)."""
    order = np.argsort(places, kind="stable")
    found, starts = np.unique(places[order], return_index=True)
    sums = np.zeros((len(columns), count))
    sums[:, found] = columns[:, order] if len(found) == len(order) else np.add.reduceat(columns[:, order], starts, 1)
    return sums
