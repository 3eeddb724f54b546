"""Racing keeps what belongs on the front; its parts obey their laws."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.races import TextRace, race_all, simulated, start, widened
from orchestrator.stats.front import front_mask, hypervolume
from tasks.evaluation.ranges import Ranges
from tune.arrangement import Arrangement, TaskPart, arrange
from tune.racing import Draws, RaceTest, log_capital, race_order

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
    weight = dict.fromkeys(keys, 1.0)
    order, first = race_order([keys], weight, 0)
    assert sorted(order) == sorted(keys) and first == 2
    assert order == race_order([keys[::-1]], weight, 0)[0] != race_order([keys], weight, 1)[0]
    heavier, _ = race_order([keys], {**weight, "question 7": 1e6}, 0)
    assert heavier.index("question 7") <= first and [k for k in heavier if k != "question 7"] == [
        k for k in order if k != "question 7"
    ]


def arranged(sizes: Sequence[int], parts: Sequence[float], seed: int = 0) -> Arrangement:
    """One objective's tasks, verdicts, of which no two share a question."""
    tasks = [
        TaskPart("one", [f"{t} {i}" for i in range(n)], part, Ranges(np.ones((1, n)), np.zeros(1), np.ones(1)))
        for t, (n, part) in enumerate(zip(sizes, parts, strict=True))
    ]
    return arrange(["one"], tasks, seed)


def test_early_rungs_have_as_many_documents_of_each_task_that_weighs_the_same() -> None:
    sizes = (2091, 636, 500, 132, 50)
    found = np.mean([_counts(arranged(sizes, [0.2] * 5, seed), 0.05) for seed in range(20)], axis=0)
    assert found[:4] == pytest.approx(np.full(4, found[:4].mean()), rel=0.15) and found[4] > 25, (
        "as many, while any are left"
    )
    small = np.mean([_counts(arranged((1000, 1000), (0.8, 0.2), seed), 0.1) for seed in range(20)], axis=0)
    assert small[0] / small[1] == pytest.approx(4, rel=0.2), "in proportion to what they weigh"
    whole = arranged(sizes, [0.2] * 5)
    assert _counts(whole, 1.0) == list(sizes)
    rungs = [_counts(whole, share) for share in (1e-9, 0.1, 0.4, 1.0)]
    assert rungs[0] == [2] * 5 and all((np.diff(each) >= 0).all() for each in np.transpose(rungs)), "nested"


def _counts(order: Arrangement, share: float) -> list[int]:
    return [task.until(order.until(share)) for task in order.tasks]


def test_a_question_of_several_tasks_is_one_draw() -> None:
    ranges = Ranges(np.ones((1, 3)), np.zeros(1), np.ones(1))
    parts = [TaskPart(name, keys, 1.0, ranges) for name, keys in (("x", ["a", "b", "c"]), ("y", ["c", "d", "a"]))]
    order = arrange(["x", "y"], parts, 0)
    assert order.size == 4 and [len(draws.weights) for draws in order.draws] == [3, 3]
    places = [dict(zip([own[d] for d in task.documents], task.places, strict=True)) for own, task in
              zip((["a", "b", "c"], ["c", "d", "a"]), order.tasks, strict=True)]  # fmt: skip
    assert places[0]["a"] == places[1]["a"] and places[0]["c"] == places[1]["c"]
    twice = arrange(["x"], [TaskPart("x", ["a", "b", "a"], 1.0, ranges)], 0)
    assert twice.size == 2 and sorted(twice.draws[0].tops) == pytest.approx([1 / 3, 2 / 3])


def drawn(order: Arrangement, differences: Sequence[np.ndarray]) -> np.ndarray:
    """What each draw adds to a difference of two recipes, in the race's order."""
    found = np.zeros(len(order.draws[0].weights))
    for task, values in zip(order.tasks, differences, strict=True):
        np.add.at(found, task.draws, task.part / len(values) * values[task.documents])
    return found


HARD = {
    "one task": [np.array([1.0] * 30 + [-1.0] * 30 + [0.0] * 60)],
    "sizes and weights that differ, and a difference of tasks": [
        np.array([1.0] * 9 + [0.0]),
        np.repeat([-0.6, 0.0], 75),
    ],
    "rare and large": [np.r_[np.full(12, -0.9), np.full(108, 0.1)], np.zeros(20)],
}


@pytest.mark.parametrize("name", HARD)
def test_betting_against_the_truth_wins_beyond_1_over_alpha_in_alpha_of_all_orders_at_most(name: str) -> None:
    """Ville's inequality, over 150 orders of a difference that is 0 on the whole, looked at often."""
    tasks = HARD[name]
    parts = {2: [0.25, 0.75], 1: [1.0]}[len(tasks)]
    values = [task - task.mean() if name.startswith("sizes") else task for task in tasks]
    if name.startswith("sizes"):
        values = [values[0] + 0.3, values[1] - 0.1]
    most = max(np.abs(each).max() for each in values)
    won = []
    for seed in range(150):
        order = arranged([len(task) for task in tasks], parts, seed)
        gained, draws = drawn(order, values), order.draws[0]
        assert gained.sum() == pytest.approx(0, abs=1e-12)
        looks = range(10, len(gained) + 1, 20)
        won.append(max(log_capital(gained[:n], draws.weights, -most * draws.tops, draws.first) for n in looks))
    for alpha in (0.3, 0.05):
        allowed = alpha + 2 * np.sqrt(alpha * (1 - alpha) / 150)
        assert (np.array(won) >= np.log(1 / alpha)).mean() <= allowed


