"""The report's part on fine-tuning besides what was learned: what was forgotten, and what it cost.

It makes Table 1 of arXiv 2604.01538 from `orchestrator.results.board.FinetuneResults`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from orchestrator.config.finetune import ICFT_NAME, METHOD_NAMES, Method
from orchestrator.core.records import RecipeStatus
from orchestrator.core.text import count, duration, listed
from orchestrator.ledger.spent import Busy, busy
from orchestrator.report.learning import after, span_text
from orchestrator.report.tables import NONE, Table
from orchestrator.report.words import signed
from orchestrator.results.board import Board, FinetunedRow, FinetuneResults, Row
from orchestrator.stats.seeds import SeedMean


def starts_table(results: FinetuneResults) -> Table:
    """List the starting points and the rule that chose each."""
    cells = [(start.label, start.rule, start.recipe.id) for start, _ in results.starts]
    return Table.of(("starting point", "chosen by", "recipe id"), cells, words=3)


def forgotten_table(board: Board, results: FinetuneResults) -> Table:
    """Compare the task and the sweep's objectives after fine-tuning with those before, as means over seeds."""
    before = {start.label: row for start, row in results.starts}
    groups: dict[tuple[str, str, Method, int], dict[int, Row]] = defaultdict(dict)
    for run in results.runs:
        if run.row.status == before[run.tuning.start_label].status == RecipeStatus.SCORED:
            tuning = run.tuning
            groups[tuning.task, tuning.start_label, tuning.method, tuning.examples][tuning.seed] = run.row
    cells = []
    for (task, start, method, size), rows in sorted(groups.items()):
        changes = [
            after({seed: row.scores[name] for seed, row in rows.items()}) - SeedMean.of([before[start].scores[name]])
            for name in (task, *board.objectives)
        ]
        spans = (f"{signed(change.value)} ({span_text(change)})" for change in changes)
        cells.append((task, start, METHOD_NAMES[method], str(size), *spans))
    head = ("task", "starting point", "method", "examples", "learned", *board.objectives)
    return Table.of(head, cells, words=3)


def costs_table(board: Board, results: FinetuneResults) -> Table:
    """Make Table 1 of the paper: what merging, answering and fine-tuning take in time, hardware and labelled examples.

    Wall-clock is the time in which anything of it was done, worker time what all workers spent on it.
    """
    merges = [row for row in board.rows if not row.recipe.is_copy]
    merging = busy((block for row in merges for block in row.spent), "swap_s")
    answering = busy((block for row in board.rows for block in row.spent), "answer_s")
    cells = [
        _worked(board, f"merging: {count(len(merges), 'merge')} loaded into engines", merging),
        _worked(board, f"answering: {count(len(board.rows), 'recipe')} evaluated", answering),
    ]
    groups: dict[tuple[str, Method, int], list[FinetunedRow]] = defaultdict(list)
    for run in results.runs:
        if run.result:
            groups[run.tuning.task, run.tuning.method, run.tuning.examples].append(run)
    for (task, method, size), runs in sorted(groups.items()):
        wall = sum(run.result["seconds"] for run in runs) / len(runs)
        worker = sum(run.result["seconds"] * run.result["processes"] for run in runs) / len(runs)
        what = f"fine-tuning: {task}, {METHOD_NAMES[method]}, one run (mean of {len(runs)})"
        cells.append((what, trained_words(board, runs), duration(wall), duration(worker), str(size)))
    return Table.of(("what", "hardware", "wall-clock", "worker time", "labelled examples"), cells, words=2)


def _worked(board: Board, what: str, work: Busy) -> tuple[str, ...]:
    """The row of the engines' work; it needs no labelled examples."""
    return what, engines_words(board, work), duration(work.wall_s), duration(work.worker_s), "0"


def engines_words(board: Board, work: Busy) -> str:
    """Name the hardware of the engines that did some work."""
    workers = board.config.workers
    ranks = work.workers * workers.engine.ranks
    return _hardware(ranks * workers.gpus, ranks * workers.cpus, work.devices)


def trained_words(board: Board, runs: Sequence[FinetunedRow]) -> str:
    """Name the hardware that one of these runs had, at most."""
    assert board.config.finetune is not None
    results = [run.result for run in runs]
    processes = max(result["processes"] for result in results)
    gpus = processes if results[0]["device"] == "cuda" else 0
    names = tuple(dict.fromkeys(name for result in results if (name := result.get("device_name"))))
    return _hardware(gpus, processes * board.config.finetune.cpus, names)


def _hardware(gpus: float, cpus: float, devices: tuple[str, ...]) -> str:
    """Format how many devices worked at the same time, and their names: `2 GPUs (NVIDIA H100)`."""
    number = f"{gpus:g} GPU{'s' * (gpus != 1)}" if gpus else f"{cpus:g} CPU core{'s' * (cpus != 1)}"
    return number + (f" ({listed(devices)})" if devices else "")


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


def method_words(board: Board) -> list[str]:
    """Describe the methods that need a word, where the sweep trains with them."""
    finetune = board.config.finetune
    assert finetune is not None
    about = {
        "lora_replay": "lora_replay is LoRA whose batches have general instructions beside the examples.",
        "icft": f"{ICFT_NAME}: a curriculum and replay, of which the abstract of arXiv 2502.00832 gives the names.",
    }
    both = "Between them only the order of the examples differs: what one has over the other is the curriculum's."
    found = [about[method] for method in finetune.method if method in about]
    return [" ".join([*found, both] if len(found) == 2 else found)] if found else []
