"""The search: the grid is evaluated in full, then candidates race, then the front is confirmed on other questions.

    grid → answers → study → candidates, rung by rung → front → held-out questions → report

A candidate is a recipe that Optuna's study proposes. The race evaluates it rung by rung, each rung with more questions,
and stops it early when it is beaten (`tune`). Everything is derived from the ledger and from DIR/search/candidates
(the proposals, in their order). To resume is to run the same command.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.core.progress import say
from orchestrator.core.records import RecipeStatus
from orchestrator.core.text import count
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.board import Board
from orchestrator.stages.compute import Compute
from orchestrator.stages.evaluate import evaluate, naming_refused
from orchestrator.stages.open import Round, Sweep
from orchestrator.stages.record import record
from orchestrator.stages.score import is_complete, score
from orchestrator.stages.search_finetune import open_space, tidy, training_group
from tune.rungs import cut
from tune.scheduler import RaceScheduler
from tune.space import SearchSpace
from tune.standings import Standing, read_candidates


@dataclass(frozen=True)
class Race:
    """The state of a search, as its files and the ledger have it; made by `open_race`."""

    space: SearchSpace
    scheduler: RaceScheduler
    round: Round
    """The questions that the search compares on, with the recipes of the grid."""

    @property
    def has_begun(self) -> bool:
        """Whether candidates were proposed, and the parents that they are compared with are scored."""
        return bool(self.scheduler.proposals) and not self.unscored_parents

    @property
    def is_over(self) -> bool:
        """Whether the search has nothing left to do within its budget."""
        statuses = {each.status for each in self.scheduler.proposals}
        finishes = RecipeStatus.DEFERRED in statuses and self.scheduler.can_finish_deferred
        return self.scheduler.exhausted and RecipeStatus.PENDING not in statuses and not finishes

    @property
    def is_settled(self) -> bool:
        """Whether every candidate that was proposed has been decided on."""
        statuses = {each.status for each in self.scheduler.proposals}
        return (self.has_begun or self.scheduler.exhausted) and RecipeStatus.PENDING not in statuses

    @property
    def unscored_parents(self) -> list[Recipe]:
        """The parents without all answers, which no candidate can be compared with."""
        return [
            standing.recipe
            for standing in self.scheduler.standings.values()
            if standing.recipe.is_parent and standing.status != RecipeStatus.SCORED
        ]

    @property
    def parents(self) -> list[Standing]:
        """The parents with all answers."""
        return [each for each in self._scored if each.recipe.is_parent]

    @property
    def feasible(self) -> list[Standing]:
        """The recipes with all answers that keep the constraints."""
        return [each for each in self._scored if self.scheduler.feasible(each)]

    @property
    def front(self) -> list[Standing]:
        """The front of the grid and the candidates together, among those that keep the constraints."""
        return self.scheduler.front_of(self.feasible)

    @property
    def grid_front(self) -> list[Standing]:
        """The front of the grid, the parents included, among those that keep the constraints."""
        return self.scheduler.front_of(each for each in self.feasible if each.number is None)

    @property
    def finalists(self) -> list[Recipe]:
        """The recipes to evaluate on the held-out questions: the parents, the front and the grid's front."""
        chosen = [*self.parents, *self.front, *self.grid_front]
        return [*{each.recipe.id: each.recipe for each in chosen}.values()]

    @property
    def _scored(self) -> list[Standing]:
        return [each for each in self.scheduler.standings.values() if each.status == RecipeStatus.SCORED]


