"""The front's laws."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.stats.front import PIECE, front_mask, pareto_front

point = st.lists(st.integers(0, 5).map(float), min_size=2, max_size=2).map(tuple)
clouds = st.lists(point, min_size=1, max_size=12).map(lambda points: {str(i): p for i, p in enumerate(points)})

Points = dict[str, tuple[float, ...]]


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """The definition: at least as good in every objective and better in one."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


@given(clouds)
def test_nobody_on_the_front_is_dominated_and_everybody_off_it_is_by_somebody_on_it(points: Points) -> None:
    front = pareto_front(points)
    assert front
    for name, p in points.items():
        assert (name in front) == (not any(dominates(points[on], p) for on in front))


@given(clouds)
def test_equal_points_stand_or_fall_together(points: Points) -> None:
    front = pareto_front(points)
    for name, p in points.items():
        assert (name in front) == any(points[on] == p for on in front)


@given(clouds, st.randoms())
def test_the_order_does_not_matter(points: Points, random: Random) -> None:
    shuffled = list(points.items())
    random.shuffle(shuffled)
    assert set(pareto_front(dict(shuffled))) == set(pareto_front(points))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_a_front_of_many_points_is_that_of_the_definition(objectives: int, levels: int, seed: int) -> None:
    points = np.random.default_rng(seed).integers(0, levels, (2 * PIECE + 7, objectives)).astype(float)
    front = points[front_mask(points)]
    for point, on in zip(points, front_mask(points), strict=True):
        dominated = ((front >= point).all(axis=1) & (front > point).any(axis=1)).any()
        assert on == (not dominated)
