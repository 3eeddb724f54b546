"""The volume of a set that was chosen elsewhere, and its gain over another, with intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.truth.search import report, searches
from orchestrator.stats.estimates import Estimates, Part
from orchestrator.stats.front import hypervolume
from orchestrator.stats.volume import compare_volumes, dominated


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_volume_is_exact_and_its_slopes_are_its_derivatives(objectives: int) -> None:
    generator = np.random.default_rng(objectives)
    points = generator.normal(0.3, 0.5, (5, 6, objectives))
    volumes, slopes = dominated(points)
    assert volumes == pytest.approx([hypervolume(each, np.zeros(objectives)) for each in points])
    for place in np.ndindex(6, objectives):
        moved = points.copy()
        moved[(slice(None), *place)] += 1e-6
        assert (dominated(moved)[0] - volumes) / 1e-6 == pytest.approx(slopes[(slice(None), *place)], abs=1e-4)


def exact(values: list[float]) -> Estimates:
    """Scores without an error."""
    influences = np.zeros((len(values), 8))
    return Estimates.of(np.array(values), [Part(1.0, influences, np.arange(8), 0.0)])


def test_without_errors_the_volume_is_that_of_the_scores() -> None:
    first, second = np.array([True, True, False]), np.array([False, True, True])
    found = compare_volumes([exact([0.2, 0.1, -0.1]), exact([0.1, 0.3, 0.5])], first, second)
    assert [each.value for each in found] == pytest.approx([0.04, 0.03, 0.01])
    assert found.gain.low == pytest.approx(0.01) == found.gain.high


def test_intervals_cover_and_the_said_volume_does_not_flatter() -> None:
    generator = np.random.default_rng(5)
    settings = list(searches(generator))
    for setting in (settings[0], settings[6]):  # few questions; all equal
        found = [report(setting, generator) for _ in range(25)]
        for said in zip(*found, strict=True):
            assert np.mean([each.is_covered for each in said]) >= 0.84
        assert np.mean([first.interval.value - first.truth for first, _, _ in found]) < 0.01
