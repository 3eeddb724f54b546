"""The report's part on what was learned: scores after fine-tuning, their differences, and examples worth as much.

It makes Table 2 and Figure 4 of arXiv 2604.01538 from `orchestrator.results.board.FinetuneResults`.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.config.finetune import METHOD_NAMES, TRAINING_METHODS, Method
from orchestrator.core.records import RecipeStatus
from orchestrator.core.text import count, listed
from orchestrator.report.beside import Beside
from orchestrator.report.style import STYLE, Look, legend, looks, new_figure, open_marker, published_handle
from orchestrator.report.tables import NONE, Table, verdict
from orchestrator.report.words import metric_words, number, score_text, signed, span
from orchestrator.results.board import Board, FinetuneResults
from orchestrator.stats.learning_curves import Curve, Equivalent, equivalents
from orchestrator.stats.scores import Score
from orchestrator.stats.seeds import BySeed, SeedMean, mean_of, paired

Series = dict[tuple[str, Method], dict[int, dict[int, Score]]]
"""(start, method) → number of examples → seed → the run's score."""
ONE_SEED = "not known from one seed"
ALL_BUDGETS = "mean of all"


def series(results: FinetuneResults, task: str) -> Series:
    """Collect the scores of a fine-tuning task's runs."""
    found: Series = defaultdict(lambda: defaultdict(dict))
    for run in results.runs:
        if run.tuning.task == task and run.row.status == RecipeStatus.SCORED:
            tuning = run.tuning
            found[tuning.start_label, tuning.method][tuning.examples][tuning.seed] = run.row.scores[task]
    return {key: dict(sorted(curve.items())) for key, curve in found.items()}


def tasks(board: Board) -> list[str]:
    """The names of the tasks that the sweep fine-tunes on."""
    return list(board.config.finetune.tasks) if board.config.finetune else []


def after(runs: BySeed) -> SeedMean:
    """Take the mean of runs of one starting point, method and budget over their seeds."""
    return SeedMean.of([runs[seed] for seed in sorted(runs)])


def mean_text(mean: SeedMean) -> str:
    """Format a mean and its standard error: over seeds and documents, or for one seed over documents."""
    return number(mean.value) + ("" if math.isnan(mean.se) else f" ± {number(mean.se)}")


def span_text(difference: SeedMean, family: int = 1) -> str:
    """Format the interval of a difference of trained checkpoints."""
    if difference.seeds < 2:
        return ONE_SEED
    return span(*difference.interval(family))


# -------------------------------------------------------------------- tables
def learned_table(results: FinetuneResults, task: str) -> Table:
    """Make Table 2 of the paper: a row for each starting point, its score before and after fine-tuning."""
    curves = series(results, task)
    columns = sorted({(method, size) for (_, method), curve in curves.items() for size in curve})
    cells = []
    for start, row in results.starts:
        before = score_text(row.scores[task]) if task in row.scores else NONE
        tuned = (curves.get((start.label, method), {}).get(size) for method, size in columns)
        cells.append((start.label, before, *(mean_text(after(runs)) if runs else NONE for runs in tuned)))
    head = ("starting point", "0-shot", *(f"{METHOD_NAMES[method]}, {size}" for method, size in columns))
    return Table.of(head, cells)


def rivals(results: FinetuneResults) -> list[tuple[str, str]]:
    """List the pairs of starting points that are compared: each merge with all that is none, or else all pairs."""
    merges = [start.label for start, _ in results.starts if not start.recipe.is_copy]
    others = [start.label for start, _ in results.starts if start.recipe.is_copy]
    return list(itertools.product(merges, others)) or list(itertools.combinations(merges + others, 2))


@dataclass(frozen=True)
class Gap:
    """The difference of two starting points after fine-tuning by the same method on as many examples."""

    method: Method
    one: str
    other: str
    budget: str
    """A number of examples, or `ALL_BUDGETS`."""
    difference: SeedMean


