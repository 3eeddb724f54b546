"""Races over answers that are known beforehand, by the race scheduler's own order, test and decisions.

Without Ray, engines and a ledger: a rung's values are read off a matrix. The races are over simulated verdicts, over
the recorded landscape, and over text metrics that are made to mislead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from orchestrator.config.objectives import Objective
from orchestrator.config.search import Racing, Search, SearchBudget, Space
from orchestrator.config.workers import Workers
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Point, Recipe
from orchestrator.stats.estimates import Floats
from orchestrator.stats.front import front_mask
from orchestrator.stats.scores import Score
from tasks.evaluation.ranges import Ranges
from tune.arrangement import Arrangement, TaskPart, arrange
from tune.racing import DEFER_ABOVE, Answers
from tune.rungs import Rung, Rungs
from tune.scheduler import RaceScheduler
from tune.standings import Standing

SAME = 1e-9
"""Scores that differ by less are equal: the sums of a race are in another order."""


@dataclass(frozen=True)
class Task:
    """What all recipes score on a task's documents."""

    values: Floats
    """To be maximised; shape (recipes, documents)."""
    high: float = 1.0
    """The largest value that is known, infinite where none is."""


@dataclass(frozen=True)
class Setting:
    """The answers of all recipes, the grid's first."""

    objectives: Sequence[Sequence[Task]]
    """The tasks of each objective, whose mean it is."""
    grid: int
    """So many recipes are asked everything at the start."""

    @cached_property
    def means(self) -> Floats:
        """Shape (recipes, objectives)."""
        return np.stack([np.mean([task.values.mean(axis=1) for task in tasks], axis=0) for tasks in self.objectives], 1)

    @property
    def recipes(self) -> int:
        return len(self.means)

    @property
    def front(self) -> list[int]:
        """The recipes on the front that all questions show."""
        return [int(recipe) for recipe in np.flatnonzero(front_mask(np.round(self.means / SAME) * SAME))]


@dataclass
class Game:
    """One race: its scheduler, and the answers that it is played with."""

    setting: Setting
    order: Arrangement
    scheduler: RaceScheduler
    standings: list[Standing]
    whole: list[Answers]
    """Of each recipe, its values of all draws."""
    spent: int = 0
    """Draws that were answered."""
    curve: list[tuple[float, int]] = field(default_factory=list)
    """Share of all documents after which each recipe was asked everything, and its number."""

    def advance(self, recipe: int, defer_above: float, last: int | None = None) -> None:
        """Rung after rung, until the recipe is scored, stopped early or deferred, or on the last rung."""
        standing, shares = self.standings[recipe], self.scheduler.search.racing.rungs
        standing.status = RecipeStatus.PENDING if standing.status == RecipeStatus.DEFERRED else standing.status
        while standing.status == RecipeStatus.PENDING and standing.rung != last:
            ends = [self.order.until(shares[rung]) if rung >= 0 else 0 for rung in (standing.rung, standing.rung + 1)]
            before, until = ends
            standing.rung += 1
            self.spent += until - before
            numbers = [np.searchsorted(places, until) for places in self.places]
            standing.answers = tuple(own[:number] for own, number in zip(self.whole[recipe], numbers, strict=True))
            self.scheduler.decide(standing, defer_above)
        if standing.status == RecipeStatus.SCORED:
            self.curve.append((self.spent / (self.setting.recipes * self.order.size), recipe))

    @cached_property
    def places(self) -> list[Floats]:
        """Of each objective, its draws' places among all."""
        names = self.scheduler.rungs.objectives
        tasks = [[task for task in self.order.tasks if task.objective == name] for name in names]
        return [np.unique(np.concatenate([task.places for task in own])) for own in tasks]

    def estimates(self, recipe: int) -> tuple[float, ...]:
        """A recipe's score on each objective, over what it was asked."""
        until = self.order.until(self.scheduler.search.racing.rungs[self.standings[recipe].rung])
        found = []
        for name, tasks in zip(self.scheduler.rungs.objectives, self.setting.objectives, strict=True):
            raced = [task for task in self.order.tasks if task.objective == name]
            asked = [task.documents[: task.until(until)] for task in raced]
            found.append(np.mean([task.values[recipe, own].mean() for task, own in zip(tasks, asked, strict=True)]))
        return tuple(map(float, found))


