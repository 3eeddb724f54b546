"""Who is called better than a parent, who may be on the front, and what intervals of few questions cover."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtr

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Profile, RecipeStatus, Serving
from orchestrator.recipes.recipe import Point, Recipe, Source
from orchestrator.report.tables import differences
from orchestrator.results.board import Board, Row, mark_front
from orchestrator.stats.estimates import Floats
from orchestrator.stats.front import front_mask
from orchestrator.stats.scores import Score, TaskScore, estimates

Metric = Callable[[Floats, Floats], Floats]
"""From uniform numbers and the mean of each recipe to values of documents; shapes (recipes, documents), (recipes,
1)."""


def verdicts(uniform: Floats, means: Floats) -> Floats:
    return np.where(uniform < means, 1.0, 0.0)


def fractions(uniform: Floats, means: Floats) -> Floats:
    """Skewed values from 0 to 1, such as ROUGE's."""
    return np.asarray(betaincinv(2 * means, 2 * (1 - means), uniform))


def mostly_zero(uniform: Floats, means: Floats) -> Floats:
    """A value from 0 to 1 for some documents, 0 for all others."""
    share = 1.5 * means
    inner = np.clip(1 - uniform / share, 0, 1)
    return np.where(uniform < share, np.sqrt(inner), 0.0)  # the mean of beta(2, 1) is 2/3


def three_verdicts(uniform: Floats, means: Floats) -> Floats:
    """The mean of three verdicts that fall together by half."""
    levels = np.stack([means**1.5, means, 1 - (1 - means) * 1.0])
    return np.asarray((uniform < levels).mean(axis=0))


@dataclass(frozen=True)
class Setting:
    """Recipes of a sweep, the first two of them the parents, with their true means and how alike they answer."""

    means: Floats
    """Shape (recipes, objectives)."""
    documents: tuple[int, ...]
    """Of each task; every objective has tasks of its own of these sizes."""
    alike: float
    """Correlation of two recipes that are far apart on the line of ratios; neighbours answer more alike."""
    metric: Metric = verdicts


def draw(setting: Setting, generator: np.random.Generator) -> list[dict[str, Score]]:
    """Draw the questions of a sweep, and what each recipe answers: objective → score, recipe by recipe."""
    recipes, objectives = setting.means.shape
    apart = np.abs(np.subtract.outer(np.arange(recipes), np.arange(recipes))) / recipes
    correlations = setting.alike + (1 - setting.alike) * np.exp(-4 * apart)
    root = np.linalg.cholesky(correlations + 1e-9 * np.eye(recipes))
    found: list[dict[str, Score]] = [{} for _ in range(recipes)]
    for k in range(objectives):
        tasks = []
        for place, documents in enumerate(setting.documents):
            uniform = ndtr(root @ generator.standard_normal((recipes, documents)))
            values = setting.metric(uniform, setting.means[:, [k]])
            tasks.append([_task(f"task {k} {place}", own) for own in values])
        weights = (1 / len(tasks),) * len(tasks)
        for scores, own in zip(found, zip(*tasks, strict=True), strict=True):
            scores[f"objective{k}"] = Score(float(np.mean([task.value for task in own])), own, weights)
    return found


def _task(name: str, values: Floats) -> TaskScore:
    mean = float(values.mean())
    return TaskScore("", name, {"metric": mean}, mean, values - mean, values)


def board(scores: list[dict[str, Score]]) -> Board:
    """The board of a sweep whose first two recipes are the parents."""
    config = SweepConfig.model_validate(
        {
            "parents": {name: {"model": name} for name in ("a", "b")},
            "objectives": {n: {"tasks": [n]} for n in scores[0]},
        }
    )
    points = [Point("parent", (("name", name),)) for name in config.parents]
    points += [Point("linear", (("alpha", float(place)),)) for place in range(2, len(scores))]
    recipes = [
        Recipe("linear", ((Source(f"{place}", "m", "m"), {}),), None, {}, "float32", points=(point,))
        for place, point in enumerate(points)
    ]
    rows = [Row(recipe, RecipeStatus.SCORED, own, {}) for recipe, own in zip(recipes, scores, strict=True)]
    serving, profile = Serving("", None, (), 8, "", (), "a", ""), Profile("", "float32", 1, "")
    return Board(config, config.objectives, serving, profile, (), tuple(mark_front(config.objectives, rows)), {})


# -------------------------------------------------------------------- settings
def equal_recipes() -> Iterator[Setting]:
    """Nothing is better than anything."""
    for recipes, documents, alike, metric, mean in (
        (20, (300,), 0.3, verdicts, 0.6),
        (20, (300,), 0.97, verdicts, 0.6),
        (40, (600,), 0.9, verdicts, 0.8),
        (12, (20,), 0.5, verdicts, 0.5),
        (20, (40,), 0.8, verdicts, 0.7),
        (20, (120, 60, 12), 0.7, verdicts, 0.6),
        (20, (300,), 0.9, fractions, 0.2),
        (12, (30,), 0.5, fractions, 0.15),
        (20, (200,), 0.8, mostly_zero, 0.08),
        (20, (250,), 0.7, three_verdicts, 0.8),
    ):
        yield Setting(np.full((recipes, 2), mean), documents, alike, metric)


