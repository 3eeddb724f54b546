"""The report's part on the second phase: what was learned, from how much, what was forgotten, and what it cost.

Tables 1 and 2 and Figure 4 of arXiv 2604.01538, made of the starts and runs of `orchestrator.results.board.Tuned`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.report.style import STYLE, legend, looks, new_figure
from orchestrator.report.tables import NONE, Table
from orchestrator.report.words import count, listed, number, score_text, seconds, signed
from orchestrator.results.board import Board, Tuned, TunedRow
from orchestrator.stats.learning_curves import Curve, Equivalent, equivalents, mean_score, spread
from orchestrator.stats.scores import Score, interval

Series = dict[tuple[str, str], dict[int, list[Score]]]
"""(start, method) → number of examples → the scores of its seeds."""


def series(board: Board, tuned: Tuned, task: str) -> Series:
    """A fine-tuning task's scored runs."""
    found: Series = defaultdict(lambda: defaultdict(list))
    for run in tuned.runs:
        if run.tuning.task == task and run.row.status == "scored":
            found[run.tuning.start_label, run.tuning.method][run.tuning.examples].append(run.row.scores[task])
    return {key: dict(sorted(curve.items())) for key, curve in found.items()}


def tasks(board: Board) -> list[str]:
    return list(board.config.finetune.tasks) if board.config.finetune else []


def sign(board: Board, task: str) -> float:
    assert board.config.finetune is not None
    return 1.0 if board.config.finetune.tasks[task].direction == "maximize" else -1.0


def several(scores: Sequence[Score]) -> str:
    """Mean and, over several seeds, their standard deviation; of one seed, the standard error over documents."""
    deviation = spread(scores)
    if deviation is None:
        return score_text(scores[0])
    return f"{number(mean_score(scores).value)} ± {number(deviation)}"


# -------------------------------------------------------------------- tables
def starts_table(tuned: Tuned) -> Table:
    cells = [(start.label, start.rule, start.recipe.id) for start, _ in tuned.starts]
    return Table.of(("starting point", "chosen by", "recipe"), cells, words=3)


def learned_table(board: Board, tuned: Tuned, task: str) -> Table:
    """Table 2: a row a start, before and after fine-tuning."""
    curves = series(board, tuned, task)
    columns = sorted({(method, size) for (_, method), curve in curves.items() for size in curve})
    cells = []
    for start, row in tuned.starts:
        before = score_text(row.scores[task]) if task in row.scores else NONE
        after = (curves.get((start.label, method), {}).get(size) for method, size in columns)
        cells.append((start.label, before, *(several(scores) if scores else NONE for scores in after)))
    head = ("starting point", "0-shot", *(f"{method}, {size}" for method, size in columns))
    return Table.of(head, cells)


def equivalents_table(board: Board, tuned: Tuned, task: str) -> Table:
    curves = series(board, tuned, task)
    cells = []
    for (start, method), curve in curves.items():
        for (other, same), reference in curves.items():
            if start != other and method == same and len(reference) > 1:
                for found in equivalents(curve, reference, sign(board, task)):
                    cells.append((method, f"{start}: {found.examples}", other, *_read(found, reference)))
    head = ("method", "examples of", "equal of", "examples", "95 % interval")
    return Table.of(head, cells, words=3)


def _read(found: Equivalent, reference: Curve) -> tuple[str, str]:
    def text(value: float) -> str:
        if math.isinf(value):
            return f"over {max(reference)}"
        return f"{value:.0f}" if value else f"under {min(reference)}"

    return text(found.equal), f"{text(found.low)} to {text(found.high)}"


def forgotten_table(board: Board, tuned: Tuned) -> Table:
    """The first phase's objectives after fine-tuning, less before, the mean over seeds."""
    before = {start.label: row for start, row in tuned.starts}
    groups: dict[tuple[str, str, str, int], list[TunedRow]] = defaultdict(list)
    for run in tuned.runs:
        if run.row.status == "scored" and before[run.tuning.start_label].status == "scored":
            tuning = run.tuning
            groups[tuning.task, tuning.start_label, tuning.method, tuning.examples].append(run)
    names = list(board.config.objectives)
    cells = []
    for (task, start, method, size), runs in sorted(groups.items()):
        learned = signed(mean_score([run.row.scores[task] for run in runs]).value - before[start].scores[task].value)
        lost = [_change([run.row.scores[name] for run in runs], before[start].scores[name]) for name in names]
        cells.append((task, start, method, str(size), learned, *lost))
    return Table.of(("task", "starting point", "method", "examples", "learned", *names), cells, words=3)


def _change(after: Sequence[Score], before: Score) -> str:
    low, high = interval(mean_score(after), before)
    return f"{signed(mean_score(after).value - before.value)} ({signed(low)} to {signed(high)})"


