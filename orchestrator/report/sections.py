"""The report as a list of sections; the templates only lay a section out, in HTML and in Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.config.methods import ratio_words
from orchestrator.core.text import count
from orchestrator.report import finetune, learning, published, replies, retention, search, tables
from orchestrator.report.beside import Beside
from orchestrator.report.tables import Table
from orchestrator.report.words import (
    average_words,
    encoder_words,
    may_be_words,
    reading,
    side_words,
    slerp_words,
    time_words,
)
from orchestrator.results.board import Board

IMPORTANCE = (
    "How much of an objective's variance a parameter explains among the candidates of its method (fANOVA); candidates "
    "that have answered a part of the questions count with their estimates."
)
CURVES = (
    "Score against the number of labelled examples. Bars are one standard error of the mean, over seeds and documents "
    "(over documents, where there is one seed); dotted lines are the scores before fine-tuning."
)
EQUAL = (
    "With so many examples the other starting point has the same score. The number is read off its curve, made not to "
    "fall (isotonic) and straight between two budgets over the logarithm of the number of examples. The 95 % interval "
    "is for new seeds and new documents, and holds whatever the curve is between two budgets, as long as it does not "
    "fall; so it begins and ends at budgets. Each interval holds for itself, not all of them together."
)
FORGOTTEN = (
    "What fine-tuning changed in its task (learned) and in the sweep's objectives: the mean over seeds minus the "
    "starting point, with its 95 % interval for new seeds and new questions, paired by question. Each interval holds "
    "for itself, not all of them together."
)
COST = (
    "Wall-clock is the time in which any worker was at it, worker time that of all workers together; starting engines "
    "and workers is in neither. The hardware is what was at work at the same time."
)
REPLIES = (
    "Counted from the stored answers. None of it is part of a score, unless the objective's metric names it; a mean "
    "over tasks is weighted as in the objective."
)
ASSUMPTIONS = Path(__file__).parents[2] / "ASSUMPTIONS.md"


@dataclass(frozen=True)
class Section:
    """One section of the report, with its parts."""

    title: str
    words: tuple[str, ...] = ()
    table: Table | None = None
    figure: str | None = None
    """The name of a figure, without its extension."""
    caption: str = ""
    markdown: str = ""
    """Text that is Markdown already."""
    parts: tuple[Section, ...] = ()


def sections(board: Board, figures: set[str], beside: Beside | None) -> list[Section]:
    """Make the report's sections, in order.

    Args:
        figures: the names of the figures that could be drawn.
        beside: published figures to compare the run's with.
    """
    return [
        _front(board, "front" in figures),
        *_search(board, figures),
        Section("Leaderboard", (_leaderboard_words(board),), tables.leaderboard(board)),
        _differences(board),
        *_retained(board),
        _trajectories("trajectories" in figures),
        *_finetuning(board, "learning" in figures),
        *([_beside(beside)] if beside else []),
        Section("Tasks", parts=tuple(_tasks(board, name) for name in board.objectives)),
        *_replies(board),
        _slerp(board),
        _failures(board),
        _questions(board),
        Section(
            "Serving",
            ("Every recipe was evaluated with the same tokenizer, the same chat template and the same stop ids.",),
            tables.serving(board),
            parts=(Section("The models", table=tables.sources(board)),),
        ),
        Section("Time", (time_words(board),), tables.timings(board)),
        Section("How to read this report", tuple(reading(board))),
        _assumptions(),
    ]


def _search(board: Board, figures: set[str]) -> list[Section]:
    if board.search is None:
        return []
    resamplings = (
        "Values and the front are in-sample: on the questions that recipes were chosen by. The share of resamplings "
        "is that in which a recipe is on the front with the errors of all scores drawn anew, paired by question; it is "
        "no probability of belonging there. Near: off the front, but no recipe beats it in every objective beyond "
        "doubt, on the questions that both answered; for recipes that are chosen beforehand, the front that all such "
        "questions would show is among both with 95 % confidence."
    )
    volume = (
        "In-sample: of the recipes that have answered all questions of the search, candidate by candidate, above the "
        "parents' worst. Recipes are chosen by these answers, so that the curve is too high."
    )
    lines = "A line for each candidate, its colour the first objective; the thick ones are on the front."
    table = search.importance(board.search)
    parts = [
        Section("Hypervolume", figure="volume", caption=volume),
        *([Section("Parameters", figure="parallel", caption=lines)] if "parallel" in figures else []),
        *([Section("Importance", (IMPORTANCE,), table)] if table.rows else []),
        Section("Candidates", (resamplings,), search.candidates(board)),
    ]
    return [Section("The search", tuple(search.words(board.search)), parts=tuple(parts))]


def _leaderboard_words(board: Board) -> str:
    sides = (f" {name}:{words}" for name in board.objectives if (words := side_words(board, name)))
    return "Sorted by the first objective, best first." + "".join(sides)


def _front(board: Board, drawn: bool) -> Section:
    if not drawn:
        return Section("The front", ("There is no front yet: no recipe is scored.",))
    caption = "Bars are one standard error. Stars are the parents; rings may be on the front as well (near it). "
    if len(board.axes) == 1:
        caption += "In bold: the front, which is the best."
    else:
        caption += "Full colours are on the front, labelled by their ratio or by the values that vary. "
        caption += (
            "The line is the edge of what the front is better than."
            if len(board.axes) == 2
            else "A recipe on the front of all objectives need not lie on the edge of a panel, which shows two."
        )
    words = f"{count(len(board.front), 'recipe')} on the front. {may_be_words(board)}"
    return Section("The front", (words,), tables.front(board), figure="front", caption=caption)


def _differences(board: Board) -> Section:
    """Show which differences between the front and the parents are more than noise."""
    name, table = "The front against the parents", tables.differences(board)
    if not table.rows:
        return Section(
            name, ("There is nothing to compare: a scored parent and another recipe on the front are needed.",)
        )
    words = (
        "Paired: both answered the same questions. The intervals hold at once: with 95 % confidence each of the "
        f"{tables.comparisons(board)} differences between a scored recipe and a parent lies in its own, those that are "
        "not shown included, because the front was chosen by the same answers. The verdict says better or worse where "
        "an interval leaves out 0; of twenty such reports, one at most has a verdict that is wrong. Questions of "
        "the same kind are meant, and the recipes as they are. Detectable is how large a difference would have to be "
        "to get a verdict with a probability of 80 %; where there is none, smaller ones are not ruled out."
    )
    return Section(name, (words,), table)


def _retained(board: Board) -> list[Section]:
    table = retention.merges_table(board)
    return [Section("What the front retains of the parents", (retention.words(board),), table)] if table.rows else []


def _beside(beside: Beside) -> Section:
    """Lay published figures beside the run's."""
    parts = [Section("Without fine-tuning", table=published.rows_table(beside))] if beside.rows else []
    parts += [Section(place, table=published.finetuned_table(beside, place)) for place in beside.published.finetuned]
    if beside.published.costs:
        parts.append(Section("What it took", (published.COST,), published.costs_table(beside)))
    if (table := published.differing_table(beside)).rows:
        parts.append(Section("What differs", (published.DIFFERS,), table))
    return Section("Beside published figures", tuple(published.words(beside)), parts=tuple(parts))