def open_race(sweep: Sweep, *, starts: bool = False) -> Race | None:
    """Read the search of a sweep from its files and the ledger; None where the sweep has none.

    Args:
        starts: whether the command may begin a search; otherwise a search that has no proposals yet is None too.

    Raises:
        UserError: a joint search's learning task has too few training examples, or as `read_candidates`.
    """
    config, layout = sweep.config, sweep.layout
    if config.search is None or not (starts or layout.proposals()):
        return None
    space = open_space(sweep)
    standings = {recipe.id: Standing(recipe, None, None) for recipe in sweep.recipes}
    candidates, left_out = read_candidates(layout.proposals(), space)
    if left_out:
        say(f"{left_out} earlier candidates are merges of other weights than the parents have now: left out")
    for standing in candidates:
        standings.setdefault(standing.recipe.id, standing)
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
    """Read the scores of all recipes with answers; candidates whose answers are not those of their note race again.

    So do those of a race whose questions were in another order; all that they have answered counts.
    """
    scheduler, again = race.scheduler, 0
    last = len(scheduler.rungs.rungs) - 1
    for recipe_id in scheduler.ledger.ahead(scheduler.standings):
        standing = scheduler.standings[recipe_id]
        if standing.rung == last and standing.answers:
            continue  # already read by this command
        is_full = standing.number is None or standing.status in (RecipeStatus.SCORED, RecipeStatus.UNSCORED)
        wanted = last if is_full else standing.rung
        if wanted < 0 or standing.status in (RecipeStatus.INVALID, RecipeStatus.FAILED):
            continue
        if scheduler.ledger.missing(recipe_id, scheduler.rungs.rungs[wanted].questions, scheduler.workers):
            again += standing.number is not None and standing.rung >= 0
            standing.status, standing.rung = RecipeStatus.PENDING, -1
            continue
        scheduler.read(standing, wanted)
        if is_full:
            standing.status = RecipeStatus.SCORED if standing.answers else RecipeStatus.UNSCORED
    if again:
        say(
            f"{count(again, 'candidate')} answered other questions than come first in the race's order now: they race "
            "again with the search, and what they have answered counts"
        )


def search(sweep: Sweep, race: Race, compute: Compute) -> None:
    """Evaluate the grid, race candidates against it, and evaluate the front on the held-out questions.

    All of it runs on the same engines. With nothing left to do, nothing is started.

    Raises:
        UserError: a parent has no score, or as `evaluate`.
        OSError, StorageError: as `evaluate`.
    """
    evaluate(sweep, race.round, compute)
    read_standings(race)
    if compute.is_exhausted():
        return
    if unscored := race.unscored_parents:
        reason = race.scheduler.standings[unscored[0].id].reason
        raise UserError(
            f"{unscored[0].label} has no score, and a search compares with its parents; "
            + (reason or f"{sweep.layout.failure(unscored[0].id)} says why; the same command tries again")
        )
    for standing in race.scheduler.proposals:
        if standing.status == RecipeStatus.FAILED:
            standing.status = RecipeStatus.PENDING  # tried again by each command that searches
    if not race.is_over:
        make_private(sweep.layout.candidates)
        pool = compute.pool(race.scheduler.candidates)
        files, group = sweep.layout, training_group(sweep)
        from tune.run import run_search  # a guard: Ray Tune takes a second, and every sweep imports this module

        with naming_refused(race.round):
            run_search(
                race.scheduler, race.space, pool, files.study, files.ray_tune, group=group, stop=compute.is_exhausted
            )
    if compute.is_exhausted():
        return
    finalists = race.finalists
    evaluate(sweep, sweep.held_out.of(finalists), compute)
    if sweep.config.joint:
        tidy(sweep, race.space, race.scheduler, {recipe.id for recipe in finalists})


# -------------------------------------------------------------------- results
def race_board(sweep: Sweep, race: Race | None) -> Board:
    """Score the sweep's recipes and, where a search has begun, its candidates, on the questions of the search."""
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


def confirmed_board(sweep: Sweep, race: Race | None) -> Board | None:
    """Score the finalists on the held-out questions; None where no search has begun."""
    if race is None or not race.has_begun:
        return None
    return score(sweep, sweep.held_out.of(race.finalists))


def is_ready(sweep: Sweep, race: Race | None) -> bool:
    """Whether all recipes that fine-tuning's starting points are chosen among are evaluated."""
    if sweep.config.search is not None and (race is None or not race.is_settled):
        return False
    return is_complete(sweep, sweep.grid)