def known_fronts() -> Iterator[Setting]:
    """Lines of merges that bend outwards beside worse ones, clearly or hardly; one that is better; recipes at
    random."""
    line = np.linspace(0, 1, 6)
    bent = np.stack([0.75 - 0.3 * line, 0.45 + 0.3 * line], axis=1) + 0.2 * (line * (1 - line))[:, None]
    best = np.full((12, 2), 0.5)
    best[7] = 0.65
    cloud = np.random.default_rng(5).uniform(0.4, 0.75, (12, 2))
    for means in (np.concatenate([bent, bent - 0.12]), np.concatenate([bent, bent - 0.01]), best, cloud):
        for documents, alike, metric in (((100,), 0.5, verdicts), ((600,), 0.9, verdicts), ((300, 60), 0.7, fractions)):
            yield Setting(means, documents, alike, metric)


# -------------------------------------------------------------------- measures
def false_better(reports: int, generator: np.random.Generator) -> float:
    """Share of reports on equal recipes that call any of them better than a parent; the worst setting."""
    shares = []
    for setting in equal_recipes():
        tables = (differences(board(draw(setting, generator))) for _ in range(reports))
        shares.append(np.mean([any(row[3] == "better" for row in table.rows) for table in tables]))
    return float(max(shares))


def front_set(reports: int, generator: np.random.Generator) -> dict[str, float]:
    """How often the whole true front is on the front or near it (the worst setting), and the mean sizes of both."""
    covered, sizes, true_sizes = [], [], []
    for setting in known_fronts():
        true = front_mask(setting.means)
        found = [
            np.array([row.on_front or row.near_front for row in board(draw(setting, generator)).rows])
            for _ in range(reports)
        ]
        covered.append(np.mean([each[true].all() for each in found]))
        sizes.append(np.mean([each.sum() for each in found]))
        true_sizes.append(true.sum())
    return {
        "front_set_coverage": float(min(covered)),
        "front_set_size": float(np.mean(sizes)),
        "true_front_size": float(np.mean(true_sizes)),
    }


Shape = Callable[[np.random.Generator, tuple[int, int]], Floats]


def chosen(levels: Sequence[float], chances: Sequence[float]) -> tuple[Shape, float]:
    """Values with these chances, and their mean; what is left to 1 is 0."""
    every, odds = np.array([*levels, 0.0]), np.array([*chances, 1 - sum(chances)])
    return lambda g, shape: g.choice(every, shape, p=odds), float(every @ odds)


def sometimes(share: float, a: float, b: float) -> tuple[Shape, float]:
    """A value of a beta distribution for a share of the documents, 0 for all others; and their mean."""
    return lambda g, shape: np.where(g.random(shape) < share, g.beta(a, b, shape), 0.0), share * a / (a + b)


def averaged(verdicts: int, p: float) -> tuple[Shape, float]:
    """Means of several verdicts."""
    return lambda g, shape: g.binomial(verdicts, p, shape) / verdicts, p


def scores_of_few() -> list[tuple[Shape, float]]:
    """Values of documents, and their mean."""
    return [
        *(chosen([1.0], [p]) for p in (0.03, 0.15, 0.4, 0.7, 0.9, 0.98)),
        *(sometimes(1.0, a, b) for a, b in ((0.4, 4), (0.5, 6), (1, 12), (2, 5), (1, 1), (8, 1))),
        *(sometimes(share, 2, 2) for share in (0.05, 0.15, 0.35)),
        *(averaged(4, p) for p in (0.25, 0.6, 0.85, 0.96)),
        chosen([0.25, 0.5, 0.75, 1], [0.2, 0.1, 0.03, 0.02]),
        (lambda g, shape: g.lognormal(0, 1, shape), float(np.exp(0.5))),
    ]


def differences_of_few() -> list[tuple[Shape, float]]:
    """Differences of documents, and their mean."""
    flips = ((0.015, 0.015), (0.04, 0.04), (0.064, 0.016), (0.15, 0.0), (0.18, 0.12), (0.375, 0.125))
    return [
        *(chosen([1.0, -1.0], chances) for chances in flips),
        (lambda g, shape: g.normal(0.01, 0.05, shape), 0.01),
        (lambda g, shape: g.beta(0.5, 4, shape) - g.beta(0.5, 6, shape), 1 / 9 - 1 / 13),
        (lambda g, shape: g.laplace(0, 0.1, shape).clip(-1, 1), 0.0),
        *(sometimes(share, 1, 4) for share in (0.08, 0.2, 0.45)),
        *(
            chosen([1 / 3, 2 / 3, 1, -1 / 3], [share / 2, share / 8, share / 8, share / 4])
            for share in (0.1, 0.25, 0.5)
        ),
    ]


def small_sample_coverage(samples: int, generator: np.random.Generator) -> float:
    """Share of 95 % intervals that contain the truth, at 10, 20 and 40 documents; the worst of sizes and shapes."""
    covered = []
    for documents in (10, 20, 40):
        for shape, mean in scores_of_few():
            values = shape(generator, (samples, documents))
            low, high = estimates([_alone(own) for own in values]).interval()
            covered.append(np.mean((low <= mean) & (mean <= high)))
        for shape, mean in differences_of_few():
            values, base = shape(generator, (samples, documents)), np.zeros(documents)
            low, high = (estimates([_alone(own) for own in values]) - estimates([_alone(base)])).interval()
            covered.append(np.mean((low <= mean) & (mean <= high)))
    return float(min(covered))


def _alone(values: Floats) -> Score:
    task = _task("task", values)
    return Score(task.value, (task,), (1.0,))


def measure(quick: bool) -> dict[str, float]:
    return {
        "false_better": false_better(3 if quick else 200, np.random.default_rng(20260412)),
        **front_set(3 if quick else 80, np.random.default_rng(20260413)),
        "small_sample_coverage": small_sample_coverage(200 if quick else 8000, np.random.default_rng(20260411)),
    }