def gaps(results: FinetuneResults, task: str) -> list[Gap]:
    """Compute the difference of each pair of starting points, at each budget and as the mean over the budgets."""
    curves = series(results, task)
    found = []
    for method, (one, other) in itertools.product(TRAINING_METHODS, rivals(results)):
        mine, theirs = curves.get((one, method), {}), curves.get((other, method), {})
        if (mean := _over_budgets(mine, theirs)) is not None:
            found.append(Gap(method, one, other, ALL_BUDGETS, mean))
        found += [Gap(method, one, other, str(size), each) for size, each in _at_budgets(mine, theirs)]
    return found


def _over_budgets(one: Curve, other: Curve) -> SeedMean | None:
    """The mean difference over the budgets that both have, of the seeds that all of them have; None for one budget."""
    sizes = one.keys() & other.keys()
    seeds = set.intersection(*({*one[size]} & {*other[size]} for size in sizes)) if len(sizes) > 1 else set()
    mine, theirs = (
        {size: {seed: curve[size][seed] for seed in seeds} for size in sizes} if seeds else {} for curve in (one, other)
    )
    differences = [each for _, each in _at_budgets(mine, theirs)]
    return mean_of(differences) if differences else None


def _at_budgets(one: Curve, other: Curve) -> Iterator[tuple[int, SeedMean]]:
    for size in sorted(one.keys() & other.keys()):
        if (difference := paired(one[size], other[size])) is not None:
            yield size, difference


def gaps_table(found: Sequence[Gap], sign: float) -> Table:
    """Compare starting points after fine-tuning; the means over budgets are one family, the budgets another.

    Args:
        sign: the task's, as `Objective.sign`.
    """
    means = sum(gap.budget == ALL_BUDGETS for gap in found)
    cells = []
    for gap in found:
        family = means if gap.budget == ALL_BUDGETS else len(found) - means
        low, high = gap.difference.interval(family) if gap.difference.seeds > 1 else (math.nan, math.nan)
        words = (METHOD_NAMES[gap.method], gap.one, gap.other, gap.budget, verdict(low, high, sign))
        cells.append((*words, signed(gap.difference.value), span_text(gap.difference, family)))
    head = ("method", "starting point", "against", "examples", "verdict", "difference", "95 % interval")
    return Table.of(head, cells, words=5)


def equivalents_table(board: Board, results: FinetuneResults, task: str) -> Table:
    """Compare starting points by the number of examples that another one needs for the same score."""
    assert board.config.finetune is not None
    curves, sign = series(results, task), board.config.finetune.tasks[task].sign
    cells = []
    for method, (one, other) in itertools.product(TRAINING_METHODS, rivals(results)):
        mine, theirs = curves.get((one, method), {}), curves.get((other, method), {})
        for start, curve, against, reference in ((one, mine, other, theirs), (other, theirs, one, mine)):
            if curve and len(reference) > 1:
                for found in equivalents(curve, reference, sign):
                    cells.append(
                        (METHOD_NAMES[method], f"{start}: {found.examples}", against, *_worth(found, reference))
                    )
    head = ("method", "examples of", "equivalent of", "examples", "95 % interval")
    return Table.of(head, cells, words=3)


def _worth(found: Equivalent, reference: Curve) -> tuple[str, str]:
    """The number of examples and its interval, as far as the reference curve reaches."""
    smallest, largest = min(reference), max(reference)

    def text(value: float) -> str:
        if math.isinf(value):
            return f"over {largest}"
        return f"{value:.0f}" if value else f"under {smallest}"

    if found.interval is None:
        return text(found.equal), ONE_SEED
    low, high = found.interval
    if low == largest or high == smallest:
        return text(found.equal), text(math.inf if low == largest else 0.0)
    return text(found.equal), f"{text(low)} to {text(high)}"


# -------------------------------------------------------------------- words
def learned_words(board: Board, task: str) -> str:
    """Describe the numbers of `learned_table`."""
    finetune = board.config.finetune
    assert finetune is not None
    metric = metric_words(board, finetune.tasks[task].metric)
    seeds = len(finetune.seeds)
    error = (
        f"the mean over {count(seeds, 'seed')}, ± its standard error, were seeds and documents drawn anew"
        if seeds > 1
        else "± one standard error over documents; what another seed would change is not known from one"
    )
    return f"{metric} before fine-tuning (0-shot, ± one standard error over documents) and after it: {error}."


