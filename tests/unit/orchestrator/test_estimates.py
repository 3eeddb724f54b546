"""The linear form of scores: clusters, covariances, degrees of freedom, and intervals of few documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student

from orchestrator.stats.estimates import Estimates, Floats, Part
from orchestrator.stats.scores import Score, TaskScore, estimates, interval, own_clusters

GENERATOR = np.random.default_rng(3)


def score(values: list[float] | Floats, task: str = "t", clusters: list[int] | None = None) -> Score:
    own = np.array(values, float)
    numbers = own_clusters(task, len(own)) if clusters is None else np.array(clusters)
    found = TaskScore("o", task, {}, float(own.mean()), own - own.mean(), own, clusters=numbers)
    return Score(found.value, (found,), (1.0,))


def joined(*scores: Score) -> Score:
    share = 1 / len(scores)
    tasks = tuple(task for score in scores for task in score.tasks)
    return Score(sum(score.value for score in scores) * share, tasks, (share,) * len(scores))


def test_a_document_that_is_asked_twice_counts_once() -> None:
    once = score([1, 0, 1, 1, 0])
    twice = score([1, 1, 0, 0, 1, 1, 1, 1, 0, 0], clusters=[7, 7, 8, 8, 9, 9, 10, 10, 11, 11])
    assert twice.se == pytest.approx(once.se)
    assert estimates([twice]).degrees == pytest.approx(4)


def test_tasks_that_share_documents_are_correlated() -> None:
    values = GENERATOR.random(50)
    apart = joined(score(values, "x"), score(values, "y"))
    shared = joined(score(values, "x"), score(values, "y", own_clusters("x", 50).tolist()))
    assert shared.se == pytest.approx(score(values).se), "the second task says nothing that the first does not"
    assert apart.se == pytest.approx(shared.se / np.sqrt(2))


def test_covariances_between_objectives_are_those_of_their_shared_documents() -> None:
    a, b = GENERATOR.random((2, 30))
    ours = [estimates([score(a, "x")]), estimates([score(b, "z", own_clusters("x", 30).tolist())])]
    among = np.unique(np.concatenate([each.clusters for each in ours]))
    one, other = (each.contributions(among)[0] for each in ours)
    assert one @ other == pytest.approx(np.cov(a, b)[0, 1] / 30)


def test_degrees_of_freedom_are_satterthwaites() -> None:
    """Welch's, for the mean of two tasks with one weight."""
    a, b = GENERATOR.normal(0, 1, 6), GENERATOR.normal(0, 3, 9)
    first, second = a.var(ddof=1) / 6, b.var(ddof=1) / 9
    welch = (first + second) ** 2 / (first**2 / 5 + second**2 / 8)
    assert estimates([joined(score(a, "x"), score(b, "y"))]).degrees == pytest.approx(welch)


def test_one_document_says_nothing_about_its_spread() -> None:
    one, task = score([0.7]), score([0.1, 0.6, 0.3], "more")
    assert one.se is None and joined(one, task).se is None and task.se is not None
    assert np.isnan(interval(one, one)).all() and np.isnan(interval(joined(one, task), joined(one, task))).all()


def test_documents_that_are_all_alike_say_little() -> None:
    right = score([1.0] * 10)
    assert right.se is None
    low, high = (float(end[0]) for end in estimates([right]).interval())
    assert low < 0.75 < 1 < high
    assert interval(right, right)[1] > 0.2


def test_an_interval_of_many_documents_is_that_of_a_normal_number() -> None:
    values = GENERATOR.random(2000)
    low, high = (float(end[0]) for end in estimates([score(values)]).interval())
    assert high - low == pytest.approx(2 * student.ppf(0.975, 1999) * values.std(ddof=1) / np.sqrt(2000), rel=0.01)


def test_a_metric_of_another_scale_has_its_own_width() -> None:
    percents = score([40.0] * 12)
    assert percents.tasks[0].width == 40 and replace(percents.tasks[0], documents=np.full(12, np.nan)).width == 40
    narrow, wide = (estimates([each]) - estimates([each]) for each in (score([0.4] * 12), percents))
    assert wide.interval()[1] == pytest.approx(40 * narrow.interval()[1])


SHAPES: dict[str, tuple[Callable[[np.random.Generator, int], Floats], float]] = {
    "verdicts": (lambda g, n: np.where(g.random((2000, n)) < 0.8, 1.0, 0.0), 0.8),
    "rare verdicts": (lambda g, n: np.where(g.random((2000, n)) < 0.03, 1.0, 0.0), 0.03),
    "verdicts that seldom differ": (lambda g, n: g.choice([-1.0, 0, 1], (2000, n), p=[0.02, 0.93, 0.05]), 0.03),
    "fractions": (lambda g, n: g.beta(2, 3, (2000, n)), 0.4),
    "skewed": (lambda g, n: g.beta(0.5, 5, (2000, n)), 1 / 11),
    "mostly zero": (lambda g, n: g.beta(2, 3, (2000, n)) * (g.random((2000, n)) < 0.15), 0.06),
    "means of verdicts": (lambda g, n: g.binomial(3, 0.95, (2000, n)) / 3, 0.95),
}


@pytest.mark.parametrize("documents", [10, 20, 40])
@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_of_few_documents_cover(shape: str, documents: int) -> None:
    draw, mean = SHAPES[shape]
    values = draw(np.random.default_rng(documents), documents)
    influences = values - values.mean(axis=1, keepdims=True)
    found = Estimates.of(values.mean(axis=1), [Part(1.0, influences, np.arange(documents), 1.0)])
    low, high = found.interval()
    assert ((low <= mean) & (mean <= high)).mean() > 0.935
