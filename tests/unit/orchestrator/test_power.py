"""Detectable differences: a comparison shows one of that size in about 80 of 100 simulated sweeps."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.stats.estimates import NORMAL, Estimates, Floats, Ints, Part
from orchestrator.stats.power import (
    DISCORDANCE,
    Design,
    Unlike,
    detectable,
    detectable_from,
    family_normal,
    times_needed,
)

SWEEPS = 1000
SIMILAR, ROUGH = (0.75, 0.85), (0.72, 0.88)
"""The power that is realised where 0.8 is stated: in general, and where verdicts move it in large steps because few
documents differ."""


def own(*sizes: int) -> list[Ints]:
    """Documents that are clusters of their own, by task."""
    return [1000 * task + np.arange(size) for task, size in enumerate(sizes)]


def shared() -> list[Ints]:
    """A task of 300, half of whose questions a second one of 250 has too, and which repeats 30 of its own."""
    first = np.concatenate([np.arange(270), np.arange(30)])
    return [first, np.concatenate([np.arange(150), 1000 + np.arange(100)])]


def verdicts(generator: np.random.Generator, size: int, difference: float, discordance: float) -> Floats:
    """The differences of verdicts of two recipes, one a question; shape (SWEEPS, size)."""
    discordance = max(discordance, difference)
    drawn = generator.random((SWEEPS, size))
    return np.where(drawn < (discordance + difference) / 2, 1.0, np.where(drawn < discordance, -1.0, 0.0))


def texts(generator: np.random.Generator, size: int, difference: float, variance: float) -> Floats:
    """The differences of a text metric that is skewed and often 0, of this mean and variance; shape (SWEEPS, size)."""
    one, other = generator.exponential(1.0, (2, SWEEPS, size)) * (generator.random((2, SWEEPS, size)) < 0.5)
    return np.asarray(difference + (one - other) * np.sqrt(variance / 1.5))


def compared(weights: list[float], clusters: list[Ints], drawn: Floats) -> Estimates:
    """Sweeps in which a question's difference is that of its cluster."""
    names, parts, values = np.unique(np.concatenate(clusters)), [], np.zeros(SWEEPS)
    for weight, numbers in zip(weights, clusters, strict=True):
        own_values = drawn[:, np.searchsorted(names, numbers)]
        mean = own_values.mean(axis=1)
        values += weight * mean
        parts.append(Part(weight, own_values - mean[:, None], numbers, 1.0))
    return Estimates.of(values, parts)


MIXES = {
    "one task": ([1.0], own(1000)),
    "small": ([1.0], own(100)),
    "few": ([1.0], own(40)),
    "unequal tasks": ([0.25] * 4, own(100, 135, 500, 2000)),
    "shared": ([0.5, 0.5], shared()),
}


@pytest.mark.parametrize(("discordance", "comparisons"), [(0.05, 36), (0.1, 1), (0.3, 1)])
@pytest.mark.parametrize("mix", MIXES)
def test_a_detectable_difference_in_verdicts_is_shown_four_times_in_five(
    mix: str, discordance: float, comparisons: int
) -> None:
    (weights, clusters), normal = MIXES[mix], family_normal(comparisons)
    difference = detectable(Design.of(weights, clusters), Unlike(discordance), normal)
    assert difference is not None
    size = len(np.unique(np.concatenate(clusters)))
    drawn = verdicts(np.random.default_rng(1), size, difference, discordance)
    low, _ = compared(weights, clusters, drawn).interval(normal)
    lowest, highest = SIMILAR if difference < 0.7 * discordance else ROUGH
    assert lowest <= (low > 0).mean() <= highest


@pytest.mark.parametrize("mix", ["one task", "small", "unequal tasks", "shared"])
def test_a_detectable_difference_in_a_text_metric_is_shown_four_times_in_five(mix: str) -> None:
    weights, clusters = MIXES[mix]
    difference = detectable(Design.of(weights, clusters), Unlike(0.01, verdicts=False))
    assert difference is not None
    size = len(np.unique(np.concatenate(clusters)))
    found = compared(weights, clusters, texts(np.random.default_rng(2), size, difference, 0.01))
    assert SIMILAR[0] <= (found.interval()[0] > 0).mean() <= SIMILAR[1]
    assert np.median(detectable_from(found)) == pytest.approx(difference, rel=0.1)


def test_more_questions_show_smaller_differences_and_as_many_as_are_needed() -> None:
    design, unlike = Design.of([0.5, 0.5], own(200, 600)), Unlike(DISCORDANCE)
    before = detectable(design, unlike)
    assert before is not None
    for wanted in (0.005, 0.02, before, 0.08):
        times = times_needed(design, unlike, wanted)
        assert (times is not None and (times > 1) is (wanted < before)) or wanted == before
        assert times is not None
        assert detectable(design.times(times), unlike) == pytest.approx(wanted, rel=1e-6)
    assert times_needed(design, unlike, before) == pytest.approx(1)
    assert times_needed(design, unlike, 1e-6) is None


def test_too_few_questions_show_no_difference_at_all() -> None:
    assert detectable(Design.of([1.0], own(3)), Unlike(DISCORDANCE)) is None


def test_questions_that_tasks_share_show_less_than_their_number() -> None:
    apart, joined = Design.of([0.5, 0.5], own(300, 300)), Design.of([0.5, 0.5], [np.arange(300), np.arange(300)])
    assert apart.spread == pytest.approx(1 / 600) and joined.spread == pytest.approx(1 / 300)


def test_a_family_needs_longer_intervals() -> None:
    assert family_normal(1) == pytest.approx(NORMAL) and family_normal(100) > family_normal(10) > NORMAL
