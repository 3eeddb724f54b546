"""`mergefront search`: the grid in full, then candidates that race, then the front on questions it was not chosen by.

    grid → answers → study → candidates, rung by rung → front → held-out questions → report

Everything is derived from the ledger and from DIR/search/candidates (the proposals, in their order). To go on is to run
the same command.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.load import load_config
from orchestrator.config.published import Published
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.core.progress import Progress, say
from orchestrator.core.records import Block, RecipeStatus
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.board import Board
from orchestrator.results.heartbeat import driving
from orchestrator.results.leaderboard import write_board
from orchestrator.results.lock import locked
from orchestrator.results.manifest import write_questions
from orchestrator.stages.evaluate import engines, keep, open_blocks, recording, worker_spec
from orchestrator.stages.open import Sweep, open_sweep
from orchestrator.stages.publish import publish
from orchestrator.stages.score import make_board
from orchestrator.stages.search_finetune import open_space, tidy, training_group, with_learning

WORKERS = 1000
"""At most, if there is room for them: how much work there will be is not known beforehand."""

if TYPE_CHECKING:
    from cluster.pool import Pool
    from tune.scheduler import RaceScheduler
    from tune.space import SearchSpace


def run_search(path: Path, out: Path) -> Board:
    """Search, or go on with a search, and write its report.

    Raises:
        UserError: the sweep file has no search or leaves no questions to confirm with, or what `run_sweep` raises.
        KeyboardInterrupt: interrupted; all finished blocks are stored.
    """
    config = load_config(path)
    check(config, path)
    with locked(out), driving(out):
        sweep = open_sweep(config, out)
        learning = with_learning(sweep)
        confirm, space = confirming(learning), open_space(learning)
        write_questions(out, {"sweep": learning.suites, "confirm": confirm.suites})
        work(learning, open_race(learning, space), confirm, space)
        return publish_search(sweep)


def check(config: SweepConfig, path: Path) -> None:
    """A search needs its section, and held-out questions for every axis.

    Raises:
        UserError: one is missing.
    """
    if config.search is None:
        raise UserError(f"{path}: has no search section; add one (examples/search.yaml), or use `mergefront run`")
    named = {f"objectives.{name}": objective for name, objective in config.objectives.items()}
    learned = {f"finetune.tasks.{name}": objective for name, objective in config.learned.items()}
    for where, objective in {**named, **learned}.items():
        if objective.front and objective.split != "search":
            raise UserError(
                f"{where}.split: is {objective.split}, but a search is confirmed on questions that it never "
                "saw; write split: search (the others are then asked of the final front)"
            )


# -------------------------------------------------------------------- what there is
def open_race(sweep: Sweep, space: SearchSpace) -> RaceScheduler:
    """The race as the ledger knows it."""
    from tune.rungs import cut
    from tune.scheduler import RaceScheduler
    from tune.standings import Standing, stored

    config = sweep.config
    assert config.search is not None
    folder = make_private(sweep.out / "search" / "candidates")
    standings = {recipe.id: Standing(recipe, None, None) for recipe in sweep.recipes}
    for note in stored(folder):
        recipe = space.recipe(note["params"])
        note["rivals"] = None if note["rivals"] is None else tuple(note["rivals"])
        standings.setdefault(recipe.id, Standing(recipe, **note))
    return RaceScheduler(
        config.search, config.workers, cut(config, sweep.suites, sweep.lm), sweep.lm,
        sweep.ledger, folder, standings, keep=lambda result: keep(sweep, result), log=say,
    )  # fmt: skip


def read_standings(referee: RaceScheduler) -> None:
    """Scores of what is answered; a candidate whose answers are no longer what its note says is raced again."""
    for recipe_id in referee.ledger.ahead(referee.standings):
        standing = referee.standings[recipe_id]
        last = len(referee.rungs.rungs) - 1
        wanted = last if standing.number is None or standing.status == RecipeStatus.SCORED else standing.rung
        if wanted < 0 or standing.status in (RecipeStatus.INVALID, RecipeStatus.FAILED):
            if standing.status == RecipeStatus.FAILED:
                standing.status = RecipeStatus.PENDING
            continue
        if referee.ledger.missing(standing.recipe.id, referee.rungs.rungs[wanted].questions, referee.workers):
            standing.status, standing.rung = RecipeStatus.PENDING, -1
            continue
        referee.read(standing, wanted)
        if standing.number is None:
            standing.status = RecipeStatus.SCORED


def confirming(sweep: Sweep) -> Sweep:
    """The same sweep on the held-out questions; its recipes are still to be named."""
    from tasks.evaluation.suites import load_suites

    objectives = {
        name: objective.model_copy(update={"split": "confirm"})
        for name, objective in sweep.config.objectives.items()
        if objective.front
    }
    config = sweep.config.model_copy(update={"objectives": objectives, "search": None, "finetune": None})
    suites = load_suites(config, sweep.lm)
    return replace(sweep, config=config, suites=suites, recipes=[], out=make_private(sweep.out / "confirmed"))


# -------------------------------------------------------------------- asking
def work(sweep: Sweep, referee: RaceScheduler, confirm: Sweep, space: SearchSpace) -> None:
    """Grid, search and confirmation, on the same engines. With nothing to ask, nothing is started."""
    from cluster.pool import Pool
    from cluster.session import session

    if not open_blocks(sweep):
        read_standings(referee)
        if is_over(referee) and not open_blocks(replace(confirm, recipes=finalists(referee))):
            return
    with engines(sweep), session(sweep.out / "ray"), Pool(worker_spec(sweep), limit=WORKERS) as pool:
        answer(sweep, pool, open_blocks(sweep))
        read_standings(referee)
        hunt(sweep, referee, pool, space)
        chosen = replace(confirm, recipes=finalists(referee))
        answer(chosen, pool, open_blocks(chosen))
    if space.make_run:
        tidy(sweep, space, referee, {recipe.id for recipe in chosen.recipes})


def answer(sweep: Sweep, pool: Pool, blocks: Sequence[Block]) -> None:
    """All of these blocks, with a progress bar."""
    if not blocks:
        return
    recipes = {recipe.id: recipe for recipe in sweep.recipes}
    with Progress(list(blocks)) as progress, recording(sweep, [], progress) as record:
        for result in pool.run(recipes, blocks):
            record(result)


def hunt(sweep: Sweep, referee: RaceScheduler, pool: Pool, space: SearchSpace) -> None:
    from tune.run import search

    for standing in referee.standings.values():
        if standing.recipe.points[0].method == "parent" and standing.status != RecipeStatus.SCORED:
            raise UserError(
                f"{standing.recipe.label} has no score, and a search is measured against its parents; "
                f"{sweep.out / 'failures'} says why; the same command tries again"
            )
    if not is_over(referee):
        search(referee, space, pool, sweep.out / "search", training_group(sweep))


def is_over(referee: RaceScheduler) -> bool:
    """The budget is spent, and every candidate's race is run."""
    return referee.exhausted and all(standing.status != RecipeStatus.PENDING for standing in referee.proposals)


