"""Learning curves (score against number of labelled examples), and how many examples of two starts are equivalent.

That m examples of B are worth n of A means that B's expected score with m examples, over new seeds and documents, is
A's with n. All that is assumed of B's curve is that it does not fall. The interval of m is a test turned round: it
leaves out the budgets of B whose score differs from A's, and what lies beyond them. Budgets are tested from the
smallest up and from the largest down, each time as far as they differ; the first that does not ends it, so that several
budgets need no correction (a fixed sequence: Maurer, Hothorn & Lehmacher 1995). Nothing is assumed of the curve between
two budgets, so an interval begins and ends at budgets, and is open where the outermost one does not differ.

The number itself is read off the curve's isotonic fit, straight between two budgets over the logarithm of their sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.stats.estimates import Floats
from orchestrator.stats.seeds import BySeed, paired

Curve = Mapping[int, BySeed]
"""Number of examples → seed → the score of its run."""


@dataclass(frozen=True)
class Equivalent:
    """How many examples one starting point needs for the score of another.

    Infinity means more than its largest budget, 0 less than its smallest.
    """

    examples: int
    """Number of examples of the one starting point."""
    equal: float
    """Number of examples with which the other starting point has the same score."""
    interval: tuple[float, float] | None
    """The ends of the 95 % interval of `equal`; None where no two seeds can be paired, as one does not show it."""


def equivalents(one: Curve, other: Curve, sign: float = 1.0) -> list[Equivalent]:
    """Compute, for each budget of `one`, the number of examples with which `other` has the same score.

    Args:
        sign: +1 where higher is better, else -1.
    """
    from scipy.optimize import isotonic_regression  # slow to import, which every sweep's start would wait for

    sizes = sorted(other)
    means = sign * np.array([_mean(other[size]) for size in sizes])
    fit = isotonic_regression(means, weights=[len(other[size]) for size in sizes]).x
    return [
        Equivalent(examples, _inverse(np.array(sizes, float), fit, sign * _mean(runs)), _interval(runs, other, sign))
        for examples, runs in sorted(one.items())
    ]


def _mean(runs: BySeed) -> float:
    return float(np.mean([score.value for score in runs.values()]))


def _interval(runs: BySeed, other: Curve, sign: float) -> tuple[float, float] | None:
    """Find the largest budget that is worth less than the runs, and the smallest that is worth more.

    Budgets of which fewer than two seeds can be paired are left out.
    """
    ahead: dict[int, tuple[float, float]] = {}
    for size, theirs in sorted(other.items()):
        difference = paired(runs, theirs)
        if difference is not None and difference.seeds > 1:
            low, high = difference.interval()
            ahead[size] = (low, high) if sign > 0 else (-high, -low)
    if not ahead:
        return None
    lowest, highest = 0.0, math.inf
    for size, (low, _) in ahead.items():
        if not low > 0:
            break
        lowest = size
    for size, (_, high) in reversed(ahead.items()):
        if not high < 0:
            break
        highest = size
    return lowest, highest


def _inverse(sizes: Floats, curve: Floats, value: float) -> float:
    """Find the number of examples at which a curve that does not fall first reaches a value.

    It is 0 for a value below the first point, and infinite where the curve never reaches it.
    """
    if value <= curve[0]:
        return float(sizes[0]) if value == curve[0] else 0.0
    for left in range(len(sizes) - 1):
        if curve[left] < value <= curve[left + 1]:
            share = (value - curve[left]) / (curve[left + 1] - curve[left])
            return float(sizes[left] * (sizes[left + 1] / sizes[left]) ** share)
    return float("inf")
