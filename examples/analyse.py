"""A sweep's results in a notebook or script: the front, a comparison, and the scores as a table.

python examples/analyse.py runs/demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import mergefront


def error_text(score: mergefront.Score) -> str:
    """Format a standard error, which is not known where nothing varies among the documents."""
    return "not known" if score.se is None else f"{score.se:.3f}"


def analyse(out: Path) -> None:
    """Print what a results folder says, from its stored answers alone."""
    board = mergefront.read_board(out)

    print(f"{len(board.rows)} recipes, {len(board.front)} on the front:")
    for row in board.front:
        scores = ", ".join(f"{name} {score.value:.3f} ± {error_text(score)}" for name, score in row.scores.items())
        print(f"  {row.recipe.label}: {scores}")

    # Two recipes on the same questions: the difference is paired, so its interval is narrower than the two errors say.
    first, *_, last = (row for row in board.rows if row.status == mergefront.RecipeStatus.SCORED)
    print(f"{first.recipe.label} against {last.recipe.label}:")
    for name, score in first.scores.items():
        for mine, theirs in zip(score.tasks, last.scores[name].tasks, strict=True):
            found = mergefront.difference(mine, theirs)
            print(f"  {name}, {found.task}: {found.value:+.3f}, 95 % interval {found.low:+.3f} to {found.high:+.3f}")

    # A document's own value, for whoever looks at single questions; NaN where the metric has none.
    task = first.scores[next(iter(first.scores))].tasks[0]
    print(f"{task.task}: {len(task.documents)} documents, the first values {task.documents[:5].tolist()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/analyse.py DIR (what `mergefront run --out` wrote)")
    try:
        analyse(Path(sys.argv[1]))
    except mergefront.UserError as error:
        sys.exit(f"error: {error}")
