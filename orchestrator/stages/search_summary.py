"""The results of a search, from the standings of its race and the board of the held-out questions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import optuna
from optuna.trial import TrialState

from orchestrator.config.objectives import Objective
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.board import Board, Gain, HeldOutFloor, HeldOutVolumes, SearchResults, SearchRow
from orchestrator.stages.search import Race
from orchestrator.stats.estimates import Estimates, Floats
from orchestrator.stats.front import front_mask, hypervolume
from orchestrator.stats.scores import Score, estimates, interval, on_part
from orchestrator.stats.simultaneous import critical, may_be_by_part, may_be_on_front
from orchestrator.stats.volume import Interval, compare_volumes, draw_errors
from tune.scheduler import RaceScheduler
from tune.space import METHOD, SearchSpace
from tune.standings import Standing, parent_of
from tune.study import add_finished, choose_sampler

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
    answered = [each for each in scheduler.standings.values() if each.answers]
    scored = [each for each in answered if each.status == RecipeStatus.SCORED]
    worst = {name: _worst(race, k) for k, name in enumerate(scheduler.rungs.objectives)}
    reference = np.array([scheduler.point(worst[name])[k] for k, name in enumerate(worst)])
    resamplings = dict(zip([each.recipe.id for each in scored], _resamplings(scheduler, scored), strict=True))
    may_be = _may_be_on_front(
        scheduler, race.feasible, [each for each in answered if each.status != RecipeStatus.SCORED]
    )
    front = [each.recipe.id for each in race.front]
    best, gains = _best_compromises(race, reference, held_out)
    return SearchResults(
        sampler=f"{choice.name}, because {choice.why}",
        candidates=tuple(
            _candidate(s, scheduler, resamplings.get(s.recipe.id, np.nan), may_be.get(s.recipe.id, False))
            for s in answered
        ),
        reference={name: abs(float(value)) for name, value in zip(worst, reference, strict=True)},
        history=_history(scheduler, reference),
        grid=_volume(scheduler, [each for each in scored if each.number is None], reference),
        held_out=_held_out_volumes(race, worst, held_out),
        floors=_floors(race, held_out),
        unbounded=scheduler.unbounded,
        importance=importance(space, scheduler),
        front=tuple(front),
        confirmed=tuple(row.recipe.id for row in held_out.front if row.recipe.id in front),
        near=tuple(row.recipe.id for row in held_out.rows if row.near_front and row.recipe.id in front),
        infeasible=len(scored) - len(race.feasible),
        best=best,
        gains=gains,
    )


def _worst(race: Race, objective: int) -> Standing:
    """The parent with the worst score on an objective, on the search questions."""
    return min(race.parents, key=lambda parent: float(race.scheduler.point(parent)[objective]))


def _candidate(standing: Standing, scheduler: RaceScheduler, resamplings: float, may_be: bool) -> SearchRow:
    rungs = scheduler.rungs.rungs
    values = {name: score.value for name, score in standing.scores.items()}
    share = rungs[standing.rung].size / rungs[-1].size
    return SearchRow(standing.recipe, standing.number, standing.status, share, values, float(resamplings), may_be)


# -------------------------------------------------------------------- on the search questions
def _resamplings(scheduler: RaceScheduler, scored: Sequence[Standing]) -> Floats:
    """Share of resamplings of the questions in which each recipe is on the front; shape (recipes,)."""
    objectives = _estimates([each.scores for each in scored], scheduler.rungs.axes)
    points = np.stack([each.values for each in objectives], axis=1) + draw_errors(objectives)
    return np.asarray(np.mean([front_mask(draw) for draw in points], axis=0))


def _may_be_on_front(
    scheduler: RaceScheduler, scored: Sequence[Standing], partly: Sequence[Standing]
) -> dict[str, bool]:
    """Which recipes may be on the front, by id; with 95 % confidence, all that truly are.

    A candidate that answered a part of the questions is compared with the others on that part.
    """
    axes, level = scheduler.rungs.axes, 0.975  # of each of the two families, for 0.95 of both
    whole = may_be_on_front(_estimates([each.scores for each in scored], axes), level)
    leads: list[list[Estimates]] = []
    for candidate in partly:
        leads.append([])
        for name, axis in axes.items():
            own = replace(candidate.scores[name], weights=scored[0].scores[name].weights)
            others = [on_part(each.scores[name], own) for each in scored]
            found = estimates([*others, on_part(own, own)]) * axis.sign
            leads[-1].append(found[:-1] - found[[-1]])
    marks = [*whole, *may_be_by_part(leads, level)]
    return {each.recipe.id: bool(mark) for each, mark in zip([*scored, *partly], marks, strict=True)}


def _estimates(scores: Sequence[Mapping[str, Score]], axes: Mapping[str, Objective]) -> list[Estimates]:
    """The recipes' scores on each objective, to be maximised."""
    found = [estimates([each[name] for each in scores]) * axis.sign for name, axis in axes.items()]
    return found


