"""From stored answers to the board: a row a recipe, and the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.core.records import Failure, RecipeStatus
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.board import Board, Row, TaskSummary, mark
from orchestrator.stats.scores import combine

if TYPE_CHECKING:
    pass
from orchestrator.results.failures import read_json_if_exists, stored_failures
from orchestrator.stages.open import Sweep


def is_complete(board: Board) -> bool:
    return all(row.status != RecipeStatus.PENDING for row in board.rows)


def make_board(sweep: Sweep) -> Board:
    from tasks.evaluation.suites import generation_tasks

    failures = stored_failures(sweep.out)
    ahead = sweep.ledger.ahead(recipe.id for recipe in sweep.recipes)
    rows = [_row(sweep, recipe, failures.get(key)) for recipe, key in zip(sweep.recipes, ahead, strict=True)]
    suites = tuple(
        TaskSummary(
            suite.objective,
            suite.name,
            tuple(metric for metric, _ in suite.metrics),
            suite.documents,
            len(suite.questions),
            sum(question.truncated > 0 for question in suite.questions),
            suite.share,
            suite.split,
        )
        for suite in sweep.suites
    )
    slerp = read_json_if_exists(sweep.out / "slerp.json")
    said = (note for task in generation_tasks(sweep.suites) for note in task.notes())
    notes = (*sweep.ledger.damaged, *dict.fromkeys(said))
    return Board(sweep.config, sweep.serving, sweep.profile, suites, tuple(mark(sweep.config, rows)), slerp, notes)


def _row(sweep: Sweep, recipe: Recipe, failure: Failure | None) -> Row:
    from tasks.evaluation.judge import score_task
    from tasks.evaluation.ledger_lm import Unanswered

    costs = sweep.ledger.costs(recipe.id)
    lm = sweep.lm.knowing(sweep.ledger.answers(recipe.id))
    try:
        scores = [score_task(suite, lm) for suite in sweep.suites]
    except Unanswered:
        status = RecipeStatus(failure.status) if failure else RecipeStatus.PENDING
        return Row(recipe, status, {}, costs, failure=failure)
    combined = {
        name: combine(objective, [score for score in scores if score.objective == name])
        for name, objective in sweep.config.objectives.items()
    }
    return Row(recipe, RecipeStatus.SCORED, combined, costs)