@dataclass(frozen=True)
class Result:
    """What became of a race."""

    asked: dict[int, Answers]
    """Recipe → what it was asked in the end."""
    dropped: list[int]
    lost: list[int]
    """Dropped, though on the front that all questions show."""
    share: float
    """Of all documents, those that were asked."""
    curve: list[tuple[float, int]]


def race_all(setting: Setting, alpha: float = 0.05, rungs: Sequence[float] | None = None, seed: int = 0) -> Result:
    """Race recipes: the grid in full, the first rung of all, and then, the least evidence first, rung after rung."""
    game = start(setting, alpha, rungs or Racing().rungs, seed)
    recipes = range(setting.grid, setting.recipes)
    for recipe in recipes:
        game.advance(recipe, np.inf, last=0)
    for limit in (DEFER_ABOVE, np.inf):
        for recipe in sorted(recipes, key=lambda each: game.standings[each].evidence):
            game.advance(recipe, limit)
    dropped = [recipe for recipe, each in enumerate(game.standings) if each.status == RecipeStatus.STOPPED_EARLY]
    return Result(
        {recipe: each.answers for recipe, each in enumerate(game.standings)},
        dropped,
        [recipe for recipe in dropped if recipe in setting.front],
        game.spent / (setting.recipes * game.order.size),
        game.curve,
    )


def start(setting: Setting, alpha: float, rungs: Sequence[float], seed: int) -> Game:
    """Set up a race whose grid is scored."""
    names = [f"objective{k}" for k in range(len(setting.objectives))]
    parts = [
        TaskPart(name, [f"{name} {s} {i}" for i in range(task.values.shape[1])], 1 / len(tasks), _ranges(task))
        for name, tasks in zip(names, setting.objectives, strict=True)
        for s, task in enumerate(tasks)
    ]
    order = arrange(names, parts, seed)
    whole = [_answers(setting, order, recipe) for recipe in range(setting.recipes)]
    scheduler = _scheduler(order, names, alpha, rungs, setting)
    standings = [_standing(setting, recipe, names) for recipe in range(setting.recipes)]
    for each, own in zip(standings[: setting.grid], whole, strict=False):
        each.status, each.rung, each.answers = RecipeStatus.SCORED, len(rungs) - 1, own
    scheduler.standings.update({each.recipe.id: each for each in standings})
    game = Game(setting, order, scheduler, standings, whole)
    game.spent = setting.grid * order.size
    game.curve = [(game.spent / (setting.recipes * order.size), recipe) for recipe in range(setting.grid)]
    return game


def _ranges(task: Task) -> Ranges:
    documents = task.values.shape[1]
    why = "" if np.isfinite(task.high) else "nothing is known"
    return Ranges(
        np.ones((1, documents)), np.array([-np.inf if why else min(0.0, task.values.min())]), np.array([task.high]), why
    )


def _answers(setting: Setting, order: Arrangement, recipe: int) -> Answers:
    found = []
    for k, draws in enumerate(order.draws):
        own = np.zeros(len(draws.weights))
        raced = [task for task in order.tasks if task.objective == f"objective{k}"]
        for task, given in zip(raced, setting.objectives[k], strict=True):
            values = given.values[recipe, task.documents]
            mean = np.array([values.mean()])
            np.add.at(own, task.draws, task.values(values[None], mean, values)[0])
        found.append(own)
    return tuple(found)


def _standing(setting: Setting, recipe: int, names: Sequence[str]) -> Standing:
    made = Recipe("passthrough", (), None, {"recipe": recipe}, "float32", points=(Point("parent"),))
    scores = {name: Score(float(value), (), ()) for name, value in zip(names, setting.means[recipe], strict=True)}
    return Standing(made, None, None if recipe < setting.grid else recipe - setting.grid, scores=scores)


def _scheduler(
    order: Arrangement, names: Sequence[str], alpha: float, rungs: Sequence[float], setting: Setting
) -> RaceScheduler:
    search = Search(
        space=[Space.model_validate({"method": "linear", "alpha": {"low": 0.0, "high": 1.0}})],
        budget=SearchBudget(candidates=setting.recipes - setting.grid),
        racing=Racing(alpha=alpha, rungs=list(rungs)),
    )
    axes = {name: Objective(tasks=["simulated"]) for name in names}
    nothing = cast(Any, None)  # a decision reads no answers
    return RaceScheduler(
        search, Workers(), Rungs(axes, tuple(Rung(()) for _ in rungs), order), nothing, nothing, Path(), {},
        record=lambda result: None, log=lambda line: None,
    )  # fmt: skip


