"""A comparison in the terminal of runs over several seeds; of single recipes see `orchestrator.report.terminal`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.text import Text

from orchestrator.core.errors import UserError
from orchestrator.core.text import count
from orchestrator.report import learning
from orchestrator.report.terminal import check_scored, print_differences, text_table
from orchestrator.report.words import full_title, signed, warnings
from orchestrator.results.board import Board, Row
from orchestrator.stats.seeds import SeedMean

Seeds = Mapping[int | None, Row]
"""As `Board.find_seeds` returns it: seed → row, or None → the row of a recipe without seeds."""


def print_comparison(board: Board, a: Seeds, others: Sequence[Seeds], console: Console) -> None:
    """Print the differences of `a` minus each other; each is one recipe, or the runs of several seeds.

    Raises:
        UserError: one of them has no scores, or two have no seed in common.
    """
    if all(len(each) == 1 for each in (a, *others)):
        (one,) = a.values()
        print_differences(board, one, [row for each in others for row in each.values()], console)
        return
    pairs = [_paired(a, b) for b in others]
    check_scored([row for pair in pairs for rows in pair for row in rows])
    for line in warnings(board):
        console.print(Text(line, style="bold red"))
    found = [_differences(ours, theirs) for ours, theirs in pairs]
    family = sum(map(len, found))
    for (ours, theirs), differences in zip(pairs, found, strict=True):
        for name, rows in (("a", ours), ("b", theirs)):
            console.print(Text(f"{name} = {', '.join(f'{full_title(row)} ({row.recipe.id})' for row in rows)}"))
        table = text_table("objective", numbers=("a", "b", "a - b", "95 % interval"))
        table.add_column("excludes 0")
        for objective, (first, second) in differences.items():
            d = first - second
            cells = (objective, learning.mean_text(first), learning.mean_text(second), signed(d.value),
                     learning.span_text(d, family), "yes" if d.differs(family) else "no")  # fmt: skip
            table.add_row(*map(Text, cells))
        console.print(table)
    console.print(
        Text(
            f"Means over seeds, paired by seed and document. The {count(family, 'interval')} for new seeds and "
            "documents hold at once, with 95 % confidence."
        )
    )


def _paired(a: Seeds, b: Seeds) -> tuple[list[Row], list[Row]]:
    """The rows of the seeds that both have, in the same order; all rows where one has no seeds.

    Raises:
        UserError: they have no seed in common.
    """
    if None in a or None in b:
        return list(a.values()), list(b.values())
    seeds = [seed for seed in a if seed in b]
    if not seeds:
        raise UserError("there is no seed that both have runs of; compare runs of the same seeds")
    return [a[seed] for seed in seeds], [b[seed] for seed in seeds]


def _differences(ours: Sequence[Row], theirs: Sequence[Row]) -> dict[str, tuple[SeedMean, SeedMean]]:
    """Objective → the means of the two."""
    names = [name for name in ours[0].scores if name in theirs[0].scores]
    a, b = ({name: SeedMean.of([row.scores[name] for row in rows]) for name in names} for rows in (ours, theirs))
    return {name: (a[name], b[name]) for name in names}
