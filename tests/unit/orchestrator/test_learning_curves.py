"""Learning curves read backwards, and means over seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.truth.finetune import NOISES, covered, covered_ratio, false_verdicts
from orchestrator.stats.learning_curves import Curve, equivalents
from orchestrator.stats.scores import Score
from orchestrator.stats.seeds import SeedMean, mean_of, paired, ratio
from tests.helpers.boards import score


def curve(*values: float, seeds: int = 3, noise: float = 0.002, first: int = 0) -> Curve:
    """Budgets of 8, 64, 512, …, each with runs that differ a little by seed and by document."""
    budgets = (8 * 8**place for place in range(len(values)))
    drawn = np.random.default_rng(first).normal(0, noise, (len(values), seeds))
    return {
        size: {seed: score(value + by_seed[seed], seed=first + 10 * place + seed) for seed in range(seeds)}
        for place, (size, value, by_seed) in enumerate(zip(budgets, values, drawn, strict=True))
    }


@pytest.mark.parametrize(
    ("one", "other", "equal", "interval"),
    [
        ((0.5,), (0.2, 0.5, 0.8), 64, (8, 512)),
        ((0.35,), (0.2, 0.5, 0.8), 8 * 8**0.5, (8, 64)),
        ((0.1,), (0.2, 0.5, 0.8), 0, (0, 8)),
        ((0.95,), (0.2, 0.5, 0.8), math.inf, (512, math.inf)),
        ((0.2,), (0.2, 0.5, 0.8), 8, (0, 64)),
        ((0.8,), (0.2, 0.5, 0.8), 512, (64, math.inf)),
        ((0.5,), (0.5, 0.5, 0.8), math.nan, (0, 512)),  # a plateau may reach it at once
        ((0.5,), (0.6, 0.3, 0.8), math.nan, (0, 512)),  # a fall is made a plateau of 0.45
    ],
)
def test_examples_that_are_worth_as_much(
    one: tuple[float, ...], other: tuple[float, ...], equal: float, interval: tuple[float, float]
) -> None:
    found, *_ = equivalents(curve(*one, first=1000), curve(*other))
    if not math.isnan(equal):
        assert found.equal == pytest.approx(equal, rel=0.2)
    assert found.interval == interval
    (mirrored,) = equivalents(curve(*(-v for v in one), first=1000), curve(*(-v for v in other)), sign=-1.0)
    assert mirrored.interval == interval, "less is better"


def test_the_interval_has_the_number_in_it_whatever_the_curves() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        one, other = (curve(*generator.uniform(0, 1, 4), noise=0.1, first=first) for first in (0, 100))
        for found in equivalents(one, other):
            assert found.interval is not None and found.interval[0] <= found.equal <= found.interval[1]


def test_one_seed_shows_no_interval() -> None:
    found = equivalents(curve(0.5, seeds=1), curve(0.2, 0.8, seeds=1))
    assert found[0].interval is None and found[0].equal == pytest.approx(8 * 8**0.5, rel=0.1)
    few = {size: dict(list(runs.items())[:1]) for size, runs in curve(0.2, 0.8).items()}
    assert equivalents(curve(0.5), few)[0].interval is None, "one seed is in both"
    some = {**curve(0.2, 0.5, 0.8), 64: few[64]}
    assert equivalents(curve(0.5, first=1000), some)[0].interval == (8, 512), "a budget of one seed is left out"


def crossed(seeds: int, documents: int, *deviations: float, value: float = 0.5, start: int = 0) -> list[Score]:
    """Scores with errors of seeds, of documents and of both, of these standard deviations."""
    rng = np.random.default_rng(start)
    of_seed, of_document, rest = deviations
    values = value + rng.normal(0, of_seed, (seeds, 1)) + rng.normal(0, of_document, documents)
    values = values + rng.normal(0, rest, (seeds, documents))
    return [_score(row) for row in values]


def _score(values: np.ndarray) -> Score:
    made = score(float(values.mean()), documents=len(values))
    task = made.tasks[0]
    return Score(made.value, (type(task)("o", "t", {}, made.value, values - values.mean(), values),), (1.0,))


@pytest.mark.parametrize("deviations", [(0.05, 0.0, 0.1), (0.0, 0.2, 0.1), (0.0, 0.0, 0.3), (0.03, 0.2, 0.2)])
def test_the_standard_error_is_that_of_new_seeds_and_new_documents(deviations: tuple[float, float, float]) -> None:
    means = [SeedMean.of(crossed(3, 60, *deviations, start=start)) for start in range(400)]
    true = float(np.std([mean.value for mean in means]))
    assert np.sqrt(np.mean([mean.se**2 for mean in means])) == pytest.approx(true, rel=0.12)
    covered = np.mean([low <= 0.5 <= high for low, high in (mean.interval() for mean in means)])
    assert covered >= 0.93


def test_differences_are_paired_by_seed_and_by_document() -> None:
    hard = crossed(3, 60, 0.1, 0.3, 0.0)
    easier = [Score(one.value + 0.01, one.tasks, one.weights) for one in hard]
    difference = paired(dict(enumerate(easier)), dict(enumerate(hard)))
    assert difference is not None and difference.value == pytest.approx(0.01)
    assert math.isnan(difference.se), "nothing varies, so that nothing is known of the error"
    noisy = paired(dict(enumerate(crossed(3, 60, 0.1, 0.3, 0.0, start=1))), dict(enumerate(hard)))
    assert noisy is not None and noisy.se > 0.05, "other seeds and documents do not cancel out"
    assert paired({0: hard[0]}, {1: hard[1]}) is None


def test_a_family_is_wider_than_one_statement_and_its_mean_narrower() -> None:
    found = SeedMean.of(crossed(3, 60, 0.02, 0.2, 0.1))
    (low, high), (lower, higher) = found.interval(1), found.interval(10)
    assert lower < low < found.value - 1.96 * found.se < found.value + 1.96 * found.se < high < higher
    other = SeedMean.of(crossed(3, 60, 0.02, 0.2, 0.1, start=1))
    assert mean_of([found, other]).value == pytest.approx((found.value + other.value) / 2)


def test_a_ratio_has_fiellers_interval() -> None:
    one = SeedMean.of([score(0.49, documents=400, seed=1)])
    base = SeedMean.of([score(0.50, documents=400, seed=2)])
    found = ratio(one, base)
    assert found is not None and found.low < 0.98 < found.high and found.value == pytest.approx(0.98)
    delta = 1.96 * math.hypot(one.se / 0.5, 0.98 * base.se / 0.5)  # which Fieller's becomes where errors are small
    assert (found.high - found.low) / 2 == pytest.approx(delta, rel=0.03)
    alike = ratio(SeedMean.of([score(0.5, documents=20)] * 3), SeedMean.of([score(0.5, documents=20)]))
    assert alike is not None and alike.low < 0.95 < 1.05 < alike.high, "equal answers do not prove equal models"
    assert ratio(one, base * -1.0) is None, "no share of a negative score"
    wide = ratio(SeedMean.of(crossed(3, 20, 0.8, 0.1, 0.1)), SeedMean.of(crossed(3, 20, 0.8, 0.1, 0.1, start=3)))
    assert wide is not None and math.isinf(wide.high), "the denominator may be 0"


def test_intervals_hold_as_often_as_they_say_at_three_seeds() -> None:
    """The simulation of benchmarks/truth, smaller: the true equivalent between budgets, beyond the largest, under the
    smallest."""
    settings = [
        ("steep", NOISES[2], 20),
        ("sudden", NOISES[4], 100),
        ("beyond", NOISES[0], 20),
        ("under", NOISES[3], 20),
    ]
    assert min(covered(*each, draws=40, seed=place) for place, each in enumerate(settings)) >= 0.93
    assert false_verdicts(NOISES[2], 20, draws=40, seed=7) <= 0.1
    assert covered_ratio(NOISES[4], 20, draws=40, seed=8) >= 0.9