# -------------------------------------------------------------------- settings
def simulated(seed: int, recipes: int = 60, tasks: int = 1, grid: int = 10) -> Setting:
    """Verdicts of recipes along and below a curved front, on questions that are hard for all or easy for all. A third
    are neighbours of another, within one standard error in both objectives.

    Args:
        tasks: of each objective, of unequal difficulty and size.
    """
    generator = np.random.default_rng(seed)
    place, depth = generator.random(recipes), generator.exponential(0.15, recipes) * (generator.random(recipes) < 0.8)
    for recipe in range(0, recipes - 1, 3):
        place[recipe + 1] = place[recipe] + generator.normal(0, 0.01)
        depth[recipe + 1] = depth[recipe] + generator.normal(0, 0.01)
    rates = (0.4 + 0.5 * np.clip(place, 0, 1) - depth, 0.4 + 0.5 * np.sqrt(1 - np.clip(place, 0, 1) ** 2) - depth)
    objectives = []
    for rate, documents in zip(rates, (400, 200), strict=True):
        shares = np.arange(1, tasks + 1) / sum(range(1, tasks + 1))
        objectives.append(
            [Task(_verdicts(generator, rate, int(documents * share), 0.5 * task)) for task, share in enumerate(shares)]
        )
    return Setting(objectives, grid)


def _verdicts(generator: np.random.Generator, rate: Floats, documents: int, hardness: float) -> Floats:
    hard = generator.normal(0, 1, documents) + hardness
    luck = hard + generator.normal(0, 0.7, (len(rate), documents))
    return (luck < np.quantile(luck, np.clip(rate, 0.01, 0.99))[:, None]).astype(float)


@dataclass(frozen=True)
class TextRace:
    """A race over a generated text's metric in [0, 1] whose candidates beat the grid's best, but seem a little worse.

    On most documents a candidate is worse by a little; on a few it is better by much, and a race that has not met them
    cannot know that they exist. Which they are differs from candidate to candidate. In a second objective, candidates
    are plainly worse, so that only the text keeps them on the front.
    """

    sizes: tuple[int, ...]
    """Number of documents of each task; all weigh the same."""
    rare: int
    """Number of documents on which a candidate is much better, in one task."""
    candidates: int
    lead: float = 0.0003
    """How much better a candidate is on all questions together."""
    high: float = 1.0
    """The largest value that is known."""

    def setting(self, seed: int) -> Setting:
        """Draw the answers."""
        generator = np.random.default_rng(seed)
        base = [np.where(generator.random(n) < 0.5, 0.0, generator.beta(2, 5, n) * 0.6) for n in self.sizes]
        grid = [np.stack([values, np.maximum(values - 0.05, 0)]) for values in base]
        own = [self._candidate(generator, base) for _ in range(self.candidates)]
        text = [Task(np.concatenate([grid[t], [each[t] for each in own]]), self.high) for t in range(len(base))]
        verdicts = np.ones((2 + self.candidates, 200))
        verdicts[2:] = generator.permuted(np.tile(np.arange(200) < 80, (self.candidates, 1)), axis=1)
        return Setting([text, [Task(verdicts)]], 2)

    def _candidate(self, generator: np.random.Generator, base: Sequence[Floats]) -> list[Floats]:
        """Move a little from most documents to a few."""
        lucky = int(generator.integers(len(base)))
        found = [values.copy() for values in base]
        some = generator.choice(self.sizes[lucky], min(self.rare, self.sizes[lucky]), replace=False)
        found[lucky][some] = np.minimum(found[lucky][some] + 0.7, 1.0)
        gained = sum((a - b).mean() for a, b in zip(found, base, strict=True)) - self.lead * len(base)
        lost = [np.where(values > 0, values, 0.0) for values in base]
        lost[lucky][some] = 0.0
        share = gained / sum(values.mean() for values in lost)
        assert share <= 1, "the rare documents weigh more than all the others can lose"
        return [values - share * least for values, least in zip(found, lost, strict=True)]


def widened(setting: Setting) -> Setting:
    """The same setting with nothing known of the metrics."""
    return replace(setting, objectives=[[replace(task, high=np.inf) for task in own] for own in setting.objectives])
