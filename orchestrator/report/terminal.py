"""The leaderboard and a comparison in the terminal: the same words and numbers as the report, in fewer columns.

Cells are `Text`, never markup: brackets in a name are printed as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.core.errors import UserError
from orchestrator.core.records import RecipeStatus
from orchestrator.core.text import count
from orchestrator.report import learning
from orchestrator.report.words import (
    detectable_text,
    full_title,
    heading,
    number,
    parent_name,
    ranked,
    score_text,
    span,
    title,
    warnings,
    why,
)
from orchestrator.results.board import Board, FinetuneResults, Row
from orchestrator.stats.differences import Difference, alone, differences
from orchestrator.stats.scores import Score

LINES = 200
"""Most recipes that the terminal shows."""
SHOWN = 8
"""Most flipped documents that are named."""
STYLES = {
    RecipeStatus.SCORED: "",
    RecipeStatus.UNSCORED: "red",
    RecipeStatus.INVALID: "red",
    RecipeStatus.FAILED: "red",
}


def console() -> Console:
    """Make a console on stdout: as wide as the terminal, or 200 columns where stdout is a file or a pipe."""
    # A file has no width of its own, and rich's default of 80 columns would cut names.
    return Console(width=None if sys.stdout.isatty() else 200)


def print_board(board: Board, console: Console) -> None:
    """Print the leaderboard, best first; `●` is on the front, `○` near it."""
    for line in warnings(board):
        console.print(Text(line, style="bold red"))
    names = list(board.objectives)
    table = text_table("", "recipe", "id", "status", numbers=[heading(board, name) for name in names])
    rows = ranked(board, board.rows)
    for row in rows[:LINES]:
        mark = "●" if row.on_front else "○" if row.near_front else ""
        scores = [score_text(row.scores[name]) if name in row.scores else "–" for name in names]
        cells = (mark, title(row), row.recipe.id[:8], row.status, *scores)
        table.add_row(*map(Text, cells), style=_style(row))
    console.print(table)
    if len(rows) > LINES:
        console.print(Text(f"and {len(rows) - LINES} more: leaderboard.parquet and the report have them all"))
    console.print(
        Text("● on the front   ○ near it: off it, but may be on it (with 95 % confidence the true front is among both)")
    )


def print_finetuning(board: Board, results: FinetuneResults, console: Console) -> None:
    """Print the starting points of fine-tuning, and each task's scores before and after."""
    for start, _ in results.starts:
        console.print(Text(f"fine-tuned: {start.label} ({start.rule})"))
    for task in learning.tasks(board):
        learned = learning.learned_table(results, task)
        table = text_table(f"{task}: {learned.head[0]}", numbers=learned.head[1:])
        for row in learned.rows:
            table.add_row(*map(Text, row))
        console.print(table)


def check_scored(rows: Iterable[Row]) -> None:
    """Refuse to compare recipes without scores; raises UserError."""
    for row in rows:
        if row.status != RecipeStatus.SCORED:
            raise UserError(
                f"{title(row)} is {row.status} and has no scores{why(row)}; compare recipes that are scored"
            )


def print_differences(board: Board, a: Row, others: Sequence[Row], console: Console) -> None:
    """Print the differences of recipe `a` minus each other, by objective and task, over the same documents.

    Raises:
        UserError: one of them has no scores.
    """
    check_scored([a, *others])
    for line in warnings(board):
        console.print(Text(line, style="bold red"))
    pairs = [
        (b, objective, parts)
        for b in others
        for objective in a.scores
        if objective in b.scores
        for parts in _parts(a.scores[objective], b.scores[objective])
    ]
    found = differences([parts for _, _, parts in pairs])
    console.print(Text(f"a = {full_title(a)} ({a.recipe.id})"))
    for b in others:
        console.print(Text(f"b = {full_title(b)} ({b.recipe.id})"))
        for objective in dict.fromkeys(objective for other, objective, _ in pairs if other is b):
            own = [d for (other, name, _), d in zip(pairs, found, strict=True) if other is b and name == objective]
            _print_tasks(objective, own, console)
    console.print(Text(f"The {count(len(found), 'interval')} hold at once, with 95 % confidence."))
    console.print(Text("detectable: the difference that its interval would show (exclude 0) with 80 % probability"))


def _parts(a: Score, b: Score) -> list[tuple[Score, Score]]:
    """The pairs of scores that are compared: the objective's, and where it has several tasks, each task's."""
    tasks = [(alone(x), alone(y)) for x, y in zip(a.tasks, b.tasks, strict=True)]
    return [(a, b), *tasks] if len(tasks) > 1 else tasks


def _print_tasks(objective: str, found: Sequence[Difference], console: Console) -> None:
    table = text_table(objective, numbers=("a", "b", "a - b", "95 % interval", "detectable"))
    table.add_column("excludes 0")
    table.add_column("flips", justify="right")
    for place, d in enumerate(found):
        apart = d.low > 0 or d.high < 0
        name = f"all {len(found) - 1} tasks" if place == 0 and len(found) > 1 else d.task
        values = (number(d.a), number(d.b), f"{d.value:+.3f}", span(d.low, d.high), detectable_text(d.detectable))
        cells = (name, *values, "yes" if apart else "no")
        table.add_row(*map(Text, (*cells, str(len(d.won) + len(d.lost)))), style="bold" if apart else "")
    console.print(table)
    for d in found:
        for name, documents in (("a", d.won), ("b", d.lost)):
            if documents:
                console.print(Text(f"{d.task}: only {name} is right: {_documents(documents)}"))


def _documents(documents: Sequence[int]) -> str:
    """The documents by number only: their text may be a patient's."""
    more = f" and {len(documents) - SHOWN} more" if len(documents) > SHOWN else ""
    return f"{len(documents)} (documents {', '.join(map(str, documents[:SHOWN]))}{more})"


def _style(row: Row) -> str:
    """Red where a score is missing for a reason; dim where it is not there yet, or a search stopped or deferred it."""
    style = "green" if row.on_front else STYLES.get(row.status, "dim")
    return f"{style} bold".strip() if parent_name(row) else style


def text_table(*words: str, numbers: Sequence[str]) -> Table:
    """Make an empty table with columns of words, then columns of numbers, which are aligned right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for word in words:
        table.add_column(Text(word))
    for name in numbers:
        table.add_column(Text(name), justify="right")
    return table
