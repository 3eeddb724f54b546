"""The report's part on published figures: tables of what they are here, how far apart, and what differs."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.core.text import duration, listed
from orchestrator.ledger.spent import busy
from orchestrator.report.beside import Beside, Entry
from orchestrator.report.finetune import engines_words, trained_words
from orchestrator.report.learning import ONE_SEED, mean_text
from orchestrator.report.protocol import Differing
from orchestrator.report.tables import NONE, Table
from orchestrator.report.words import signed, span, title
from orchestrator.results.board import Board
from orchestrator.stats.seeds import SeedMean

READING = (
    "A difference is this run's score minus the published figure, whose own error is not known: it is taken as it "
    "stands. The 95 % interval is that of the difference, as far as this run's questions and seeds make it; each holds "
    "for itself. An interval with 0 in it does not show that the two are equal."
)
DIFFERS = (
    "What the source says of how its figures were made, or does not say, beside what was done here. The models and the "
    "prompts may differ besides."
)
COST = (
    "Wall-clock time. Here a merge is written straight into the running engine; a source that writes checkpoints pays "
    "for the disk, too."
)


COMPARED = ("published", "this run", "difference", "95 % interval")


# -------------------------------------------------------------------- tables
def rows_table(beside: Beside) -> Table:
    """Compare the figures without fine-tuning."""
    head = ("published as", "here", "objective", "differs in", *COMPARED)
    cells = [
        (entry.model, _here(entry), entry.measure, _differs(entry), f"{entry.value:g}", *_compared(entry))
        for entry in beside.rows
    ]
    return Table.of(head, cells, words=4)


def finetuned_table(beside: Beside, place: str) -> Table:
    """Compare the figures of fine-tuning at one place of the source."""
    head = ("published as", "here", "task", "differs in", "examples", *COMPARED)
    cells = [
        (entry.model, _here(entry), entry.measure, _differs(entry), str(entry.examples), f"{entry.value:g}",
         *_compared(entry))
        for entry in beside.finetuned
        if entry.place == place
    ]  # fmt: skip
    return Table.of(head, cells, words=4)


def _compared(entry: Entry) -> tuple[str, str, str]:
    """The cells of this run's score, of the difference and of its 95 % interval."""
    if not entry.scores:
        return NONE, NONE, NONE
    own = SeedMean.of(entry.scores)
    low, high = (end - entry.value for end in own.interval())
    text = ONE_SEED if entry.size is not None and own.seeds < 2 else span(low, high)
    return mean_text(own), signed(own.value - entry.value), text


def _here(entry: Entry) -> str:
    return entry.start or (title(entry.row) if entry.row else NONE)


def _differs(entry: Entry) -> str:
    return ", ".join(each.name for each in entry.differs) or NONE


def differing_table(beside: Beside) -> Table:
    """List every setting that differs, with its two values and the figures that it is about."""
    found: dict[Differing, list[str]] = {}
    for entry in (*beside.rows, *beside.finetuned):
        for each in entry.differs:
            found.setdefault(each, []).append(entry.measure)
    cells = [(each.setting, each.there, each.here, listed(dict.fromkeys(of))) for each, of in found.items()]
    return Table.of(("setting", "there", "here", "of"), cells, words=4)


def costs_table(beside: Beside) -> Table:
    """Compare what merging and the instruction-tuned baseline took."""
    head = ("what", "published", "on", "labelled examples", "this run", "on", "labelled examples")
    cells = []
    ours = {"merging": ("merging, one model", _merging), "baseline": ("the instruction-tuned baseline", _baseline)}
    for key, cost in beside.published.costs.items():
        name, here = ours[key]
        there = (duration(60 * cost.minutes / cost.checkpoints), cost.hardware or NONE, f"{cost.labelled_examples:,}")
        cells.append((name, *there, *here(beside.board)))
    return Table.of(head, cells)


def _merging(board: Board) -> tuple[str, str, str]:
    """What the weights of one merge took here, however many workers were at it."""
    merges = [row for row in board.rows if not row.recipe.is_copy and row.spent]
    if not merges:
        return NONE, NONE, NONE
    work = busy((block for row in merges for block in row.spent), "swap_s")
    return duration(work.wall_s / len(merges)), engines_words(board, work), "0"


def _baseline(board: Board) -> tuple[str, str, str]:
    run = board.finetuning and board.finetuning.baseline
    if not run or not run.result:
        return NONE, NONE, NONE
    return duration(run.result["seconds"]), trained_words(board, [run]), f"{run.tuning.examples:,}"


# -------------------------------------------------------------------- words
def words(beside: Beside) -> Iterable[str]:
    """Say where the figures are from, how to read them, and which of them this run does not have."""
    yield f"From: {beside.published.source}."
    yield READING
    if names := beside.unmatched:
        yield f"This run has nothing by these names: {listed(names, most=len(names))}."
