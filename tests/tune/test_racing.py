"""Racing keeps what belongs on the front; its parts obey their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.races import race_all, simulated
from tune.racing import Race, estimates, front_mask, hypervolume, log_capital, race_order, resampled

points = st.integers(1, 3).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 5), min_size=k, max_size=k), min_size=1, max_size=8)
)


@settings(max_examples=60, deadline=None)
@given(points)
def test_hypervolume_counts_the_unit_cubes_below_the_points(found: list[list[int]]) -> None:
    array = np.array(found, float)
    cubes = np.indices([5] * array.shape[1]).reshape(array.shape[1], -1).T + 1
    below = (cubes[:, None, :] <= array[None, :, :]).all(axis=2).any(axis=1)
    assert hypervolume(array, np.zeros(array.shape[1])) == pytest.approx(below.sum())


@settings(max_examples=60, deadline=None)
@given(points)
def test_the_front_alone_has_the_whole_hypervolume_and_nobody_on_it_is_beaten(found: list[list[int]]) -> None:
    array = np.array(found, float)
    front = array[front_mask(array)]
    zero = np.zeros(array.shape[1])
    assert hypervolume(front, zero) == pytest.approx(hypervolume(array, zero))
    for one in front:
        assert not any((other >= one).all() and (other > one).any() for other in array)


def test_the_order_of_questions_is_their_own_and_the_seeds() -> None:
    keys = [f"question {i}" for i in range(50)]
    order = race_order(keys, 0)
    assert sorted(order) == list(range(50)) and order != race_order(keys, 1)
    backwards = keys[::-1]
    assert [keys[i] for i in order] == [backwards[i] for i in race_order(backwards, 0)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=10, max_size=80), st.integers(0, 5))
def test_nothing_is_certain_that_the_rest_can_still_undo(values: list[float], skip: int) -> None:
    gained = np.array(values)
    total = len(values)
    certain = [n for n in range(skip + 1, total + 1) if log_capital(gained[:n], skip, total, 1.0) == np.inf]
    for n in certain:
        # Before the n-th was bet on, the others together could not bring the sum back to 0.
        assert gained[: n - 1].sum() >= total - n + 1


def test_betting_against_the_truth_wins_beyond_1_over_alpha_in_alpha_of_all_orders_at_most() -> None:
    """Ville, over 400 orders of a difference that is 0 on the whole; looked at after every question."""
    generator = np.random.default_rng(0)
    whole = np.array([1.0] * 30 + [-1.0] * 30 + [0.0] * 60)
    highest = []
    for _ in range(400):
        gained = generator.permutation(whole)
        highest.append(max(log_capital(gained[:n], 12, len(whole), 1.0) for n in range(13, len(whole) + 1, 6)))
    highest = np.array(highest)
    for alpha in (0.2, 0.05):
        assert (highest >= np.log(1 / alpha)).mean() <= alpha + 2 * np.sqrt(alpha * (1 - alpha) / 400)


def test_a_clear_difference_is_found_early() -> None:
    generator = np.random.default_rng(0)
    gained = generator.permutation(np.array([1.0] * 80 + [-1.0] * 10 + [0.0] * 110))
    assert log_capital(gained[:80], 20, 200, 1.0) > np.log(60 / 0.05)


def test_who_is_not_beaten_in_every_objective_has_no_capital_against_it() -> None:
    ones, zeros = np.ones(40), np.zeros(40)
    racers = {"good": (ones, ones), "other": (zeros, ones), "bad": (zeros[:20], zeros[:20])}
    race = Race((40, 40), (1.0, 1.0), (8, 8), 0.05, 3)
    assert race.rivals("bad", racers) == ["good"]
    assert race.evidence("other", racers) == 0.0, "nobody is better in both"
    assert race.dropped(racers) == ["bad"]


def test_closing_takes_more_evidence_where_more_candidates_may_come() -> None:
    evidence = {"a": np.log(70.0), "b": 0.0, "c": 0.0}
    assert Race((1,), (1.0,), (1,), 0.05, 3).decide(evidence) == ["a"]
    assert Race((1,), (1.0,), (1,), 0.05, 30).decide(evidence) == []


def test_few_races_lose_a_recipe_of_the_front() -> None:
    """The proof over 200 races is in tests/proofs; this is a glance at 12."""
    results = [race_all(simulated(seed, recipes=24), alpha=0.05) for seed in range(12)]
    assert sum(bool(result.lost) for result in results) <= 1
    assert np.median([result.share for result in results]) < 1


def test_drawn_anew_the_estimates_spread_as_the_standard_error_says() -> None:
    generator = np.random.default_rng(1)
    racers = {name: ((generator.random(400) < 0.5).astype(float),) for name in "ab"} | {"part": (np.ones(40),)}
    drawn = resampled(racers, [400], 400)
    assert drawn.shape == (400, 3, 1)
    assert drawn[:, 0, 0].mean() == pytest.approx(estimates(racers["a"])[0], abs=0.01)
    assert drawn[:, 0, 0].std() == pytest.approx(0.025, rel=0.2)
    assert (drawn[:, 2, 0] == 1).all()
