"""How recipes reply, right or wrong: empty and endless texts, repetition, calibration, the bias of places."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.config.measures import MEASURES
from orchestrator.core.text import listed
from orchestrator.report.tables import NONE, Table, kind
from orchestrator.report.words import number, ranked, scored, title
from orchestrator.results.board import Board, Row
from orchestrator.stats.scores import Score


def value(score: Score, measure: str) -> float:
    """Compute the mean of a measure over the objective's tasks that have it, weighted as in the objective; else NaN."""
    found = [
        (weight, task.measures[measure])
        for weight, task in zip(score.weights, score.tasks, strict=True)
        if not math.isnan(task.measures.get(measure, math.nan))
    ]
    return sum(weight * each for weight, each in found) / sum(weight for weight, _ in found) if found else math.nan


def measures_of(rows: Sequence[Row], objective: str) -> list[str]:
    """List the measures that an objective's tasks have, in the order of `MEASURES`."""
    tasks = [task for row in rows for task in row.scores[objective].tasks]
    return [name for name in MEASURES if any(name in task.measures for task in tasks)]


def meanings(board: Board) -> list[str]:
    """Explain every measure of any objective."""
    used = {name for objective in board.objectives for name in measures_of(scored(board), objective)}
    return [f"{name} is {measure.meaning}." for name, measure in MEASURES.items() if name in used]


def coverage(board: Board, objective: str) -> list[str]:
    """Name the tasks of an objective that have a measure, where not all of them do."""
    rows = scored(board)
    tasks = rows[0].scores[objective].tasks if rows else ()
    found: dict[tuple[str, ...], list[str]] = {}
    for name in measures_of(rows, objective):
        found.setdefault(tuple(task.task for task in tasks if name in task.measures), []).append(name)
    return [
        f"{listed(names)}: over {listed(have)}, {len(have)} of {len(tasks)} tasks."
        for have, names in found.items()
        if len(have) < len(tasks)
    ]


def table(board: Board, objective: str) -> Table:
    """List the measures of each recipe's replies to an objective's questions."""
    rows = ranked(board, scored(board))
    names = measures_of(rows, objective)
    cells = []
    for row in rows:
        values = [value(row.scores[objective], name) for name in names]
        cells.append((title(row), *(NONE if math.isnan(each) else number(each) for each in values)))
    return Table(("recipe", *names), tuple(cells), tuple(map(kind, rows)))


def places(board: Board, objective: str) -> list[Table]:
    """List how often each place (A, B, …) was chosen and is right, a table for each set of labels."""
    rows = ranked(board, scored(board))
    labels = dict.fromkeys(tuple(task.places) for row in rows for task in row.scores[objective].tasks if task.places)
    return [_places(rows, objective, each) for each in labels]


def _places(rows: Sequence[Row], objective: str, labels: tuple[str, ...]) -> Table:
    def counts(row: Row, column: int) -> list[str]:
        found = [task.places for task in row.scores[objective].tasks if tuple(task.places) == labels]
        return [str(sum(each[label][column] for each in found)) for label in labels]

    cells = [(title(row), *counts(row, 0)) for row in rows]
    return Table(
        ("recipe", *labels), (("right answers", *counts(rows[0], 1)), *map(tuple, cells)), ("", *map(kind, rows))
    )