def gaps_words(found: Sequence[Gap]) -> str:
    """Describe the statements of `gaps_table`, and which of them hold together."""
    means = sum(gap.budget == ALL_BUDGETS for gap in found)
    pairing = (
        "Starting points after the same fine-tuning, paired by seed (with the same examples) and by document. The "
        "intervals are for new seeds and new documents"
    )
    if all(gap.difference.seeds < 2 for gap in found):
        return f"{pairing}, so there is none from one seed; give finetune.seeds three or more."
    families = [
        f"{count(number, noun)} {where}"
        for number, noun, where in (
            (means, "mean", "over the budgets"),
            (len(found) - means, "difference", "at a budget"),
        )
        if number
    ]
    seeds = max(gap.difference.seeds for gap in found)
    wide = f" With {count(seeds, 'seed')} they are wide: more seeds narrow them." if seeds < 5 else ""
    each = ", each of the two families for itself" if means else ""
    return (
        f"{pairing}; the {listed(families)} hold together at 95 %{each}. The verdict says better or worse where the "
        f"interval leaves out 0.{wide}"
    )


# -------------------------------------------------------------------- figure
def learning_curves(board: Board, beside: Beside | None = None) -> Figure | None:
    """Draw Figure 4 of the paper: score against labelled examples.

    Bars are standard errors, as in the table; dotted lines are the 0-shot scores. None where no run is scored.

    Args:
        beside: published figures, drawn as open markers.
    """
    results = board.finetuning
    drawn = [task for task in tasks(board) if results and series(results, task)]
    if results is None or not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure = new_figure(board, 5.6 * len(drawn), 4.2)
        styles, published = looks(start.label for start, _ in results.starts), set[int]()
        lines: dict[str, Any] = dict(zip(TRAINING_METHODS, ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1))), strict=True))
        for axes, task in zip(figure.subplots(1, len(drawn), squeeze=False).flat, drawn, strict=True):
            curves = series(results, task)
            for (start, method), curve in curves.items():
                look, means = styles[start], [after(runs) for runs in curve.values()]
                errors = [0.0 if math.isnan(mean.se) else mean.se for mean in means]
                axes.errorbar(
                    list(curve), [mean.value for mean in means], errors,
                    color=look.colour, marker=look.marker, markersize=5, capsize=2, linestyle=lines[method],
                    linewidth=1.2,
                )  # fmt: skip
            for origin, row in results.starts:
                if task in row.scores:
                    axes.axhline(row.scores[task].value, color=styles[origin.label].colour, linestyle=":", linewidth=1)
            sizes = _draw_published(axes, styles, beside, task)
            published |= sizes
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted(sizes.union(*curves.values())))
            axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
            axes.set_xlabel("labelled examples")
            axes.set_ylabel(task)
        handles = [
            Line2D([], [], color=look.colour, marker=look.marker, markersize=5, label=name)
            for name, look in styles.items()
        ]
        methods = {run.tuning.method for run in results.runs}
        handles += [
            Line2D([], [], color="0.35", linestyle=lines[m], label=METHOD_NAMES[m]) for m in lines if m in methods
        ]
        handles.append(Line2D([], [], color="0.35", linestyle=":", label="0-shot"))
        handles += [published_handle()] if published else []
        legend(figure, handles)
        return figure


def _draw_published(axes: Any, styles: Mapping[str, Look], beside: Beside | None, task: str) -> set[int]:
    """Draw what is published of a task, `all` examples at this run's number; returns the numbers of examples."""
    entries = [each for each in (beside.finetuned if beside else ()) if each.objective == task and each.start in styles]
    points = [(each, size) for each in entries if (size := each.size if each.examples == "all" else each.examples)]
    for entry, size in points:
        open_marker(axes, size, entry.value, styles[entry.start]._replace(size=6))
    return {size for _, size in points}