def _trajectories(drawn: bool) -> Section:
    name = "Along the mixing ratio"
    if not drawn:
        return Section(name, ("There is nothing to draw: no scored recipe lies between two parents at an alpha or t.",))
    caption = (
        f"Each objective along {ratio_words()}, from the first parent to the second. Bands are one "
        "standard error to either side; dotted lines are the parents' own scores."
    )
    return Section(name, figure="trajectories", caption=caption)


def _finetuning(board: Board, drawn: bool) -> list[Section]:
    """Show fine-tuning, where the sweep has it."""
    results, settings, name = board.finetuning, board.config.finetune, "Fine-tuning"
    if results is None or settings is None:
        waiting = Section(name, ("It begins when every recipe of the sweep is scored.",))
        return [waiting] if board.awaits_finetuning else []
    parts = [Section("Starting points", table=finetune.starts_table(results))]
    for task in learning.tasks(board):
        parts.append(Section(task, (learning.learned_words(board, task),), learning.learned_table(results, task)))
        if found := learning.gaps(results, task):
            table = learning.gaps_table(found, settings.tasks[task].sign)
            title = f"{task}: starting points against one another"
            parts.append(Section(title, (learning.gaps_words(found),), table))
        if (table := learning.equivalents_table(board, results, task)).rows:
            parts.append(Section(f"{task}: examples that are worth as much", (EQUAL,), table))
    parts.append(Section("What was forgotten", (FORGOTTEN,), finetune.forgotten_table(board, results)))
    if (table := retention.tuned_table(board, results)).rows:
        parts.append(Section("What was retained", (retention.words(board),), table))
    parts.append(Section("What it cost", (COST,), finetune.costs_table(board, results)))
    parts.append(Section("The runs", table=finetune.runs_table(results)))
    words = (finetune.protocol_words(board), *finetune.method_words(board))
    figure = "learning" if drawn else None
    return [Section(name, words, figure=figure, caption=CURVES if drawn else "", parts=tuple(parts))]


def _tasks(board: Board, objective: str) -> Section:
    table = tables.tasks(board, objective)
    return Section(objective, (average_words(board, objective),), table if table.rows else None)


def _replies(board: Board) -> list[Section]:
    """Show the measures of replies, where there are any: they are no part of a score unless `metric` names them."""
    parts = []
    for name in board.objectives:
        if (table := replies.table(board, name)).head[1:]:
            places = tuple(Section("Which place was chosen", table=each) for each in replies.places(board, name))
            parts.append(Section(name, tuple(replies.coverage(board, name)), table, parts=places))
    words = (REPLIES, *replies.meanings(board))
    return [Section("How recipes reply", words, parts=tuple(parts))] if parts else []


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
        "An invalid recipe cannot be scored, and another attempt cannot help; a failed one broke on the way, and "
        "the next run tries it again. An unscored one is answered, but a metric of its answers is no number. None of "
        "them is compared with others."
    )
    return Section("Failures", (words,), table)


def _questions(board: Board) -> Section:
    cut, questions = (sum(getattr(task, key) for task in board.tasks) for key in ("truncated", "questions"))
    length = f"max_model_len = {board.serving.max_model_len}"
    truncation = f"{count(cut, 'prompt')} did not fit {length} and lost a part." if cut else "No prompt was cut."
    words = f"{count(questions, 'question')} for each recipe. {truncation}"
    encoder = board.config.generation and board.config.generation.encoder
    more = (encoder_words(encoder),) if encoder else ()
    return Section("Questions", (words, *more), tables.questions(board))


def _assumptions() -> Section:
    """Show ASSUMPTIONS.md without its title; the file is in the repository and not installed with the packages."""
    name = "Assumptions"
    if not ASSUMPTIONS.is_file():
        return Section(name, ("They are in ASSUMPTIONS.md in mergefront's repository, which is not installed here.",))
    text = ASSUMPTIONS.read_text(encoding="utf-8")
    body = text.split("\n", 1)[1] if text.startswith("# ") else text
    return Section(name, markdown=body.replace("\n## ", "\n### ").strip())