def costs_table(board: Board, tuned: Tuned) -> Table:
    """Table 1: merging against fine-tuning."""
    workers = board.config.workers
    merging = sum(sum(row.costs.values()) for row in board.rows)
    cells = [(f"merging: all {count(len(board.rows), 'recipe')} found and scored", seconds(merging),
              _gpu_hours(workers.gpu_hours(merging) if workers.gpus else 0.0), "0")]  # fmt: skip
    groups: dict[tuple[str, str, int], list[TunedRow]] = defaultdict(list)
    for run in tuned.runs:
        if run.result:
            groups[run.tuning.task, run.tuning.method, run.tuning.examples].append(run)
    for (task, method, size), runs in sorted(groups.items()):
        spent = sum(run.result["seconds"] for run in runs) / len(runs)
        cards = sum(run.result["processes"] * (run.result["device"] == "cuda") for run in runs) / len(runs)
        told = f"fine-tuning: {task}, {method}, a run (mean of {len(runs)})"
        cells.append((told, seconds(spent), _gpu_hours(spent * cards / 3600), str(size)))
    return Table.of(("what", "time", "GPU hours", "labelled examples"), cells)


def _gpu_hours(hours: float) -> str:
    return f"{hours:.3g}" if hours else "none"


def runs_table(tuned: Tuned) -> Table:
    cells = []
    for run in tuned.runs:
        losses = run.result.get("losses", [])
        loss = f"{losses[0]:.3f} → {losses[-1]:.3f}" if losses else NONE
        cut = str(run.result.get("truncated", NONE))
        steps = str(run.tuning.settings["steps"])
        cells.append((run.tuning.label, run.row.status, str(run.tuning.examples), steps, loss, cut))
    return Table.of(("run", "status", "examples", "steps", "loss", "prompts cut"), cells, words=2)


# -------------------------------------------------------------------- words
def learned_words(board: Board, task: str) -> str:
    finetune = board.config.finetune
    assert finetune is not None
    seeds = count(len(finetune.seeds), "seed")
    after = f"the mean over {seeds} ± their standard deviation" if len(finetune.seeds) > 1 else "± one standard error"
    metric = finetune.tasks[task].metric or "the task's first metric"
    return f"{metric} before fine-tuning (0-shot, ± one standard error over documents) and after it: {after}."


def protocol_words(board: Board) -> str:
    """The settings, and where they leave the paper's."""
    finetune = board.config.finetune
    assert finetune is not None
    paper = type(finetune).model_fields
    keys = ("epochs", "learning_rate", "batch_size", "accumulation", "max_length", "min_steps", "optimizer")
    own = [f"{key} {getattr(finetune, key)}" for key in keys if getattr(finetune, key) != paper[key].default]
    off = f" Off the paper's protocol: {listed(own)}." if own else " The settings are the paper's."
    return (
        "All starting points were trained alike: the loss on responses only, one example a row (no packing), prompts "
        f"cut at their input, no example dropped.{off}"
    )


# -------------------------------------------------------------------- figure
def learning_curves(board: Board) -> Figure | None:
    """Figure 4: score against labelled examples; bars are the spread over seeds, dotted lines the 0-shot scores."""
    tuned = board.tuned
    drawn = [task for task in tasks(board) if tuned and series(board, tuned, task)]
    if tuned is None or not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure = new_figure(board, 5.6 * len(drawn), 4.2)
        styles = looks(start.label for start, _ in tuned.starts)
        lines = {method: style for method, style in zip(("full", "lora", "icft"), ("-", "--", "-."), strict=True)}
        for axes, task in zip(figure.subplots(1, len(drawn), squeeze=False).flat, drawn, strict=True):
            for (start, method), curve in series(board, tuned, task).items():
                look, sizes = styles[start], list(curve)
                means = [mean_score(curve[size]).value for size in sizes]
                errors = [spread(curve[size]) or 0.0 for size in sizes]
                axes.errorbar(
                    sizes, means, errors, color=look.colour, marker=look.marker, markersize=5, capsize=2,
                    linestyle=lines[method], linewidth=1.2,
                )  # fmt: skip
            for origin, row in tuned.starts:
                if task in row.scores:
                    axes.axhline(row.scores[task].value, color=styles[origin.label].colour, linestyle=":", linewidth=1)
            axes.set_xscale("log", base=2)
            axes.set_xticks(sorted({s for c in series(board, tuned, task).values() for s in c}))
            axes.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
            axes.set_xlabel("labelled examples")
            axes.set_ylabel(task)
        handles = [
            Line2D([], [], color=look.colour, marker=look.marker, markersize=5, label=name)
            for name, look in styles.items()
        ]
        methods = {run.tuning.method for run in tuned.runs}
        handles += [Line2D([], [], color="0.35", linestyle=lines[m], label=m) for m in lines if m in methods]
        handles.append(Line2D([], [], color="0.35", linestyle=":", label="0-shot"))
        legend(figure, handles)
        return figure