def finalists(referee: RaceScheduler) -> list[Recipe]:
    """Who is asked the held-out questions: the front of all, the front of the grid (both of those that keep the
    constraints), and the parents."""
    from tune.racing import front_of

    full = {key: s for key, s in referee.standings.items() if s.status == RecipeStatus.SCORED}
    chosen = [key for key, s in full.items() if s.recipe.points[0].method == "parent"]
    kept = {key: s for key, s in full.items() if referee.feasible(s)}
    for group in (kept, {key: s for key, s in kept.items() if s.number is None}):
        chosen += front_of({key: s.answers for key, s in group.items()})
    return [full[key].recipe for key in dict.fromkeys(chosen)]


# -------------------------------------------------------------------- what came of it
def publish_search(sweep: Sweep, beside: Published | None = None) -> Board:
    """The report of the whole search, and in DIR/confirmed that of the front on the held-out questions, both from the
    stored answers."""
    from orchestrator.report.page import write_report
    from orchestrator.stages.search_summary import summarise

    sweep = with_learning(sweep)
    space = open_space(sweep)
    referee = open_race(sweep, space)
    read_standings(referee)
    confirm = confirming(sweep)
    held_out = publish(replace(confirm, recipes=finalists(referee)))
    board = make_board(replace(sweep, recipes=[standing.recipe for standing in referee.standings.values()]))
    parts = (RecipeStatus.STOPPED_EARLY, RecipeStatus.DEFERRED)
    states = {key: s.status for key, s in referee.standings.items() if s.status in parts}
    rows = tuple(replace(row, status=states.get(row.recipe.id, row.status)) for row in board.rows)
    board = replace(board, rows=rows, search=summarise(space, referee, held_out))
    write_board(board, sweep.out)
    write_report(board, sweep.out, beside)
    return board
