"""What a search would do: its candidates, and the questions that they are evaluated on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.text import listed
from orchestrator.recipes.recipe import Source
from orchestrator.stages.open import Tasks
from tune.rungs import cut
from tune.space import SearchSpace
from tune.study import choose_sampler


@dataclass(frozen=True)
class SearchPlan:
    """A search's space, budget, rungs and sampler."""

    methods: dict[str, int]
    """Entry of the search space → number of its parameters."""
    fine_tuned: bool
    """Whether candidates are fine-tuned: a joint search."""
    budget: dict[str, float]
    """The limits that the sweep file sets: `candidates`, `questions`, `gpu_hours`."""
    candidates: int
    """Most candidates that the budget's `candidates` and `questions` allow."""
    rungs: list[int]
    """Number of questions that a candidate has answered after each rung."""
    first: list[tuple[str, int]]
    """Of the first rung, each task and its number of documents."""
    unbounded: dict[str, str]
    """Objective → why stopping early is not guaranteed to spare its best: which metric nothing bounds."""
    alpha: float
    """Bound on the probability that the race stops any recipe of the front, where every metric is bounded."""
    sampler: str
    """Optuna's sampler, and why it was chosen, in words."""


def plan_search(config: SweepConfig, sources: Mapping[str, Source], tasks: Tasks, recipes: int) -> SearchPlan:
    """Work out a search's budget, rungs and sampler.

    Args:
        recipes: number of recipes of the grid, parents included.
    """
    search = config.search
    assert search is not None, "the caller checks"
    objectives = {**config.objectives, **config.learned}
    suites = [suite for suite in (*tasks.suites, *tasks.learning) if suite.objective in objectives]
    rungs = cut(objectives, search, suites, tasks.lm)
    space = SearchSpace(config, sources)
    sizes = [rung.size for rung in rungs.rungs]
    candidates = search.budget.at_most(sizes[0], recipes)
    choice = choose_sampler(space, recipes + candidates, len(rungs.objectives))
    return SearchPlan(
        {label: len(space.names(label)) for label in space.entries},
        search.finetune is not None,
        search.budget.model_dump(exclude_none=True),
        candidates,
        sizes,
        [(suite.name, suite.documents) for suite in rungs.rungs[0].suites],
        rungs.unbounded,
        search.racing.alpha,
        f"{choice.name}, because {choice.why}",
    )


def describe_search(plan: SearchPlan) -> list[str]:
    """Describe the plan of a search in lines for a terminal."""
    budget = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in plan.budget.items())
    methods = ", ".join(f"{label} ({number})" for label, number in plan.methods.items())
    kind = "fine-tuned merges" if plan.fine_tuned else "merges"
    return [
        f"search     {budget}; {kind} by method (parameters): {methods}",
        f"             a candidate answers {', '.join(f'{size:,}' for size in plan.rungs)} questions rung by rung, "
        "unless it is stopped early,",
        f"             the first of them over {', '.join(f'{number:,} of {name}' for name, number in plan.first)},",
        f"             so {plan.candidates:,} candidates at most answer between "
        f"{plan.candidates * plan.rungs[0]:,} and {plan.candidates * plan.rungs[-1]:,}",
        f"             sampler: {plan.sampler}",
        f"             the race stops a recipe of the front with {100 * plan.alpha:g} % at most"
        + ("" if not plan.unbounded else f": not guaranteed for {listed(plan.unbounded)}, because nothing bounds it:"),
        *(f"               {why}" for why in plan.unbounded.values()),
    ]
