"""The volume that a set of recipes dominates, with an interval, and how much more one set dominates than another.

The recipes must be chosen by other answers than those that they are measured by. Even then the volume of their measured
scores is too large on average, because a union is made of whatever came out highest; and of two sets the larger is
flattered more. Two estimates bound it:

- The volume of the measured scores. It is not too small.
- A thinned one: the scores' errors are drawn once more, in two parts that are independent of each other (Leiner, Duan,
  Wasserman & Ramdas 2025, Data fission). The one part says which recipe makes which piece of the union, the other how
  large the pieces are: the volume is expanded to first order around the one and evaluated at the other. Where recipes
  are alike, it is right on average, and a wrong piece is too small. It is the mean over many draws, and what is
  reported.

The interval reaches from the lower of both to the higher, and beyond by the error of a sum of scores in which each has
the weight that the volume has for it. The gain's is over the difference of the two sets' weights, so that what both owe
to the same recipes, and to the same questions, cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orchestrator.stats.estimates import Estimates, Floats

Mask = npt.NDArray[np.bool_]
DRAWS = 400
"""Draws of errors, half of them the others' opposites."""
THINNING = 0.25
"""Variance that is added to the scores that say which recipe makes which piece, in units of their own."""


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval, whose ends are NaN where it is not known."""

    value: float
    low: float
    high: float


class Volumes(NamedTuple):
    """The volumes of two sets of recipes, and how much larger the first one is."""

    first: Interval
    second: Interval
    gain: Interval


def compare_volumes(objectives: Sequence[Estimates], first: Mask, second: Mask) -> Volumes:
    """Compare the volumes that two sets of recipes dominate above 0.

    Args:
        objectives: the recipes' scores above the reference in each objective, to be maximised, in the same order.
        first, second: which recipes are in the sets; shape (recipes,).
    """
    points = np.stack([each.values for each in objectives], axis=1)
    errors = draw_errors(objectives)
    about, aside = points + np.sqrt(THINNING) * errors, -(np.sqrt(THINNING) + 1 / np.sqrt(THINNING)) * errors
    measured, thinned, slopes = [], [], []
    for chosen in (first, second):
        volumes, slope = dominated(about[:, chosen])
        whole = np.zeros(about.shape)
        whole[:, chosen] = slope
        measured.append(float(dominated(points[None, chosen])[0][0]))
        thinned.append(float((volumes + (whole * aside).sum(axis=(1, 2))).mean()))
        slopes.append(whole)
    margins = [
        _margins(objectives, errors, slope, points, signed)
        for slope, signed in zip(
            (*slopes, slopes[0] - slopes[1]), ([(first, 1)], [(second, 1)], [(first, 1), (second, -1)]), strict=True
        )
    ]
    thinned.append(thinned[0] - thinned[1])
    measured.append(measured[0] - measured[1])
    least = (0.0, 0.0, -np.inf)
    return Volumes(*map(_interval, thinned, measured, margins, least))


def _interval(thinned: float, measured: float, margins: tuple[float, float], least: float) -> Interval:
    low, high = min(thinned, measured) - margins[0], max(thinned, measured) + margins[1]
    return Interval(*(float(np.maximum(each, least)) for each in (thinned, low, high)))


def draw_errors(objectives: Sequence[Estimates]) -> Floats:
    """Draw the scores' errors jointly; shape (draws, recipes, objectives)."""
    clusters = np.unique(np.concatenate([each.clusters for each in objectives]))
    drawn = np.random.default_rng(0).standard_normal((DRAWS // 2, len(clusters)))
    errors = np.stack([drawn @ np.nan_to_num(each.contributions(clusters)).T for each in objectives], axis=2)
    return np.concatenate([errors, -errors])


def _margins(
    objectives: Sequence[Estimates],
    errors: Floats,
    slopes: Floats,
    points: Floats,
    signed: Sequence[tuple[Mask, int]],
) -> tuple[float, float]:
    """How far the interval of a volume reaches below and above its value.

    The sum of scores has the volume's mean slope. Where it is not clear which recipe makes a piece, single slopes give
    more error than their mean, and the interval is widened to their root mean square. A volume bends upwards: where it
    is small and its slope with it, moving all scores by as much as their sum may be wrong changes it by more.

    Args:
        slopes: the derivative of the volume by each score, of each draw; shape (draws, recipes, objectives).
        points: the scores; shape (recipes, objectives).
        signed: the sets whose volumes it adds (1) or subtracts (-1).
    """
    mean = slopes.mean(axis=0)
    if not mean.any():
        return 0.0, 0.0
    low, high = _sum(objectives, mean).interval()
    around_mean = (errors * mean).sum(axis=(1, 2)).std()
    if not around_mean > 0:  # nothing varies, or what does is not known
        return float(-low[0]), float(high[0])
    flat = slopes.reshape(len(slopes), -1)
    covariance = np.atleast_2d(np.cov(errors.reshape(len(errors), -1).T))
    around = np.sqrt(np.einsum("di,ij,dj->d", flat, covariance, flat).mean())
    widened = max(1.0, float(around / around_mean))
    below, above = float(-low[0] * widened), float(high[0] * widened)
    along = covariance @ mean.ravel()
    step = along.reshape(points.shape) / float(along @ mean.ravel())  # changes the sum by 1
    moved = [points - below * step, points, points + above * step]
    least, here, most = (
        sum(sign * float(dominated(each[None, chosen])[0][0]) for chosen, sign in signed) for each in moved
    )
    return max(below, here - least), max(above, most - here)


def _sum(objectives: Sequence[Estimates], weights: Floats) -> Estimates:
    """The error of a weighted sum of all recipes' scores on all objectives, around 0; weights (recipes, objectives)."""
    parts = [weights[:, k] @ each.cells for k, each in enumerate(objectives)]
    steps = [abs(weights[:, k]).sum() * step for k, each in enumerate(objectives) for step in each.steps]
    return Estimates(
        np.zeros(1),
        np.concatenate(parts)[None],
        np.concatenate([each.clusters for each in objectives]),
        tuple(size for each in objectives for size in each.sizes),
        tuple(steps),
    )


def dominated(points: Floats) -> tuple[Floats, Floats]:
    """Compute the exact volume that points dominate above 0, and its derivative by each coordinate.

    By slicing the last objective.

    Args:
        points: to be maximised; shape (draws, points, objectives).

    Returns:
        Shapes (draws,) and (draws, points, objectives).
    """
    draws, count, objectives = points.shape
    slopes = np.zeros(points.shape)
    if count == 0:
        return np.zeros(draws), slopes
    above = np.maximum(points, 0.0)
    if objectives == 1:
        best = above[..., 0].argmax(axis=1)
        largest = np.take_along_axis(above[..., 0], best[:, None], axis=1)[:, 0]
        slopes[np.arange(draws), best, 0] = largest > 0
        return largest, slopes
    order = np.argsort(-above[..., -1], axis=1)[..., None]
    above = np.take_along_axis(above, order, axis=1)
    ends = np.concatenate([above[:, 1:, -1], np.zeros((draws, 1))], axis=1)
    volume, before = np.zeros(draws), np.zeros(draws)
    in_order = np.zeros(points.shape)
    for place in range(count):
        base, slope = dominated(above[:, : place + 1, :-1])
        height = above[:, place, -1] - ends[:, place]
        volume += height * base
        in_order[:, : place + 1, :-1] += height[:, None, None] * slope
        in_order[:, place, -1] = (base - before) * (above[:, place, -1] > 0)
        before = base
    np.put_along_axis(slopes, np.broadcast_to(order, points.shape), in_order, axis=1)
    return volume, slopes
