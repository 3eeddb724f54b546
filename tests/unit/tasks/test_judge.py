"""A task's score and the influence of its documents, by lm-eval's own metrics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.judge import _jackknife, _sample


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
