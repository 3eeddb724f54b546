"""The leaderboard and a comparison in the terminal: the same words and numbers as the page, in fewer columns.

Cells are `Text`, never markup: a name with brackets is shown, not obeyed.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.core.errors import UserError
from orchestrator.report import finetune as tuning
from orchestrator.report.words import full_title, number, parent_name, ranked, score_text, title, warnings
from orchestrator.results.board import Board, Row, Tuned
from orchestrator.review.ratings import Mean, Ratings
from orchestrator.stats.scores import Difference, difference

LINES = 200
"""Recipes that the terminal shows."""
SHOWN = 8
"""Flipped documents that are named."""


def print_board(board: Board, console: Console) -> None:
    """Best first; `●` is on the front, `○` near it."""
    for line in warnings(board):
        console.print(Text(line, style="bold red"))
    names = list(board.config.objectives)
    table = _table("", "what it is", "recipe", "status", numbers=names)
    rows = ranked(board, board.rows)
    for row in rows[:LINES]:
        mark = "●" if row.on_front else "○" if row.near_front else ""
        scores = [score_text(row.scores[name]) if name in row.scores else "–" for name in names]
        cells = (mark, title(row), row.recipe.id[:8], row.status, *scores)
        table.add_row(*map(Text, cells), style=_style(row))
    console.print(table)
    if len(rows) > LINES:
        console.print(Text(f"and {len(rows) - LINES} more: leaderboard.parquet and the report have them all"))
    console.print(Text("● on the front   ○ near it: within one paired standard error of a recipe on it"))


def print_tuned(board: Board, tuned: Tuned, console: Console) -> None:
    """The second phase: where it started, and each task before and after."""
    for start, _ in tuned.starts:
        console.print(Text(f"fine-tuned: {start.label} ({start.rule})"))
    for task in tuning.tasks(board):
        learned = tuning.learned_table(board, tuned, task)
        table = _table(f"{task}: {learned.head[0]}", numbers=learned.head[1:])
        for row in learned.rows:
            table.add_row(*map(Text, row))
        console.print(table)


def print_difference(board: Board, a: Row, b: Row, console: Console) -> None:
    """What recipe a has over b, task by task, over the same documents.

    Raises:
        UserError: one of them has no scores.
    """
    for row in (a, b):
        if row.status != "scored":
            raise UserError(f"{title(row)} is {row.status} and has no scores; compare recipes that are scored")
    for line in warnings(board):
        console.print(Text(line, style="bold red"))
    console.print(Text(f"a = {full_title(a)} ({a.recipe.id})\nb = {full_title(b)} ({b.recipe.id})"))
    for objective in board.config.objectives:
        pairs = zip(a.scores[objective].tasks, b.scores[objective].tasks, strict=True)
        _print_tasks(objective, [difference(x, y) for x, y in pairs], console)


def _print_tasks(objective: str, tasks: Sequence[Difference], console: Console) -> None:
    table = _table(objective, numbers=("a", "b", "a - b", "95 % interval"))
    table.add_column("excludes 0")
    table.add_column("flips", justify="right")
    for d in tasks:
        apart = d.low > 0 or d.high < 0
        interval = f"{d.low:+.3f} to {d.high:+.3f}"
        cells = (d.task, number(d.a), number(d.b), f"{d.value:+.3f}", interval, "yes" if apart else "no")
        table.add_row(*map(Text, (*cells, str(len(d.won) + len(d.lost)))), style="bold" if apart else "")
    console.print(table)
    for d in tasks:
        for who, documents in (("a", d.won), ("b", d.lost)):
            if documents:
                console.print(Text(f"{d.task}: only {who} has right: {_documents(documents)}"))


def print_ratings(ratings: Ratings, console: Console) -> None:
    """What the raters say of each recipe, and how far they agree."""
    for rater, (empty, of) in ratings.empty.items():
        if empty:
            console.print(Text(f"rater {rater}: {empty} of {of} ratings are missing", style="bold red"))
    first, *others = ratings.labels
    for result in ratings.results:
        numbers = ("mean", "documents", *([f"minus {ratings.labels[first]}"] if others else []))
        table = _table(f"{ratings.task}: {result.criterion}", numbers=numbers)
        for recipe, label in ratings.labels.items():
            own, difference = result.means[recipe], result.differences.get(recipe)
            cells = (
                label,
                _mean(own, "{:.2f}"),
                str(own.documents),
                _mean(difference, "{:+.2f}") if difference else "",
            )
            table.add_row(*map(Text, cells[: 1 + len(numbers)]))
        console.print(table)
        alpha = "not defined" if result.alpha is None else f"{result.alpha:.2f}"
        console.print(
            Text(f"Krippendorff's alpha (ordinal): {alpha}, over {result.shared} outputs with two ratings or more")
        )
    console.print(
        Text(
            "1 to 5, 5 is best. ± is one standard error over documents; differences are paired by document and rater. "
            "alpha: 1 is perfect agreement, 0 chance; Krippendorff relies on 0.80, and concludes tentatively from 0.67."
        )
    )
    console.print(f"ratings: {ratings.file.resolve()}", markup=False, highlight=False, soft_wrap=True)


def _mean(mean: Mean, form: str) -> str:
    if mean.value is None:
        return "–"
    return form.format(mean.value) + (f" ± {mean.se:.2f}" if mean.se is not None else "")


def _documents(documents: Sequence[int]) -> str:
    """Their numbers only: the text may be a patient's."""
    more = f" and {len(documents) - SHOWN} more" if len(documents) > SHOWN else ""
    return f"{len(documents)} (documents {', '.join(map(str, documents[:SHOWN]))}{more})"


def _style(row: Row) -> str:
    """Red is for what went wrong; what was not asked everything, or not yet, is dim."""
    failed = row.status in ("invalid", "failed")
    style = "green" if row.on_front else "red" if failed else "" if row.status == "scored" else "dim"
    return f"{style} bold".strip() if parent_name(row) else style


def _table(*words: str, numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for word in words:
        table.add_column(Text(word))
    for name in numbers:
        table.add_column(Text(name), justify="right")
    return table
