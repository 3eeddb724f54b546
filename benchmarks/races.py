"""Races over answers that are known beforehand: simulated ones, and those of the recorded landscape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.config.search import Racing
from orchestrator.stats.estimates import Floats
from orchestrator.stats.front import front_mask
from tune.racing import DEFER_ABOVE, Answers, RaceTest


@dataclass(frozen=True)
class Result:
    asked: dict[int, Answers]
    """Recipe → what it was asked in the end."""
    dropped: list[int]
    lost: list[int]
    """Dropped, though on the front that all questions show."""
    share: float
    """Of all documents, those that were asked."""
    curve: list[tuple[float, int]]
    """Share of all documents after which each recipe was asked everything, and its number."""


def race_all(
    values: Sequence[Floats], alpha: float = 0.05, rungs: Sequence[float] | None = None, start: int = 1
) -> Result:
    """Race recipes: the grid in full, the first rung of all, and then, the least evidence first, rung after rung.

    Args:
        values: of each objective, shape (recipes, documents), in the race's order.
        start: so many are asked everything at the start (a grid).
    """
    recipes, totals = len(values[0]), tuple(matrix.shape[1] for matrix in values)
    cuts = [tuple(int(np.ceil(share * total)) for total in totals) for share in rungs or Racing().rungs]
    bounds = tuple(float((matrix.max(axis=0) - matrix.min(axis=0)).max()) for matrix in values)
    race = RaceTest(totals, bounds, alpha, recipes)
    means = np.array([matrix.mean(axis=1) for matrix in values]).T
    spent = 0
    rung, evidence, rivals = dict.fromkeys(range(recipes), -1), dict.fromkeys(range(recipes), 0.0), {}
    full: list[int] = []
    dropped: list[int] = []
    curve: list[tuple[float, int]] = []

    def go_on(recipe: int, until: float, last: int) -> None:
        """Rung after rung, while the evidence against the recipe is below a limit."""
        nonlocal spent
        if recipe not in rivals:
            front = [each for each, on in zip(full, front_mask(means[full]), strict=True) if on]
            rivals[recipe] = [tuple(matrix[each] for matrix in values) for each in front]
        while rung[recipe] < last and evidence[recipe] < until:
            rung[recipe] += 1
            spent += sum(cuts[rung[recipe]]) - sum(cuts[rung[recipe] - 1] if rung[recipe] else [0])
            own = tuple(matrix[recipe, :n] for matrix, n in zip(values, cuts[rung[recipe]], strict=True))
            evidence[recipe] = race.evidence(own, rivals[recipe])
            others = [evidence[each] for each in evidence if each != recipe]
            if rung[recipe] < len(cuts) - 1 and race.beaten(evidence[recipe], others):
                dropped.append(recipe)
                return
        if rung[recipe] == len(cuts) - 1:
            full.append(recipe)
            curve.append((spent / (recipes * sum(totals)), recipe))

    whole = len(cuts) - 1
    for recipe in range(recipes):
        rivals.update({recipe: []} if recipe < start else {})
        go_on(recipe, np.inf, whole if recipe < start else 0)
    for limit in (DEFER_ABOVE, np.inf):
        open_ = [recipe for recipe in range(recipes) if recipe not in full and recipe not in dropped]
        for recipe in sorted(open_, key=lambda each: evidence[each]):
            go_on(recipe, limit, whole)
    front = front_mask(means)
    asked = {i: tuple(m[i, :n] for m, n in zip(values, cuts[rung[i]], strict=True)) for i in range(recipes)}
    share = spent / (recipes * sum(totals))
    return Result(asked, dropped, [recipe for recipe in dropped if front[recipe]], share, curve)


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
