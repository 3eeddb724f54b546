"""The report's part on fine-tuning: what was learned, from how many examples, what was forgotten, and what it cost.

It makes Tables 1 and 2 and Figure 4 of arXiv 2604.01538 from `orchestrator.results.board.FinetuneResults`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.core.records import RecipeStatus
from orchestrator.core.text import count, duration, listed
from orchestrator.report.style import STYLE, legend, looks, new_figure
from orchestrator.report.tables import NONE, Table
from orchestrator.report.words import number, score_text, signed, span
from orchestrator.results.board import Board, FinetunedRow, FinetuneResults
from orchestrator.stats.learning_curves import Curve, Equivalent, equivalents, mean_score, spread
from orchestrator.stats.scores import Score, interval

Series = dict[tuple[str, str], dict[int, list[Score]]]
"""(start, method) → number of examples → the scores of its seeds."""


def series(results: FinetuneResults, task: str) -> Series:
    """Collect the scores of a fine-tuning task's runs."""
    found: Series = defaultdict(lambda: defaultdict(list))
    for run in results.runs:
        if run.tuning.task == task and run.row.status == RecipeStatus.SCORED:
            found[run.tuning.start_label, run.tuning.method][run.tuning.examples].append(run.row.scores[task])
    return {key: dict(sorted(curve.items())) for key, curve in found.items()}


def tasks(board: Board) -> list[str]:
    """The names of the tasks that the sweep fine-tunes on."""
    return list(board.config.finetune.tasks) if board.config.finetune else []


def several(scores: Sequence[Score]) -> str:
    """Format the mean over seeds ± their standard deviation; for one seed ± the standard error over documents."""
    deviation = spread(scores)
    if deviation is None:
        return score_text(scores[0])
    return f"{number(mean_score(scores).value)} ± {number(deviation)}"


# -------------------------------------------------------------------- tables
def starts_table(results: FinetuneResults) -> Table:
    """List the starting points and the rule that chose each."""
    cells = [(start.label, start.rule, start.recipe.id) for start, _ in results.starts]
    return Table.of(("starting point", "chosen by", "recipe id"), cells, words=3)


def learned_table(results: FinetuneResults, task: str) -> Table:
    """Make Table 2 of the paper: a row for each starting point, its score before and after fine-tuning."""
    curves = series(results, task)
    columns = sorted({(method, size) for (_, method), curve in curves.items() for size in curve})
    cells = []
    for start, row in results.starts:
        before = score_text(row.scores[task]) if task in row.scores else NONE
        after = (curves.get((start.label, method), {}).get(size) for method, size in columns)
        cells.append((start.label, before, *(several(scores) if scores else NONE for scores in after)))
    head = ("starting point", "0-shot", *(f"{method}, {size}" for method, size in columns))
    return Table.of(head, cells)


def equivalents_table(board: Board, results: FinetuneResults, task: str) -> Table:
    """Compare starting points by the number of examples that another one needs for the same score."""
    assert board.config.finetune is not None
    curves, sign = series(results, task), board.config.finetune.tasks[task].sign
    cells = []
    for (start, method), curve in curves.items():
        for (other, same), reference in curves.items():
            if start != other and method == same and len(reference) > 1:
                for found in equivalents(curve, reference, sign):
                    cells.append((method, f"{start}: {found.examples}", other, *_equivalent_cells(found, reference)))
    head = ("method", "examples of", "equivalent of", "examples", "95 % interval")
    return Table.of(head, cells, words=3)


def _equivalent_cells(found: Equivalent, reference: Curve) -> tuple[str, str]:
    """The number of examples and its interval, as far as the reference curve reaches."""

    def text(value: float) -> str:
        if math.isinf(value):
            return f"over {max(reference)}"
        return f"{value:.0f}" if value else f"under {min(reference)}"

    return text(found.equal), f"{text(found.low)} to {text(found.high)}"


def forgotten_table(board: Board, results: FinetuneResults) -> Table:
    """Compare the sweep's objectives after fine-tuning with those before, as means over seeds."""
    before = {start.label: row for start, row in results.starts}
    groups: dict[tuple[str, str, str, int], list[FinetunedRow]] = defaultdict(list)
    for run in results.runs:
        if run.row.status == before[run.tuning.start_label].status == RecipeStatus.SCORED:
            tuning = run.tuning
            groups[tuning.task, tuning.start_label, tuning.method, tuning.examples].append(run)
    names = list(board.objectives)
    cells = []
    for (task, start, method, size), runs in sorted(groups.items()):
        learned = signed(mean_score([run.row.scores[task] for run in runs]).value - before[start].scores[task].value)
        lost = [_change([run.row.scores[name] for run in runs], before[start].scores[name]) for name in names]
        cells.append((task, start, method, str(size), learned, *lost))
    return Table.of(("task", "starting point", "method", "examples", "learned", *names), cells, words=3)


def _change(after: Sequence[Score], before: Score) -> str:
    low, high = interval(mean_score(after), before)
    return f"{signed(mean_score(after).value - before.value)} ({span(low, high)})"


