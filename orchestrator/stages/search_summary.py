"""The results of a search, from the standings of its race and the board of the held-out questions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.board import Board, Gain, SearchResults, SearchRow
from orchestrator.stages.search import Race
from orchestrator.stats.estimates import Floats
from orchestrator.stats.front import front_mask, hypervolume
from orchestrator.stats.scores import interval
from tune.racing import estimates, front_of, resampled
from tune.scheduler import RaceScheduler
from tune.space import METHOD, SearchSpace
from tune.standings import Standing
from tune.study import add_finished, choose_sampler

DRAWS = 1000
"""Draws of the bootstrap over the questions."""
ENOUGH = 10
"""Number of a method's candidates from which on the importance of its parameters is reported."""


def summarise(race: Race, held_out: Board) -> SearchResults:
    """Summarise a search for the report.

    Args:
        race: one that has begun.
        held_out: the scores of the finalists on the held-out questions.
    """
    space, scheduler = race.space, race.scheduler
    choice = choose_sampler(space, scheduler.candidates, len(scheduler.rungs.objectives))
    answered = [s for s in scheduler.standings.values() if s.answers]
    scored = {s.recipe.id: s for s in answered if s.status == RecipeStatus.SCORED}
    parents = [s for s in scored.values() if s.recipe.points[0].method == "parent"]
    reference = np.min([estimates(s.answers) for s in parents], axis=0)
    draws = resampled({s.recipe.id: s.answers for s in answered}, scheduler.rungs.documents(-1), DRAWS)
    on_front = np.mean([front_mask(draw) for draw in draws], axis=0)
    volumes = [hypervolume(draw[[s.status == RecipeStatus.SCORED for s in answered]], reference) for draw in draws]
    feasible = {key: s for key, s in scored.items() if scheduler.feasible(s)}
    front = front_of({key: s.answers for key, s in feasible.items()})
    best, gains = _best_compromises(feasible, front, reference, held_out)
    return SearchResults(
        sampler=f"{choice.name}, because {choice.why}",
        candidates=tuple(_candidate(s, scheduler, float(p)) for s, p in zip(answered, on_front, strict=True)),
        reference={name: abs(float(value)) for name, value in zip(scheduler.rungs.objectives, reference, strict=True)},
        history=_history(scheduler, reference),
        grid=_volume([s for s in scored.values() if s.number is None], reference),
        interval=(float(np.quantile(volumes, 0.025)), float(np.quantile(volumes, 0.975))),
        importance=importance(space, scheduler),
        front=tuple(front),
        confirmed=tuple(row.recipe.id for row in held_out.front if row.recipe.id in front),
        near=tuple(row.recipe.id for row in held_out.rows if row.near_front and row.recipe.id in front),
        infeasible=len(scored) - len(feasible),
        best=best,
        gains=gains,
    )


def _candidate(standing: Standing, scheduler: RaceScheduler, probability: float) -> SearchRow:
    """Summarise one recipe; `probability` is that of being on the front."""
    share = sum(map(len, standing.answers)) / sum(scheduler.rungs.documents(-1))
    values = {name: score.value for name, score in standing.scores.items()}
    return SearchRow(standing.recipe, standing.number, standing.status, share, values, probability)


def _volume(standings: Sequence[Standing], reference: Floats) -> float:
    """Compute the hypervolume of recipes above the reference point; 0 for none."""
    return hypervolume(np.array([estimates(s.answers) for s in standings]), reference) if standings else 0.0


def _history(scheduler: RaceScheduler, reference: Floats) -> tuple[tuple[int, float], ...]:
    """List answers so far and hypervolume: of the grid alone, then after each proposal."""
    scored = [s for s in scheduler.standings.values() if s.number is None and s.status == RecipeStatus.SCORED]
    answers, history = 0, [(0, _volume(scored, reference))]
    for standing in scheduler.proposals:
        answers += scheduler.answered(standing.recipe.id)
        scored += [standing] if standing.status == RecipeStatus.SCORED else []
        history.append((answers, _volume(scored, reference)))
    return tuple(history)


def _best_compromises(
    feasible: Mapping[str, Standing], front: Sequence[str], reference: Floats, held_out: Board
) -> tuple[tuple[Recipe, Recipe] | None, tuple[Gain, ...]]:
    """Choose the best compromises of the search and of the grid, and compare them on the held-out questions.

    The best compromise is the recipe that alone dominates the largest volume. Both are chosen on the questions of the
    search and compared on the others, so that neither is flattered.
    """

    def best(keys: Sequence[str]) -> Recipe:
        return feasible[max(keys, key=lambda key: _volume([feasible[key]], reference))].recipe

    proposed = [key for key in front if feasible[key].number is not None]
    rows = {row.recipe.id: row for row in held_out.rows if row.status == RecipeStatus.SCORED}
    grid_front = front_of({key: s.answers for key, s in feasible.items() if s.number is None})
    if not proposed or not grid_front:
        return None, ()
    pair = best(proposed), best(grid_front)
    if any(recipe.id not in rows for recipe in pair):
        return pair, ()
    ours, grid = (rows[recipe.id].scores for recipe in pair)
    gains = [Gain(name, ours[name].value - grid[name].value, *interval(ours[name], grid[name])) for name in ours]
    return pair, tuple(gains)


def importance(space: SearchSpace, scheduler: RaceScheduler) -> dict[str, dict[str, float]]:
    """Compute the importance of parameters by fANOVA (Hutter et al. 2014): objective → parameter → share of variance.

    It is computed method by method, as methods have different parameters. Estimates of candidates that answered only a
    part of the questions count as they are.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: dict[str, dict[str, float]] = {name: {} for name in scheduler.rungs.objectives}
    for label in space.entries:
        study = optuna.create_study(directions=["maximize"] * len(found))
        for standing in scheduler.proposals:
            params = space.params_of(standing.candidate) if standing.candidate and standing.scores else None
            if params is not None and params.get(METHOD, label) == label:
                add_finished(study, space, params, scheduler.result_of(standing), "tpe")
        trials = study.get_trials(states=[TrialState.COMPLETE])
        names = space.names(label)
        for k, objective in enumerate(found):
            if len(trials) >= ENOUGH and len({trial.values[k] for trial in trials}) > 1 and len(names) > 1:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found[objective] |= get_param_importances(
                        study,
                        evaluator=FanovaImportanceEvaluator(seed=0),
                        params=names,
                        target=lambda trial, k=k: trial.values[k],
                    )
    return found
