"""The results of a review in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from orchestrator.report.terminal import text_table
from orchestrator.review.ratings import Mean, Ratings


def print_ratings(ratings: Ratings, console: Console) -> None:
    """Print the raters' means for each recipe, and how far the raters agree."""
    for rater, (empty, of) in ratings.empty.items():
        if empty:
            console.print(Text(f"rater {rater}: {empty} of {of} ratings are missing", style="bold red"))
    first, *others = ratings.labels
    for result in ratings.results:
        numbers = ("mean", "documents", *([f"minus {ratings.labels[first]}"] if others else []))
        table = text_table(f"{ratings.task}: {result.criterion}", numbers=numbers)
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