def test_the_capital_is_a_fair_games() -> None:
    """Over all orders of five values whose sum is 0, the bettor has 1 on average, whatever the draws' weights."""
    values = np.array([1.0, -1.0, 0.5, -0.5, 0.0])
    for weights in (np.ones(5), np.array([1.0, 3.0, 0.5, 2.0, 1.5])):
        chance, capital = [], []
        for order in map(list, itertools.permutations(range(5))):
            left = np.cumsum(weights[order][::-1])[::-1]
            chance.append(np.prod(weights[order] / left))
            capital.append(
                [np.exp(log_capital(values[order][:n], weights[order], np.full(5, -1.0))) for n in range(1, 6)]
            )
        assert np.sum(chance) == pytest.approx(1.0)
        assert np.array(chance) @ np.array(capital) == pytest.approx(np.ones(5))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=10, max_size=80))
def test_nothing_is_certain_that_the_rest_can_still_undo(values: list[float]) -> None:
    gained, total = np.array(values), len(values)
    for n in range(1, total + 1):
        if log_capital(gained[:n], np.ones(total), np.full(total, -1.0)) == np.inf:
            # At some place the others, all against it, could not have brought the sum down to 0.
            assert any(gained[:i].sum() > total - i for i in range(n + 1))


def test_a_clear_difference_is_found_early() -> None:
    generator = np.random.default_rng(0)
    gained = generator.permutation(np.array([1.0] * 80 + [-1.0] * 10 + [0.0] * 110))
    assert log_capital(gained[:100], np.ones(200), np.full(200, -1.0)) > np.log(60 / 0.05)


def verdicts(n: int, candidates: int) -> RaceTest:
    """A race over two objectives of one task each, in which a draw adds 1 at most."""
    return RaceTest((Draws(np.ones(n), 0, np.ones(n)),) * 2, (0.0, 0.0), 0.05, candidates)


def test_who_is_not_beaten_in_every_objective_has_no_capital_against_it() -> None:
    ones, zeros = np.ones(60), np.zeros(60)
    race = verdicts(60, 3)
    assert race.capitals((zeros[:20], zeros[:20]), [(ones, ones)])[0] > np.log(120)
    assert race.capitals((zeros[:20], ones[:20]), [(ones, ones)])[0] <= 0.0


def test_more_evidence_is_needed_where_more_candidates_may_come_and_less_where_some_are_stopped() -> None:
    own, none = np.array([np.log(2 * 3 / 0.05)]), np.zeros(0)
    assert verdicts(1, 3).beaten(own, none, 0) and not verdicts(1, 4).beaten(own, none, 0)
    assert verdicts(1, 4).beaten(own, none, 1)
    assert not verdicts(1, 3).beaten(none, own, 0), "a candidate is one of many that may have become rivals"
    assert not verdicts(1, 3).beaten(none, none, 0), "nobody to be beaten by"


def test_few_races_lose_a_recipe_of_the_front() -> None:
    """The count over 200 races is that of benchmarks/search.py; this is a glance at 4."""
    results = [race_all(simulated(seed, recipes=20, grid=5, tasks=1 + seed % 3), seed=seed) for seed in range(4)]
    assert not any(result.lost for result in results) and any(result.dropped for result in results)
    assert np.median([result.share for result in results]) < 1
    again = race_all(simulated(0, recipes=20, grid=5), seed=0)
    assert again.asked.keys() == set(range(20)) and again.dropped == results[0].dropped


def test_rare_documents_that_a_race_has_not_met_are_reckoned_with() -> None:
    kind = TextRace((200,), 3, candidates=1)
    settings_ = [kind.setting(seed) for seed in range(6)]
    assert all(setting.front[-1] == 2 for setting in settings_), "the candidate is on the front"
    assert not any(race_all(setting, seed=seed).lost for seed, setting in enumerate(settings_))
    seen = [race_all(widened(setting), seed=seed) for seed, setting in enumerate(settings_)]
    assert any(result.lost for result in seen), "the largest difference seen is no bound"


def test_what_nothing_bounds_is_bounded_by_what_was_seen() -> None:
    setting = simulated(0, recipes=20, grid=5)
    game = start(widened(setting), 0.05, (0.5, 1.0), 0)
    test = game.scheduler.test()
    assert not any(draws.is_bounded for draws in test.objectives) and list(game.scheduler.unbounded) == [
        "objective0",
        "objective1",
    ]
    assert test.spreads == pytest.approx([1 / 400, 1 / 200])