def _volume(scheduler: RaceScheduler, standings: Sequence[Standing], reference: Floats) -> float:
    """Compute the hypervolume of recipes above the reference point; 0 for none."""
    return hypervolume(np.array([scheduler.point(each) for each in standings]), reference) if standings else 0.0


def _history(scheduler: RaceScheduler, reference: Floats) -> tuple[tuple[int, float], ...]:
    """List answers so far and hypervolume: of the grid alone, then after each proposal."""
    scored = [s for s in scheduler.standings.values() if s.number is None and s.status == RecipeStatus.SCORED]
    answers, history = 0, [(0, _volume(scheduler, scored, reference))]
    for standing in scheduler.proposals:
        answers += scheduler.answered(standing.recipe.id)
        scored += [standing] if standing.status == RecipeStatus.SCORED else []
        history.append((answers, _volume(scheduler, scored, reference)))
    return tuple(history)


# -------------------------------------------------------------------- on the held-out questions
def _held_out_scores(held_out: Board, standings: Iterable[Standing]) -> list[Mapping[str, Score]] | None:
    """The recipes' scores on the held-out questions; None where one has none."""
    rows = {row.recipe.id: row.scores for row in held_out.rows if row.status == RecipeStatus.SCORED}
    found = [rows.get(each.recipe.id) for each in standings]
    return None if None in found else [scores for scores in found if scores is not None]


def _held_out_volumes(race: Race, worst: Mapping[str, Standing], held_out: Board) -> HeldOutVolumes | None:
    """Compare the fronts of the search and of the grid on the held-out questions."""
    front, grid = race.front, race.grid_front
    standings = [*{each.recipe.id: each for each in (*front, *grid, *worst.values())}.values()]
    scores = _held_out_scores(held_out, standings)
    if scores is None or not grid:
        return None
    axes, places = race.scheduler.rungs.axes, {each.recipe.id: place for place, each in enumerate(standings)}
    reference = {name: places[each.recipe.id] for name, each in worst.items()}
    above = [each - each[[reference[name]]] for name, each in zip(axes, _estimates(scores, axes), strict=True)]
    first, second = (np.isin([*places], [each.recipe.id for each in group]) for group in (front, grid))
    return HeldOutVolumes(
        {name: (standings[place].recipe.names[-1], scores[place][name].value) for name, place in reference.items()},
        compare_volumes(above, first, second),
        bool((first == second).all()),
    )


def _floors(race: Race, held_out: Board) -> tuple[HeldOutFloor, ...]:
    """Compare the front's recipes with the constraints on the held-out questions, all at once."""
    found: list[tuple[Standing, str, Estimates]] = []
    for name, floor in race.scheduler.search.constraints.items():
        parent = next((each for each in race.parents if floor.parent and parent_of(each.recipe, floor.parent)), None)
        sign = race.scheduler.rungs.scored[name].sign
        for standing in race.front:
            scores = _held_out_scores(held_out, [standing, parent or standing])
            if scores is not None:
                own, limit = (estimates([each[name]]) * sign for each in scores)
                margin = own - limit * floor.factor(sign)
                margin = replace(margin, values=margin.values - sign * (floor.score or 0.0))
                found.append((standing, floor.words(name, sign), margin))
    normal = critical([margin for _, _, margin in found]) if found else 0.0
    ends = [margin.interval(normal) for _, _, margin in found]
    return tuple(
        HeldOutFloor(standing.recipe, words, Interval(float(margin.values[0]), float(low[0]), float(high[0])))
        for (standing, words, margin), (low, high) in zip(found, ends, strict=True)
    )


def _best_compromises(
    race: Race, reference: Floats, held_out: Board
) -> tuple[tuple[Recipe, Recipe] | None, tuple[Gain, ...]]:
    """Choose the best compromises of the search and of the grid, and compare them on the held-out questions.

    The best compromise is the recipe that alone dominates the largest volume. Both are chosen on the questions of the
    search and compared on the others, so that neither is flattered.
    """

    def best(group: Sequence[Standing]) -> Standing:
        return max(group, key=lambda each: _volume(race.scheduler, [each], reference))

    proposed = [each for each in race.front if each.number is not None]
    if not proposed or not race.grid_front:
        return None, ()
    pair = best(proposed), best(race.grid_front)
    recipes = pair[0].recipe, pair[1].recipe
    scores = _held_out_scores(held_out, pair)
    if scores is None:
        return recipes, ()
    ours, grid = scores
    return recipes, tuple(
        Gain(name, ours[name].value - grid[name].value, *interval(ours[name], grid[name]))
        for name in race.scheduler.rungs.axes
    )


def importance(space: SearchSpace, scheduler: RaceScheduler) -> dict[str, dict[str, float]]:
    """Compute the importance of parameters by fANOVA (Hutter et al. 2014): objective → parameter → share of variance.

    It is computed method by method, as methods have different parameters. Estimates of candidates that answered only a
    part of the questions count as they are.
    """
    # Here, because it imports scikit-learn, and every sweep imports this module.
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

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