def costs_table(board: Board, results: FinetuneResults) -> Table:
    """Make Table 1 of the paper: the time and labelled examples that merging and fine-tuning take."""
    workers = board.config.workers
    merging = sum(sum(row.costs.values()) for row in board.rows)
    cells = [(f"merging: all {count(len(board.rows), 'recipe')} loaded and evaluated", duration(merging),
              _gpu_hours(workers.gpu_hours(merging) if workers.gpus else 0.0), "0")]  # fmt: skip
    groups: dict[tuple[str, str, int], list[FinetunedRow]] = defaultdict(list)
    for run in results.runs:
        if run.result:
            groups[run.tuning.task, run.tuning.method, run.tuning.examples].append(run)
    for (task, method, size), runs in sorted(groups.items()):
        seconds = sum(run.result["seconds"] for run in runs) / len(runs)
        gpus = sum(run.result["processes"] * (run.result["device"] == "cuda") for run in runs) / len(runs)
        what = f"fine-tuning: {task}, {method}, one run (mean of {len(runs)})"
        cells.append((what, duration(seconds), _gpu_hours(seconds * gpus / 3600), str(size)))
    return Table.of(("what", "time", "GPU hours", "labelled examples"), cells)


def _gpu_hours(hours: float) -> str:
    return f"{hours:.3g}" if hours else "none"


def runs_table(results: FinetuneResults) -> Table:
    """List each run with its status, its steps and its first and last loss."""
    cells = []
    for run in results.runs:
        losses = run.result.get("losses", [])
        loss = f"{losses[0]:.3f} → {losses[-1]:.3f}" if losses else NONE
        cut = str(run.result.get("truncated", NONE))
        steps = str(run.tuning.settings["steps"])
        cells.append((run.tuning.label, run.row.status, str(run.tuning.examples), steps, loss, cut))
    return Table.of(("run", "status", "examples", "steps", "loss", "prompts cut"), cells, words=2)


# -------------------------------------------------------------------- words
def learned_words(board: Board, task: str) -> str:
    """Describe the numbers of `learned_table`."""
    finetune = board.config.finetune
    assert finetune is not None
    seeds = count(len(finetune.seeds), "seed")
    after = f"the mean over {seeds} ± their standard deviation" if len(finetune.seeds) > 1 else "± one standard error"
    metric = finetune.tasks[task].metric or "the task's first metric"
    return f"{metric} before fine-tuning (0-shot, ± one standard error over documents) and after it: {after}."


def protocol_words(board: Board) -> str:
    """Describe the settings of all runs, and where they differ from the paper's."""
    finetune = board.config.finetune
    assert finetune is not None
    paper = type(finetune).model_fields
    keys = ("epochs", "learning_rate", "batch_size", "accumulation", "max_length", "min_steps", "optimizer")
    own = [f"{key} {getattr(finetune, key)}" for key in keys if getattr(finetune, key) != paper[key].default]
    off = f" Different from the paper's protocol: {listed(own)}." if own else " The settings are the paper's."
    return (
        "All starting points were trained in the same way: the loss on responses only, one example per row (no "
        f"packing), long prompts cut within their input, no example dropped.{off}"
    )


# -------------------------------------------------------------------- figure
def learning_curves(board: Board) -> Figure | None:
    """Draw Figure 4 of the paper: score against labelled examples.

    Bars are the standard deviation over seeds, dotted lines the 0-shot scores. None where no run is scored.
    """
    results = board.finetuning
    drawn = [task for task in tasks(board) if results and series(results, task)]
    if results is None or not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure = new_figure(board, 5.6 * len(drawn), 4.2)
        styles = looks(start.label for start, _ in results.starts)
        lines = {method: style for method, style in zip(("full", "lora", "icft"), ("-", "--", "-."), strict=True)}
        for axes, task in zip(figure.subplots(1, len(drawn), squeeze=False).flat, drawn, strict=True):
            for (start, method), curve in series(results, task).items():
                look, sizes = styles[start], list(curve)
                means = [mean_score(curve[size]).value for size in sizes]
                errors = [spread(curve[size]) or 0.0 for size in sizes]
                axes.errorbar(
                    sizes, means, errors, color=look.colour, marker=look.marker, markersize=5, capsize=2,
                    linestyle=lines[method], linewidth=1.2,
                )  # fmt: skip
            for origin, row in results.starts:
                if task in row.scores:
                    axes.axhline(row.scores[task].value, color=styles[origin.label].colour, linestyle=":", linewidth=1)
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted({s for c in series(results, task).values() for s in c}))
            axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
            axes.set_xlabel("labelled examples")
            axes.set_ylabel(task)
        handles = [
            Line2D([], [], color=look.colour, marker=look.marker, markersize=5, label=name)
            for name, look in styles.items()
        ]
        methods = {run.tuning.method for run in results.runs}
        handles += [Line2D([], [], color="0.35", linestyle=lines[m], label=m) for m in lines if m in methods]
        handles.append(Line2D([], [], color="0.35", linestyle=":", label="0-shot"))
        legend(figure, handles)
        return figure
