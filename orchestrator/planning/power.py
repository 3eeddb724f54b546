"""Which differences a sweep's comparisons can show, and how many questions would show a wanted one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.config.objectives import Objective
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import RecipeStatus
from orchestrator.core.text import listed
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.board import Board
from orchestrator.stages.open import Tasks
from orchestrator.stats.estimates import NORMAL
from orchestrator.stats.power import DISCORDANCE, Design, Unlike, detectable, family_normal, times_needed
from orchestrator.stats.scores import estimates, task_weights
from tasks.evaluation.suites import SuiteTask


@dataclass(frozen=True)
class TaskNeed:
    """How many documents of a task show a wanted difference, at the present mix of tasks."""

    task: str
    documents: int
    """Those that the sweep evaluates."""
    needed: int
    available: int
    """Those that the data set has on this side."""


@dataclass(frozen=True)
class PowerPlan:
    """Which difference the comparisons of one objective show with a probability of 80 %."""

    objective: str
    held_out: bool
    """Whether it is on the questions that a search never sees."""
    documents: int
    questions: int
    """Different questions among them."""
    basis: str | None
    """How unlike two recipes' answers are taken to be, in words; None where it is not known."""
    one: float | None
    """Shown by one comparison; None where it is not known, or no difference is."""
    all: float | None
    """Shown by each of all comparisons at once."""
    comparisons: int
    """The differences between recipes and parents in all objectives."""
    wanted: float | None
    """The difference that is asked for."""
    needs: list[TaskNeed]
    """For all comparisons at once; empty where none is asked for, or no number of questions would show it."""
    needed_by_one: int | None
    """Documents of all tasks that one comparison needs for it; None as `needs`."""


def plan_power(
    config: SweepConfig, tasks: Tasks, recipes: Sequence[Recipe], wanted: float | None, answers: Board | None
) -> list[PowerPlan]:
    """Work out what the comparisons of each objective can show.

    Args:
        wanted: a difference to find the number of questions for.
        answers: a sweep with answers to the same objectives, which say how unlike recipes answer.
    """
    known = _unlike(answers) if answers else {}
    parents = sum(recipe.is_parent for recipe in recipes)
    comparisons = (len(recipes) - 1) * parents * len(config.objectives)
    rounds = [(config.objectives, tasks.suites, False), (config.held_out, tasks.held_out, True)]
    return [
        _plan(
            name,
            objective,
            [suite for suite in suites if suite.objective == name],
            held_out=held_out,
            unlike=known.get(name),
            comparisons=comparisons,
            wanted=wanted,
        )
        for objectives, suites, held_out in rounds
        for name, objective in objectives.items()
        if name in config.objectives
    ]


def _plan(
    name: str,
    objective: Objective,
    suites: Sequence[SuiteTask],
    *,
    held_out: bool,
    unlike: Unlike | None,
    comparisons: int,
    wanted: float | None,
) -> PowerPlan:
    numbers = [np.array([*suite.cluster_of.values()], np.int64) for suite in suites]
    weights = task_weights(objective, [suite.share for suite in suites], [suite.documents for suite in suites])
    design, normal = Design.of(weights, numbers), family_normal(comparisons)
    basis = None
    if unlike is None and all(map(_gives_verdicts, suites)):
        unlike, basis = Unlike(DISCORDANCE), f"a discordance of {DISCORDANCE:.0%}, assumed"
    elif unlike is not None and unlike.verdicts:
        basis = f"a discordance of {unlike.variance:.1%}, that of the answers"
    elif unlike is not None:
        basis = f"a standard deviation of {math.sqrt(unlike.variance):.3g} between the answers to a question"
    documents = sum(suite.documents for suite in suites)
    at_once, alone = (times_needed(design, unlike, wanted, n) if unlike and wanted else None for n in (normal, NORMAL))
    return PowerPlan(
        objective=name,
        held_out=held_out,
        documents=documents,
        questions=len(np.unique(np.concatenate(numbers))),
        basis=basis,
        one=detectable(design, unlike) if unlike else None,
        all=detectable(design, unlike, normal) if unlike else None,
        comparisons=comparisons,
        wanted=wanted,
        needs=_needs(suites, at_once),
        needed_by_one=None if alone is None else math.ceil(alone * documents),
    )


def _needs(suites: Sequence[SuiteTask], times: float | None) -> list[TaskNeed]:
    if times is None:
        return []
    return [
        TaskNeed(suite.name, suite.documents, math.ceil(times * suite.documents), suite.available) for suite in suites
    ]


def _gives_verdicts(suite: SuiteTask) -> bool:
    """Whether every metric of a task's score is right or wrong for each document, as far as its name says."""
    return all(
        metric == "exact_match" or metric.startswith("acc") or metric.endswith("acc") for metric, _ in suite.metrics
    )


def _unlike(board: Board) -> Mapping[str, Unlike]:
    """How unlike the answers of a merge and a parent are in each objective: the median over all such pairs."""
    rows = [row for row in board.rows if row.status == RecipeStatus.SCORED]
    parents = [place for place, row in enumerate(rows) if row.method == "parent"]
    found = {}
    for name in board.objectives if parents and len(rows) > 1 else ():
        scores = estimates([row.scores[name] for row in rows])
        parts = rows[0].scores[name]
        spread = Design.of(parts.weights, [task.clusters for task in parts.tasks]).spread
        variances = np.concatenate([np.delete((scores - scores[[p]]).variances, p) for p in parents])
        variance = float(np.median(variances)) / spread
        if variance > 0:
            verdicts = all(np.isin(task.documents, (0.0, 1.0)).all() for task in parts.tasks)
            found[name] = Unlike(variance, verdicts)
    return found


def describe_power(plans: Sequence[PowerPlan]) -> list[str]:
    """Describe what comparisons can show in lines for a terminal."""
    lines = []
    for plan in plans:
        name = f"{plan.objective} (held out)" if plan.held_out else plan.objective
        lines.append(f"{name}: {_shown(plan)}")
        if plan.wanted and plan.basis:
            lines.append(f"{plan.wanted:g} {_needed(plan)}")
    return [f"power      {line}" if not place else f"             {line}" for place, line in enumerate(lines)]


def _shown(plan: PowerPlan) -> str:
    if plan.basis is None:
        return "what can be shown is not known before answers say how unlike recipes are (--answers names their folder)"
    if plan.one is None:
        return f"no difference can be shown with {plan.questions:,} questions; {plan.basis}"
    every = "no difference" if plan.all is None else f"{plan.all:.3f}"
    return (
        f"one comparison shows a difference of {plan.one:.3f} with 80 % probability, {plan.comparisons:,} at once "
        f"{every}; {plan.questions:,} questions, {plan.basis}"
    )


def _needed(plan: PowerPlan) -> str:
    if not plan.needs:
        return "is shown by no number of questions that can be worked out"
    needed, documents = (sum(getattr(need, key) for need in plan.needs) for key in ("needed", "documents"))
    short = [need for need in plan.needs if need.needed > need.available]
    times = f"{needed / documents:.2g} times as many"
    words = (
        f"would need {plan.needed_by_one:,} documents in one comparison, {needed:,} ({times}) among "
        f"{plan.comparisons:,} at once"
    )
    if not short:
        return f"{words}; the data sets have them"
    lacking = listed(f"{need.available:,} of {need.needed:,} in {need.task}" for need in short)
    return f"{words}; the data sets have {lacking}"
