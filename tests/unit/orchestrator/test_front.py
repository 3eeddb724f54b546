"""The front's laws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.stats.front import PIECE, front_mask, near_front, pareto_front
from orchestrator.stats.scores import Score, TaskScore

point = st.lists(st.integers(0, 5).map(float), min_size=2, max_size=2).map(tuple)
clouds = st.lists(point, min_size=1, max_size=12).map(lambda points: {str(i): p for i, p in enumerate(points)})


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """The definition: at least as good in every objective and better in one."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


@given(clouds)
def test_nobody_on_the_front_is_dominated_and_everybody_off_it_is_by_somebody_on_it(points: dict) -> None:
    front = pareto_front(points)
    assert front
    for name, p in points.items():
        assert (name in front) == (not any(dominates(points[on], p) for on in front))


@given(clouds)
def test_equal_points_stand_or_fall_together(points: dict) -> None:
    front = pareto_front(points)
    for name, p in points.items():
        assert (name in front) == any(points[on] == p for on in front)


@given(clouds, st.randoms())
def test_the_order_does_not_matter(points: dict, random) -> None:
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


def score(correct: list[int]) -> Score:
    values = np.array(correct, dtype=float)
    task = TaskScore("x", "x", {"acc": values.mean()}, float(values.mean()), values - values.mean(), values)
    return Score(task.value, (task,), (1.0,))


def test_near_is_within_one_paired_standard_error_in_every_objective() -> None:
    best = {"x": score([1] * 10), "y": score([1] * 5 + [0] * 5)}
    # One question of ten lost: the paired standard error of that difference is 0.1, just enough.
    close = {"x": score([1] * 9 + [0]), "y": score([1] * 5 + [0] * 5)}
    far = {"x": score([1] * 9 + [0]), "y": score([0] * 10)}
    scores = {"best": best, "close": close, "far": far}
    signs = {"x": 1.0, "y": 1.0}
    assert near_front(scores, signs, ["best"]) == ["close"]


def test_a_minimised_objective_is_turned() -> None:
    scores = {"low": {"x": score([0] * 9 + [1])}, "high": {"x": score([1] * 8 + [0] * 2)}}
    assert near_front(scores, {"x": -1.0}, ["low"]) == []


def test_near_the_front_among_more_recipes_than_are_compared_at_once() -> None:
    best = {"x": score([1] * 10)}
    scores = {"best": best, **{f"r{i}": {"x": score([1] * (9 - i % 2) + [0] * (1 + i % 2))} for i in range(PIECE + 9)}}
    assert near_front(scores, {"x": 1.0}, ["best"]) == [f"r{i}" for i in range(PIECE + 9) if i % 2 == 0]
