"""Races over answers that are known beforehand: simulated ones, and those of the recorded landscape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.searchconfig import Racing
from tune.racing import Answers, Floats, Race, estimates, front_mask


@dataclass(frozen=True)
class Result:
    asked: dict[int, Answers]
    """Recipe → what it was asked in the end."""
    dropped: list[int]
    lost: list[int]
    """Dropped, though on the front that all questions show."""
    share: float
    """Of all documents, those that were asked."""


def race_all(values: Sequence[Floats], alpha: float = 0.05, rungs: Sequence[float] | None = None) -> Result:
    """Race recipes rung by rung.

    Args:
        values: of each objective, shape (recipes, documents), in the race's order.
    """
    recipes, totals = len(values[0]), tuple(matrix.shape[1] for matrix in values)
    cuts = [tuple(int(np.ceil(share * total)) for total in totals) for share in rungs or Racing().rungs]
    bounds = tuple(float((matrix.max(axis=0) - matrix.min(axis=0)).max()) for matrix in values)
    race = Race(totals, bounds, cuts[0], alpha, recipes)
    cut = dict.fromkeys(range(recipes), cuts[0])
    dropped: list[int] = []
    evidence: dict[str, float] = {}
    for place, current in enumerate(cuts):
        alive = [recipe for recipe in range(recipes) if recipe not in dropped]
        cut.update(dict.fromkeys(alive, current))
        racers = {str(i): tuple(m[i, :n] for m, n in zip(values, cut[i], strict=True)) for i in range(recipes)}
        if place < len(cuts) - 1:
            evidence |= {str(i): race.evidence(str(i), racers) for i in alive}
            dropped += [int(name) for name in race.decide(evidence) if int(name) not in dropped]
    front = front_mask(np.array([matrix.mean(axis=1) for matrix in values]).T)
    asked = {int(name): answers for name, answers in racers.items()}
    share = sum(sum(n) for n in cut.values()) / (recipes * sum(totals))
    return Result(asked, dropped, [recipe for recipe in dropped if front[recipe]], share)


def observed(asked: Mapping[int, Answers], dropped: Sequence[int]) -> Floats:
    """What a race shows in the end: the estimates of those that were asked everything; shape (recipes, objectives)."""
    return np.array([estimates(answers) for recipe, answers in asked.items() if recipe not in dropped])


def simulated(seed: int, recipes: int = 60, tasks: int = 1) -> list[Floats]:
    """Verdicts of recipes along and below a curved front, on questions that are hard for all or easy for all. A third
    are neighbours of another, within one standard error in both objectives.

    Args:
        tasks: of each objective, of unequal difficulty, interleaved in proportion.
    """
    generator = np.random.default_rng(seed)
    place, depth = generator.random(recipes), generator.exponential(0.15, recipes) * (generator.random(recipes) < 0.8)
    for recipe in range(0, recipes - 1, 3):
        place[recipe + 1] = place[recipe] + generator.normal(0, 0.01)
        depth[recipe + 1] = depth[recipe] + generator.normal(0, 0.01)
    rates = (0.4 + 0.5 * np.clip(place, 0, 1) - depth, 0.4 + 0.5 * np.sqrt(1 - np.clip(place, 0, 1) ** 2) - depth)
    return [_verdicts(generator, rate, documents, tasks) for rate, documents in zip(rates, (400, 200), strict=True)]


def _verdicts(generator: np.random.Generator, rate: Floats, documents: int, tasks: int) -> Floats:
    task = np.arange(documents) % tasks
    hard = generator.normal(0, 1, documents) + 0.5 * task
    luck = hard + generator.normal(0, 0.7, (len(rate), documents))
    right = (luck < np.quantile(luck, np.clip(rate, 0.01, 0.99))[:, None]).astype(float)
    order = np.concatenate([generator.permutation(np.flatnonzero(task == each)) for each in range(tasks)])
    turn = np.concatenate([(np.arange(n) + 0.5) / n for n in np.bincount(task)])
    return np.asarray(right[:, order[np.argsort(turn, kind="stable")]])
