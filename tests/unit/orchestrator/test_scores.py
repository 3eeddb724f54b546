"""Standard errors against lm-eval's own, and pairing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.objectives import Objective
from orchestrator.stats.scores import TaskScore, combine, difference, interval, paired_ses
from tasks.evaluation.judge import _jackknife, _sample

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


def test_ratio_metrics_are_weighted_and_others_are_jackknifed() -> None:
    from lm_eval.api.metrics import bits_per_byte, median

    items = [(-10.0, 4), (-3.0, 2), (-30.0, 11)]
    value, influence, own = _sample(items, bits_per_byte)
    assert value == pytest.approx(43 / 17 / np.log(2))
    assert influence.sum() == pytest.approx(0)
    assert own[0] == pytest.approx(2.5 / np.log(2))
    value, influence, own = _sample([1.0, 2.0, 10.0], median)
    assert value == 2.0
    assert np.isnan(own).all()
    assert influence.sum() == pytest.approx(0)


@given(st.lists(st.floats(-3, 3), min_size=300, max_size=500))
@settings(max_examples=10, deadline=None)
def test_a_grouped_jackknife_agrees_with_the_formula(values: list[float]) -> None:
    mean = lambda items: sum(items) / len(items)  # noqa: E731
    influence = _jackknife(values, mean)
    assert influence.sum() == pytest.approx(0, abs=1e-6)
    single = _jackknife(values[:150], mean)
    assert single == pytest.approx(np.array(values[:150]) - np.mean(values[:150]), abs=1e-9)


def test_many_documents_get_a_standard_error_of_the_right_size() -> None:
    values = np.random.default_rng(0).normal(size=2000).tolist()
    influence = _jackknife(values, lambda items: sum(items) / len(items))
    found = np.std(influence, ddof=1) / np.sqrt(2000)
    assert found == pytest.approx(1 / np.sqrt(2000), rel=0.15)


def test_pairs_that_are_no_numbers_go_to_the_jackknife() -> None:
    pairs = [("a reply", "a reference"), ("b", "b"), ("c", "d")]
    value, influence, _ = _sample(pairs, lambda items: sum(x == y for x, y in items) / len(items))
    assert value == pytest.approx(1 / 3)
    assert len(influence) == 3


def test_ifevals_lists_of_verdicts_are_one_ratio() -> None:
    from lm_eval.tasks.ifeval.utils import agg_inst_level_acc

    value, influence, _ = _sample([[True, False], [True], [False, False, False]], agg_inst_level_acc)
    assert value == pytest.approx(2 / 6)
    assert influence == pytest.approx([(1 - 2 / 6 * 2) / 2, (1 - 2 / 6) / 2, -2 / 6 * 3 / 2])


def test_ifevals_language_checks_give_the_same_verdict_every_time() -> None:
    from langdetect import detect_langs

    import tasks.evaluation.judge  # noqa: F401 (it seeds langdetect)

    verdicts = {str(detect_langs("la dose est 5 mg, dosis is 5 mg, la dosis es 5 mg")) for _ in range(20)}
    assert len(verdicts) == 1
