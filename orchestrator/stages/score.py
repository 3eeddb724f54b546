"""From stored answers to the board: a row for each recipe, and the front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from orchestrator.core.files import read_json_if_exists
from orchestrator.core.processes import copies_for, shared_out
from orchestrator.core.records import Failure, RecipeStatus
from orchestrator.core.text import listed
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.board import Board, Row, TaskSummary, mark_front
from orchestrator.results.failures import read_failures
from orchestrator.stages.open import Round, Sweep
from orchestrator.stats.scores import Reasoning, TaskScore, as_row, combine
from tasks.benchmarks.overlaps import describe_overlaps
from tasks.evaluation.judge import NoScore, score_task
from tasks.evaluation.ledger_lm import LedgerLM, Unanswered
from tasks.evaluation.suites import SuiteTask, generation_tasks, overlaps_of
from tasks.generation.task import GenerationTask

DOCUMENT_S = 60e-6
"""About what reading and scoring the answers to a document take, on one core."""


def score(sweep: Sweep, evaluated: Round) -> Board:
    """Score every recipe of a round that has all its answers, and mark the front; nothing is evaluated."""
    rows = _rows(sweep, evaluated)
    notes = [note for suite in evaluated.suites for note in suite.notes]
    notes += [note for task in generation_tasks(evaluated.suites) for note in task.notes()]
    notes += describe_overlaps(overlaps_of(evaluated.suites))
    notes += [*_partial_metrics(rows), *reasoning_notes(rows)]
    return Board(
        config=sweep.config,
        objectives=dict(evaluated.objectives),
        serving=sweep.serving,
        profile=sweep.profile,
        tasks=tuple(map(_summary, evaluated.suites)),
        rows=tuple(mark_front(evaluated.objectives, rows)),
        slerp=read_json_if_exists(sweep.layout.slerp),
        notes=(*sweep.ledger.damaged, *dict.fromkeys(notes)),
    )


def is_complete(sweep: Sweep, evaluated: Round) -> bool:
    """Whether no recipe of a round is pending; invalid and failed ones are not."""
    return all(row.status != RecipeStatus.PENDING for row in _rows(sweep, evaluated))


def _rows(sweep: Sweep, evaluated: Round) -> list[Row]:
    """Score the recipes of a round, without the front."""
    failures, ledger = read_failures(evaluated.layout), sweep.ledger

    def score_one(recipe: Recipe) -> tuple[dict[str, Any], dict[tuple[str, int], TaskScore], dict[str, str]]:
        row = _row(sweep, evaluated, recipe, failures.get(recipe.id))
        as_row(row.scores)  # the scores keep their standard errors from now on
        keys = [(recipe.id, id(suite)) for suite in evaluated.suites]
        found = {each.name: getattr(row, each.name) for each in fields(row) if each.name != "recipe"}
        return found, {key: sweep.scores[key] for key in keys if key in sweep.scores}, ledger.damage

    if ledger.store.remote:  # its connections do not survive that a process is copied, but answer many at once
        ahead = zip(evaluated.recipes, ledger.ahead(recipe.id for recipe in evaluated.recipes), strict=True)
        scored: Iterator[Any] = (score_one(recipe) for recipe, _ in ahead)
        copies = 1
    else:
        takes_s = DOCUMENT_S * _unscored_documents(sweep, evaluated)
        scored = shared_out(score_one, evaluated.recipes, takes_s)
        copies = copies_for(len(evaluated.recipes), takes_s)
    rows = []
    with ledger.shared_room(copies):
        for recipe, (found, scores, damage) in zip(evaluated.recipes, scored, strict=True):
            rows.append(Row(recipe, **found))
            sweep.scores.update(scores)
            ledger.damage.update(damage)
    return rows


def _unscored_documents(sweep: Sweep, evaluated: Round) -> int:
    """Count the documents of a round whose answers are still to be scored, of all recipes together."""
    return sum(
        suite.documents
        for recipe in evaluated.recipes
        for suite in evaluated.suites
        if (recipe.id, id(suite)) not in sweep.scores
    )


def _summary(suite: SuiteTask) -> TaskSummary:
    return TaskSummary(
        suite.objective,
        suite.name,
        tuple(metric for metric, _ in suite.metrics),
        suite.documents,
        len(suite.questions),
        sum(question.truncated > 0 for question in suite.questions),
        suite.share,
        suite.split,
        suite.task.generation.metrics.words if isinstance(suite.task, GenerationTask) else "",
        next((question.decoding for question in suite.questions if question.decoding), None),
    )


def _row(sweep: Sweep, evaluated: Round, recipe: Recipe, failure: Failure | None) -> Row:
    """Score one recipe; one without all answers has the status of its failure, or is pending.

    A recipe with a task that has no score has none in its objective, and is not compared with others.
    """
    costs, spent = sweep.ledger.costs(recipe.id), sweep.ledger.spent(recipe.id)
    lm = sweep.tasks.lm.knowing(sweep.ledger.answers(recipe.id))
    scores: list[TaskScore] = []
    reasons: dict[str, str] = {}
    for suite in evaluated.suites:
        try:
            scores.append(_task_score(sweep, recipe, suite, lm))
        except NoScore as error:
            reasons.setdefault(suite.objective, f"{suite.objective}: {error}")
        except Unanswered:
            status = RecipeStatus(failure.status) if failure else RecipeStatus.PENDING
            return Row(recipe, status, {}, costs, failure=failure, spent=spent)
    combined = {
        name: combine(objective, [score for score in scores if score.objective == name])
        for name, objective in evaluated.objectives.items()
        if name not in reasons
    }
    if reasons:
        why = Failure(recipe.id, "unscored", "score", "; ".join(reasons.values()))
        return Row(recipe, RecipeStatus.UNSCORED, combined, costs, failure=why, spent=spent)
    return Row(recipe, RecipeStatus.SCORED, combined, costs, spent=spent)


def _partial_metrics(rows: list[Row]) -> list[str]:
    """Name the metrics that only some documents have, with the number of these, from the fewest to the most."""
    found: dict[tuple[str, str, str], set[int]] = {}
    documents: dict[tuple[str, str, str], int] = {}
    for task in (task for row in rows for score in row.scores.values() for task in score.tasks):
        for metric, number in task.counted.items():
            found.setdefault((task.objective, task.task, metric), set()).add(number)
            documents[task.objective, task.task, metric] = len(task.influence)
    return [
        f"{task}: {metric} is over the documents that have it, as in lm-eval: "
        f"{listed(map(str, sorted(numbers)))} of {documents[name, task, metric]}, depending on the recipe."
        if len(numbers) > 1
        else f"{task}: {metric} is over the documents that have it, as in lm-eval: {min(numbers)} of "
        f"{documents[name, task, metric]}."
        for (name, task, metric), numbers in found.items()
        if min(numbers) < documents[name, task, metric]
    ]


def reasoning_notes(rows: Sequence[Row]) -> list[str]:
    """Write for each objective how much of its replies is reasoning, and how many replies never end it."""
    found: dict[str, list[list[Reasoning]]] = {}
    for name, score in (item for row in rows for item in row.scores.items()):
        if parts := [task.reasoning for task in score.tasks if task.reasoning is not None]:
            found.setdefault(name, []).append(parts)
    notes = []
    for name, recipes in found.items():
        shares = [sum(p.tokens for p in parts) / max(1, sum(p.generated for p in parts)) for parts in recipes]
        every = [part for parts in recipes for part in parts]
        note = (
            f"{name}: reasoning, cut before scoring, is {min(shares):.0%} to {max(shares):.0%} of the generated "
            "tokens, depending on the recipe"
        )
        if unfinished := sum(part.unfinished for part in every):
            total = sum(part.replies for part in every)
            note += f"; {unfinished} of {total} replies never end it and are scored as a whole, as in lm-eval"
        notes.append(f"{note}.")
    return notes


def _task_score(sweep: Sweep, recipe: Recipe, suite: SuiteTask, lm: LedgerLM) -> TaskScore:
    key = (recipe.id, id(suite))
    if key not in sweep.scores:
        sweep.scores[key] = score_task(suite, lm)
    return sweep.scores[key]
