"""What a search's volume and gain on the held-out questions are worth, and how often a race over texts drops the
best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.races import TextRace, race_all
from benchmarks.truth.front import Setting, draw, fractions, mostly_zero, verdicts
from orchestrator.stats.estimates import Floats
from orchestrator.stats.front import front_mask, hypervolume
from orchestrator.stats.scores import Score, estimates
from orchestrator.stats.volume import Interval, compare_volumes

GRID = 11
"""Recipes of the grid, the two parents first; all others are candidates."""


def searches(generator: np.random.Generator) -> Iterator[Setting]:
    """Lines of merges that bend outwards more and less, candidates at, above and below them, and equal recipes."""
    line = np.r_[0, 1, np.linspace(0.1, 0.9, GRID - 2)]
    for candidates, bend, ahead, documents, alike, metric in (
        (40, 0.4, 0.0, (40,), 0.5, verdicts),
        (40, 0.4, 0.02, (300,), 0.8, verdicts),
        (150, 0.25, -0.01, (300,), 0.8, verdicts),
        (60, 0.8, 0.03, (1000,), 0.8, verdicts),
        (40, 0.4, 0.02, (200,), 0.7, fractions),
        (60, 0.8, 0.03, (200, 60, 15), 0.7, verdicts),
    ):
        place = np.r_[line, generator.random(candidates)]
        depth = np.r_[np.zeros(GRID), generator.exponential(0.02, candidates) - ahead]
        means = np.stack([0.45 + 0.2 * place, 0.65 - 0.2 * place], axis=1)
        means += (bend * 0.5 * place * (1 - place) - depth)[:, None]
        yield Setting(np.clip(means, 0.05, 0.95), documents, alike, metric)
    equal = np.full((GRID + 40, 2), 0.6)
    equal[0, 0] = equal[1, 1] = 0.5
    yield Setting(equal, (30,), 0.5, verdicts)
    yield Setting(equal, (400,), 0.9, verdicts)
    yield Setting(0.3 * equal, (300,), 0.8, mostly_zero)
    three = np.concatenate([equal, equal[:, :1] + generator.normal(0, 0.01, (GRID + 40, 1))], axis=1)
    three[0, 2] = 0.5
    yield Setting(three, (150,), 0.7, verdicts)


@dataclass(frozen=True)
class Said:
    """A number that a report says on the held-out questions, and what is true."""

    interval: Interval
    truth: float

    @property
    def is_covered(self) -> bool:
        slack = 1e-12  # of rounding, where there is nothing to gain
        return self.interval.low - slack <= self.truth <= self.interval.high + slack


def report(setting: Setting, generator: np.random.Generator) -> tuple[Said, Said, Said]:
    """Choose both fronts on some questions, and measure them on others: the search's volume, the grid's, the gain."""
    searched, held_out = draw(setting, generator), draw(setting, generator)
    points = _points(searched)
    grid = np.zeros(len(points), bool)
    grid[:GRID] = front_mask(points[:GRID])
    front, worst = front_mask(points), points[:2].argmin(axis=0)
    chosen = np.unique(np.r_[np.flatnonzero(front | grid), worst])
    above = []
    for k, name in enumerate(held_out[0]):
        own = estimates([held_out[recipe][name] for recipe in chosen])
        above.append(own - own[np.flatnonzero(chosen == worst[k])])
    found = compare_volumes(above, front[chosen], grid[chosen])
    reference = setting.means[worst, np.arange(len(worst))]
    first, second = (hypervolume(setting.means[group], reference) for group in (front, grid))
    return Said(found.first, first), Said(found.second, second), Said(found.gain, first - second)


def _points(scores: list[dict[str, Score]]) -> Floats:
    return np.array([[score.value for score in each.values()] for each in scores])


def volumes(reports: int, generator: np.random.Generator) -> dict[str, float]:
    """How often the intervals of volumes and gains contain the truth, and the gain's bias; the worst setting of each.

    A volume is that of objectives from 0 to 1. The bias as a share of the grid's true volume is over the settings with
    200 questions or more, and without those whose recipes are all equal, where there is next to no volume.
    """
    covered, biases, shares = [], [], []
    for setting in searches(generator):
        found = [report(setting, generator) for _ in range(reports)]
        covered += [np.mean([said.is_covered for said in number]) for number in zip(*found, strict=True)]
        biases.append(abs(np.mean([gain.interval.value - gain.truth for _, _, gain in found])))
        grid = np.mean([each.truth for _, each, _ in found])
        if sum(setting.documents) >= 200 and grid > 0.02:
            shares.append(biases[-1] / grid)
    return {
        "hypervolume_coverage": float(min(covered)),
        "gain_bias": float(max(biases)),
        "gain_bias_of_grid": float(max(shares)),
    }


def text_races() -> Iterator[TextRace]:
    """Races over texts' metrics whose candidates look a little worse until their few much better documents come."""
    yield TextRace((60,), 2, candidates=3)
    yield TextRace((200,), 3, candidates=1)
    yield TextRace((200,), 8, candidates=10)
    yield TextRace((1000,), 4, candidates=2)
    yield TextRace((1000, 60, 60, 200), 2, candidates=3)
    yield TextRace((400, 40), 3, candidates=5, lead=0.001)


def false_drop_text(races: int, seed: int) -> float:
    """Share of races that stop any recipe of the front; the worst setting."""
    shares = []
    for kind in text_races():
        lost = [bool(race_all(kind.setting(seed + each), seed=seed + each).lost) for each in range(races)]
        shares.append(np.mean(lost))
    return float(max(shares))


def measure(quick: bool) -> dict[str, float]:
    generator = np.random.default_rng(20260412)
    return {
        **volumes(2 if quick else 250, generator),
        "false_drop_text": false_drop_text(1 if quick else 120, 20260412),
    }
