"""The report as a list of sections; the templates only say how a section looks in their language."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.config.published import Published
from orchestrator.report import finetune as tuning
from orchestrator.report import search as searched
from orchestrator.report import tables
from orchestrator.report.tables import Table
from orchestrator.report.words import average_words, count, encoder_words, reading, side_words, slerp_words, time_words
from orchestrator.results.board import Board

IMPORTANCE = (
    "How much of an objective's variance a parameter explains among the candidates of its method (fANOVA), estimates "
    "of those that were asked a part included."
)
CURVES = (
    "Score against the number of labelled examples. Bars are the standard deviation over seeds; dotted lines are the "
    "scores before fine-tuning."
)
EQUAL = (
    "Read off the curves, straight between two budgets over the logarithm of their sizes. The intervals come from "
    "documents and seeds drawn anew; with few seeds they are rough."
)
FORGOTTEN = (
    "What fine-tuning changed in the task (learned) and in the objectives of the first phase, the mean over seeds less "
    "the starting point, with the paired 95 % interval over questions."
)
COST = "Seconds of a worker: merging's are all swaps and answers of the first phase, fine-tuning's those of a training."
ASSUMPTIONS = Path(__file__).parents[2] / "ASSUMPTIONS.md"


@dataclass(frozen=True)
class Section:
    title: str
    words: tuple[str, ...] = ()
    table: Table | None = None
    figure: str | None = None
    """The name of a picture."""
    caption: str = ""
    markdown: str = ""
    """Text of our own, already in Markdown."""
    parts: tuple[Section, ...] = ()


def sections(board: Board, figures: set[str], published: Published | None) -> list[Section]:
    """
    Args:
        figures: the names of the pictures that could be drawn.
        published: others' figures, to stand beside the run's.
    """
    found = [
        _front(board, "front" in figures),
        *_searched(board, figures),
        Section("Leaderboard", (_leaderboard_words(board),), tables.leaderboard(board)),
        _differences(board),
        *([_published(board, published)] if published else []),
        _trajectories("trajectories" in figures),
        *_tuning(board, "learning" in figures),
        Section("Tasks", parts=tuple(_tasks(board, name) for name in board.config.objectives)),
        _slerp(board),
        _failures(board),
        _asked(board),
        Section(
            "How it was served",
            ("Every recipe was asked through the same tokenizer, the same template and the same stop ids.",),
            tables.served(board),
            parts=(Section("The models", table=tables.sources(board)),),
        ),
        Section("Time", (time_words(board),), tables.timings(board)),
        Section("How to read it", tuple(reading(board))),
        _assumptions(),
    ]
    return found


def _searched(board: Board, figures: set[str]) -> list[Section]:
    if board.searched is None:
        return []
    shown = "The probability to be on the front is that of a bootstrap over the questions, paired over all recipes."
    volume = "Of the recipes that were asked everything, candidate by candidate; the bar is a 95 % interval."
    lines = "A line a candidate, its colour the first objective; the thick ones are on the front."
    table = searched.importance(board.searched)
    parts = [
        Section("Hypervolume", figure="volume", caption=volume),
        *([Section("Parameters", figure="parallel", caption=lines)] if "parallel" in figures else []),
        *([Section("Importance", (IMPORTANCE,), table)] if table.rows else []),
        Section("Candidates", (shown,), searched.candidates(board)),
    ]
    return [Section("The search", tuple(searched.words(board.searched)), parts=tuple(parts))]


def _leaderboard_words(board: Board) -> str:
    sides = (f" {name}:{words}" for name in board.config.objectives if (words := side_words(board, name)))
    return "Sorted by the first objective, best first." + "".join(sides)


def _front(board: Board, drawn: bool) -> Section:
    if not drawn:
        return Section("The front", ("There is no front yet: no recipe is scored.",))
    caption = "Bars are one standard error. Stars are the parents; rings are near the front. "
    if len(board.objectives) == 1:
        caption += "In bold: the front, which is the best."
    else:
        caption += "Full colours are on the front, labelled by their ratio or by the values that vary. "
        caption += (
            "The line is the edge of what the front is better than."
            if len(board.objectives) == 2
            else "A recipe on the front of all objectives need not lie on the edge of a panel, which shows two."
        )
    return Section("The front", table=tables.front(board), figure="front", caption=caption)


def _differences(board: Board) -> Section:
    """Which differences mean something."""
    name, table = "The front against the parents", tables.differences(board)
    if not table.rows:
        return Section(
            name, ("There is nothing to compare: a scored parent and another recipe on the front are needed.",)
        )
    words = (
        "Paired: both answered the same questions. A difference means something where its 95 % interval (bootstrap "
        "over the questions) leaves out 0; there it says better or worse. Of twenty differences that are none, one "
        "will look like one by chance."
    )
    return Section(name, (words,), table)


def _published(board: Board, published: Published) -> Section:
    words = f"From: {published.source}. The models, prompts and numeric profile there may not be those here."
    return Section("Beside published figures", (words,), tables.published(board, published))


def _trajectories(drawn: bool) -> Section:
    name = "Along the mixing ratio"
    if not drawn:
        return Section(name, ("There is nothing to draw: no scored recipe lies between two parents at an alpha or t.",))
    caption = (
        "Each objective along alpha (Linear) or t (SLERP), from the first parent to the second. Bands are one "
        "standard error to either side; dotted lines are the parents' own scores."
    )
    return Section(name, figure="trajectories", caption=caption)


def _tuning(board: Board, drawn: bool) -> list[Section]:
    """The second phase, where the sweep has one."""
    if board.config.finetune is None:
        return []
    tuned, name = board.tuned, "Fine-tuning"
    if tuned is None:
        return [Section(name, ("It begins when every recipe of the first phase is scored.",))]
    parts = [Section("Starting points", table=tuning.starts_table(tuned))]
    for task in tuning.tasks(board):
        parts.append(Section(task, (tuning.learned_words(board, task),), tuning.learned_table(board, tuned, task)))
        if (table := tuning.equivalents_table(board, tuned, task)).rows:
            parts.append(Section(f"{task}: examples that are worth as much", (EQUAL,), table))
    parts.append(Section("What was forgotten", (FORGOTTEN,), tuning.forgotten_table(board, tuned)))
    parts.append(Section("What it cost", (COST,), tuning.costs_table(board, tuned)))
    parts.append(Section("The runs", table=tuning.runs_table(tuned)))
    words = (tuning.protocol_words(board),)
    figure = "learning" if drawn else None
    return [Section(name, words, figure=figure, caption=CURVES if drawn else "", parts=tuple(parts))]


def _tasks(board: Board, objective: str) -> Section:
    table = tables.tasks(board, objective)
    return Section(objective, (average_words(board, objective),), table if table.rows else None)


def _slerp(board: Board) -> Section:
    name = "Where SLERP differs from Linear"
    if not board.slerp:
        return Section(name, ("No pair of parents was compared: the sweep has no SLERP between two parents.",))
    words = tuple(slerp_words(pair, share) for pair, share in board.slerp.items())
    return Section(name, words, tables.slerp(board))


def _failures(board: Board) -> Section:
    table = tables.failures(board)
    if not table.rows:
        return Section("Failures", ("None.",))
    words = (
        "An invalid recipe cannot be scored and trying again cannot help; a failed one broke on the way, and "
        "the next run tries it again. Neither is given a score."
    )
    return Section("Failures", (words,), table)


def _asked(board: Board) -> Section:
    cut, questions = (sum(getattr(suite, key) for suite in board.suites) for key in ("truncated", "questions"))
    length = f"max_model_len = {board.serving.max_model_len}"
    truncation = f"{count(cut, 'prompt')} did not fit {length} and lost a part." if cut else "None was cut."
    words = f"{count(questions, 'question')} a recipe. {truncation}"
    encoder = board.config.generation and board.config.generation.encoder
    more = (encoder_words(encoder),) if encoder else ()
    return Section("What was asked", (words, *more), tables.asked(board))


def _assumptions() -> Section:
    """Without its own title. The file belongs to the repository and is not installed with the packages."""
    name = "Assumptions"
    if not ASSUMPTIONS.is_file():
        return Section(name, ("They are in ASSUMPTIONS.md in mergefront's repository, which is not installed here.",))
    text = ASSUMPTIONS.read_text(encoding="utf-8")
    body = text.split("\n", 1)[1] if text.startswith("# ") else text
    return Section(name, markdown=body.replace("\n## ", "\n### ").strip())
