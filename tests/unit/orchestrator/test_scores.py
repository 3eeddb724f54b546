"""Standard errors against lm-eval's own, and pairing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.objectives import Objective
from orchestrator.stats.scores import TaskScore, combine, difference, interval, paired_ses
from tasks.evaluation.judge import _sample

bits = st.lists(st.integers(0, 1).map(float), min_size=3, max_size=40)


def task(values: list[float], name: str = "t") -> TaskScore:
    from lm_eval.api.metrics import mean

    value, influence, own = _sample(values, mean)
    return TaskScore("o", name, {"acc": value}, value, influence, own)


@given(bits)
def test_the_standard_error_of_a_mean_is_lm_evals(values: list[float]) -> None:
    from lm_eval.api.metrics import mean_stderr

    assert combine(Objective(tasks=["t"]), [task(values)]).se == pytest.approx(mean_stderr(values))


@given(bits)
def test_a_recipe_does_not_differ_from_itself(values: list[float]) -> None:
    score = combine(Objective(tasks=["t"]), [task(values)])
    assert paired_ses(score, [score]).tolist() == [0]
    same = difference(score.tasks[0], score.tasks[0])
    assert (same.value, same.low, same.high, same.won, same.lost) == (0, 0, 0, [], [])


def test_pairing_is_what_makes_a_difference_visible() -> None:
    hard = [1.0] * 50 + [0.0] * 50
    better = [1.0] * 55 + [0.0] * 45
    a, b = (combine(Objective(tasks=["t"]), [task(v)]) for v in (better, hard))
    assert paired_ses(a, [b])[0] < 0.5 * float(np.hypot(a.se, b.se))
    found = difference(a.tasks[0], b.tasks[0])
    assert found.low > 0
    assert found.won == [50, 51, 52, 53, 54]
    assert found.lost == []


def test_an_interval_of_whole_scores_is_as_wide_as_the_paired_error_says() -> None:
    generator = np.random.default_rng(1)
    shared = generator.random((2, 400))
    a, b = (
        combine(
            Objective(tasks=["x", "y"]),
            [task((s < bar).astype(float).tolist()) for s, bar in zip(shared, bars, strict=True)],
        )
        for bars in ((0.6, 0.6), (0.5, 0.6))
    )
    low, high = interval(a, b)
    assert low < a.value - b.value < high
    assert high - low == pytest.approx(2 * 1.96 * paired_ses(a, [b])[0], rel=0.1)
    assert low > 0, "one task differs, and pairing shows it"
    assert interval(a, a) == (0, 0)


def test_a_group_counts_as_one_where_the_sweep_says_so() -> None:
    tasks = [replace(task([value] * 10), share=share) for value, share in ((1.0, 0.25), (1.0, 0.25), (0.0, 0.5))]
    assert combine(Objective(tasks=["g"], average="groups"), tasks).value == pytest.approx(0.5)
    assert combine(Objective(tasks=["g"]), tasks).value == pytest.approx(2 / 3)


def test_averages_over_tasks_and_over_questions() -> None:
    tasks = [task([1.0] * 10, "small"), task([0.0] * 30, "large")]
    assert combine(Objective(tasks=["small", "large"]), tasks).value == pytest.approx(0.5)
    assert combine(Objective(tasks=["small", "large"], average="questions"), tasks).value == pytest.approx(0.25)
