"""Learning curves read backwards, and means over seeds."""

from __future__ import annotations

import math

import pytest

from orchestrator.stats.learning_curves import equivalents, mean_score, spread
from tests.helpers.boards import score


def test_a_curve_read_backwards_finds_its_own_budgets() -> None:
    curve = {8: [score(0.2)], 64: [score(0.5)], 512: [score(0.8)]}
    found = equivalents(curve, curve)
    assert [round(each.equal) for each in found] == [8, 64, 512]
    assert all(each.low == each.high == each.equal or math.isclose(each.low, each.equal) for each in found), "paired"


def test_what_lies_beyond_a_curve_is_said_to() -> None:
    one = {8: [score(0.1, seed=1)], 64: [score(0.35, seed=1)], 512: [score(0.95, seed=1)]}
    other = {8: [score(0.2)], 64: [score(0.5)], 512: [score(0.8)]}
    below, between, beyond = equivalents(one, other)
    assert below.equal == 0 and math.isinf(beyond.equal)
    assert between.equal == pytest.approx(8 * 8**0.5, rel=1e-6), "half way over the logarithm"
    assert between.low < between.equal < between.high


def test_means_over_seeds_keep_the_documents() -> None:
    scores = [score(0.2, seed=1), score(0.4, seed=2)]
    mean = mean_score(scores)
    assert mean.value == pytest.approx(0.3) and spread(scores) == pytest.approx(0.1414, abs=1e-4)
    assert mean.tasks[0].influence == pytest.approx((scores[0].tasks[0].influence + scores[1].tasks[0].influence) / 2)
    assert spread(scores[:1]) is None
