"""The search: the grid in full, then candidates that race, then the front on questions it was not chosen by.

    grid → answers → study → candidates, rung by rung → front → held-out questions → report

Everything is derived from the ledger and from DIR/search/candidates (the proposals, in their order). To resume is to
run the same command.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.core.progress import say
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.board import Board
from orchestrator.stages.compute import Compute
from orchestrator.stages.evaluate import evaluate
from orchestrator.stages.open import Round, Sweep
from orchestrator.stages.record import record
from orchestrator.stages.score import is_complete, score
from orchestrator.stages.search_finetune import open_space, tidy, training_group
from tune.racing import front_of
from tune.run import run_search
from tune.rungs import cut
from tune.scheduler import RaceScheduler
from tune.space import SearchSpace
from tune.standings import Standing, read_notes


@dataclass(frozen=True)
class Race:
    """A search as its files and the ledger know it."""

    space: SearchSpace
    scheduler: RaceScheduler
    round: Round
    """The questions; its recipes are the grid's."""

    @property
    def has_begun(self) -> bool:
        """Whether candidates were proposed, and the parents that they are measured against have their scores."""
        return bool(self.scheduler.proposals) and not self.unscored_parents

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent and no candidate is under way."""
        return self.scheduler.exhausted and all(s.status != RecipeStatus.PENDING for s in self.scheduler.proposals)

    @property
    def unscored_parents(self) -> list[Recipe]:
        return [
            standing.recipe
            for standing in self.scheduler.standings.values()
            if standing.recipe.points[0].method == "parent" and standing.status != RecipeStatus.SCORED
        ]

    def finalists(self) -> list[Recipe]:
        """Recipes for the held-out questions: the front of all, the front of the grid (both of those that keep the
        constraints), and the parents."""
        full = {key: s for key, s in self.scheduler.standings.items() if s.status == RecipeStatus.SCORED}
        chosen = [key for key, s in full.items() if s.recipe.points[0].method == "parent"]
        kept = {key: s for key, s in full.items() if self.scheduler.feasible(s)}
        for group in (kept, {key: s for key, s in kept.items() if s.number is None}):
            chosen += front_of({key: s.answers for key, s in group.items()})
        return [full[key].recipe for key in dict.fromkeys(chosen)]


def open_race(sweep: Sweep, *, starts: bool = False) -> Race | None:
    """The search of a sweep with what is known of it; None where there is none.

    Args:
        starts: whether a search may begin now; else one counts that has begun before.

    Raises:
        UserError: a joint search's learning task has too few training examples.
    """
    config, layout = sweep.config, sweep.layout
    if config.search is None or not (starts or layout.proposals()):
        return None
    space = open_space(sweep)
    standings = {recipe.id: Standing(recipe, None, None) for recipe in sweep.recipes}
    for note in read_notes(layout.proposals()):
        recipe = space.recipe(note["params"])
        standings.setdefault(recipe.id, Standing(recipe, **note))
    searched = sweep.searched
    rungs = cut(searched.objectives, config.search, searched.suites, sweep.tasks.lm)
    scheduler = RaceScheduler(
        config.search, config.workers, rungs, sweep.tasks.lm, sweep.ledger, layout.candidates, standings,
        record=lambda result: record(sweep, layout, result), log=say,
    )  # fmt: skip
    race = Race(space, scheduler, searched)
    read_standings(race)
    return race


def read_standings(race: Race) -> None:
    """Scores of what is answered; a candidate whose answers are no longer what its note says is raced again."""
    scheduler = race.scheduler
    last = len(scheduler.rungs.rungs) - 1
    for recipe_id in scheduler.ledger.ahead(scheduler.standings):
        standing = scheduler.standings[recipe_id]
        if standing.rung == last and standing.answers:
            continue  # read before in this command
        is_full = standing.number is None or standing.status == RecipeStatus.SCORED
        wanted = last if is_full else standing.rung
        if wanted < 0 or standing.status in (RecipeStatus.INVALID, RecipeStatus.FAILED):
            standing.status = RecipeStatus.PENDING if standing.status == RecipeStatus.FAILED else standing.status
            continue
        if scheduler.ledger.missing(recipe_id, scheduler.rungs.rungs[wanted].questions, scheduler.workers):
            standing.status, standing.rung = RecipeStatus.PENDING, -1
            continue
        scheduler.read(standing, wanted)
        if standing.number is None:
            standing.status = RecipeStatus.SCORED


def search(sweep: Sweep, race: Race, compute: Compute) -> None:
    """Evaluate the grid, race candidates against it, and evaluate the front on the held-out questions, all on the same
    engines. With nothing left to do, nothing is started.

    Raises:
        UserError: a parent has no score, or what `evaluate` raises.
    """
    evaluate(sweep, race.round, compute)
    read_standings(race)
    if compute.is_exhausted():
        return
    if unscored := race.unscored_parents:
        raise UserError(
            f"{unscored[0].label} has no score, and a search is measured against its parents; "
            f"{sweep.layout.failure(unscored[0].id)} says why; the same command tries again"
        )
    if not race.is_over:
        make_private(sweep.layout.candidates)
        pool = compute.pool(race.scheduler.candidates)
        group = training_group(sweep)
        run_search(race.scheduler, race.space, pool, sweep.layout.search, group=group, stop=compute.is_exhausted)
    if compute.is_exhausted():
        return
    finalists = race.finalists()
    evaluate(sweep, sweep.held_out.of(finalists), compute)
    if sweep.config.joint:
        tidy(sweep, race.space, race.scheduler, {recipe.id for recipe in finalists})


# -------------------------------------------------------------------- what came of it
def race_board(sweep: Sweep, race: Race | None) -> Board:
    """The sweep's recipes, and the candidates of its search where one has begun, on the questions that were searched
    on."""
    if race is None or not race.has_begun:
        return score(sweep, sweep.grid)
    standings = race.scheduler.standings
    board = score(sweep, race.round.of([standing.recipe for standing in standings.values()]))
    partial = (RecipeStatus.STOPPED_EARLY, RecipeStatus.DEFERRED)
    rows = tuple(
        dataclasses.replace(row, status=status) if (status := standings[row.recipe.id].status) in partial else row
        for row in board.rows
    )
    return dataclasses.replace(board, rows=rows)


def confirmed_board(sweep: Sweep, race: Race) -> Board:
    """The finalists on the held-out questions."""
    make_private(sweep.layout.confirmed.root)
    return score(sweep, sweep.held_out.of(race.finalists()))


def is_ready(sweep: Sweep, race: Race | None) -> bool:
    """Whether all that fine-tuning's starting points are chosen among is evaluated."""
    return is_complete(score(sweep, sweep.grid)) and (race is None or race.is_over)
