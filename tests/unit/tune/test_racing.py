"""Racing keeps what belongs on the front; its parts obey their laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.races import race_all, simulated
from orchestrator.stats.front import front_mask, hypervolume
from tune.racing import RaceTest, estimates, log_capital, race_order, resampled

points = st.integers(1, 3).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 5), min_size=k, max_size=k), min_size=1, max_size=8)
)


@settings(max_examples=60, deadline=None)
@given(points)
def test_hypervolume_counts_the_unit_cubes_below_the_points(found: list[list[int]]) -> None:
    array = np.array(found, float)
    cubes = np.indices([5] * array.shape[1]).reshape(array.shape[1], -1).T + 1
    below: np.ndarray = np.any(np.all(cubes[:, None, :] <= array[None, :, :], axis=2), axis=1)
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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=10, max_size=80))
def test_nothing_is_certain_that_the_rest_can_still_undo(values: list[float]) -> None:
    gained, total = np.array(values), len(values)
    for n in range(1, total + 1):
        if log_capital(gained[:n], total, 1.0) == np.inf:
            # At some place the others, all against it, could not have brought the sum down to 0.
            assert any(gained[:i].sum() > total - i for i in range(n))


def test_betting_against_the_truth_wins_beyond_1_over_alpha_in_alpha_of_all_orders_at_most() -> None:
    """Ville's inequality, over 400 orders of a difference that is 0 on the whole, looked at after every question."""
    generator = np.random.default_rng(0)
    whole = np.array([1.0] * 30 + [-1.0] * 30 + [0.0] * 60)
    orders = np.array([generator.permutation(whole) for _ in range(400)])
    looks = np.array([log_capital(orders[:, :n], len(whole), 1.0) for n in range(1, len(whole) + 1)])
    for alpha in (0.3, 0.05):
        allowed = alpha + 2 * np.sqrt(alpha * (1 - alpha) / 400)
        assert (looks.max(axis=0) >= np.log(1 / alpha)).mean() <= allowed


def test_the_capital_is_a_fair_games() -> None:
    """Over all orders of five values whose mean is 0, the bettor has 1 on average."""
    orders = np.array(list(itertools.permutations([1.0, -1.0, 0.5, -0.5, 0.0])))
    for n in range(1, 6):
        assert np.exp(log_capital(orders[:, :n], 5, 1.0)).mean() == pytest.approx(1.0)


def test_a_clear_difference_is_found_early() -> None:
    generator = np.random.default_rng(0)
    gained = generator.permutation(np.array([1.0] * 80 + [-1.0] * 10 + [0.0] * 110))
    assert log_capital(gained[:100], 200, 1.0) > np.log(60 / 0.05)


def test_who_is_not_beaten_in_every_objective_has_no_capital_against_it() -> None:
    ones, zeros = np.ones(60), np.zeros(60)
    race = RaceTest((60, 60), (1.0, 1.0), 0.05, 3)
    assert race.evidence((zeros[:20], zeros[:20]), [(ones, ones)]) > np.log(60)
    assert race.evidence((zeros[:20], ones[:20]), [(ones, ones)]) <= 0.0
    assert race.evidence((zeros, zeros), []) == 0.0, "nobody to be beaten by"


def test_closing_takes_more_evidence_where_more_candidates_may_come() -> None:
    own = float(np.log(70.0))
    assert RaceTest((1,), (1.0,), 0.05, 3).beaten(own, [0.0, 0.0])
    assert not RaceTest((1,), (1.0,), 0.05, 30).beaten(own, [-9.0] * 20)
    assert RaceTest((1,), (1.0,), 0.05, 30).beaten(own, [float(np.log(40.0))] * 29), "evidence against others helps"


def test_few_races_lose_a_recipe_of_the_front() -> None:
    """The count over 200 races is that of benchmarks/search.py; this is a glance at 8."""
    results = [race_all(simulated(seed, recipes=20), start=5) for seed in range(8)]
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
