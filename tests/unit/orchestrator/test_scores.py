"""Standard errors against lm-eval's own, and pairing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.objectives import Objective
from orchestrator.stats.differences import difference
from orchestrator.stats.scores import TaskScore, combine, estimates, interval, own_clusters
from tasks.evaluation.judge import _groups, _sample

bits = st.lists(st.integers(0, 1).map(float), min_size=3, max_size=40)


def task(values: list[float], name: str = "t") -> TaskScore:
    from lm_eval.api.metrics import mean

    found = _sample(values, mean, np.arange(len(values)))
    return TaskScore("o", name, {"acc": found.value}, found.value, found.influence, found.documents)


@given(bits)
def test_the_standard_error_of_a_mean_is_lm_evals(values: list[float]) -> None:
    from lm_eval.api.metrics import mean_stderr

    assert (combine(Objective(tasks=["t"]), [task(values)]).se or 0) == pytest.approx(mean_stderr(values))


@given(bits)
def test_a_recipe_does_not_differ_from_itself(values: list[float]) -> None:
    score = combine(Objective(tasks=["t"]), [task(values)])
    same = difference(score.tasks[0], score.tasks[0])
    assert (same.value, same.won, same.lost) == (0, [], [])
    assert same.low == -same.high < 0, "equal answers to a few questions do not prove equal recipes"


def test_pairing_is_what_makes_a_difference_visible() -> None:
    hard = [1.0] * 50 + [0.0] * 50
    better = [1.0] * 60 + [0.0] * 40
    a, b = (combine(Objective(tasks=["t"]), [task(v)]) for v in (better, hard))
    assert (estimates([a]) - estimates([b])).ses[0] < 0.5 * float(np.hypot(a.se or 0, b.se or 0))
    found = difference(a.tasks[0], b.tasks[0])
    assert found.low > 0
    assert found.won == [*range(50, 60)]
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
    assert high - low == pytest.approx(2 * 1.96 * (estimates([a]) - estimates([b])).ses[0], rel=0.1)
    assert low > 0, "one task differs, and pairing shows it"


def test_a_group_counts_as_one_where_the_sweep_says_so() -> None:
    tasks = [replace(task([value] * 10), share=share) for value, share in ((1.0, 0.25), (1.0, 0.25), (0.0, 0.5))]
    assert combine(Objective(tasks=["g"], average="groups"), tasks).value == pytest.approx(0.5)
    assert combine(Objective(tasks=["g"]), tasks).value == pytest.approx(2 / 3)


def test_averages_over_tasks_and_over_questions() -> None:
    tasks = [task([1.0] * 10, "small"), task([0.0] * 30, "large")]
    assert combine(Objective(tasks=["small", "large"]), tasks).value == pytest.approx(0.5)
    assert combine(Objective(tasks=["small", "large"], average="questions"), tasks).value == pytest.approx(0.25)


def test_groups_of_a_jackknife_are_drawn_at_random() -> None:
    """Of documents that are alike where they are near each other, groups of neighbours would overstate the error."""
    generator = np.random.default_rng(5)
    values = np.repeat(generator.normal(0, 1, 100), 20) + generator.normal(0, 0.1, 2000)
    groups = _groups(own_clusters("t", 2000))
    found = _sample(
        [(value, 1, "no pair of numbers") for value in values], lambda x: float(np.mean([v for v, *_ in x])), groups
    )
    task = TaskScore("o", "t", {}, found.value, found.influence, found.documents, clusters=groups)
    assert len(np.unique(groups)) == 200 and not found.by_document
    assert combine(Objective(tasks=["t"]), [task]).se == pytest.approx(values.std(ddof=1) / 2000**0.5, rel=0.15)


def test_metrics_of_one_task_keep_their_covariance_where_one_needs_groups() -> None:
    """The mean of a metric with itself, once by document and once by groups, has the metric's own error."""
    values = np.random.default_rng(6).random(1000)
    groups = _groups(own_clusters("t", 1000))
    by_document = values - values.mean()
    grouped = _sample(
        [(value, 1, "") for value in values], lambda x: float(np.mean([v for v, *_ in x])), groups
    ).influence
    mixed = TaskScore("o", "t", {}, values.mean(), (by_document + grouped) / 2, values, clusters=groups)
    alone = replace(mixed, influence=grouped)
    assert combine(Objective(tasks=["t"]), [mixed]).se == pytest.approx(combine(Objective(tasks=["t"]), [alone]).se)
