"""The report's tables as cells of text; the templates and the terminal decide how a table looks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.text import duration
from orchestrator.ledger.ledger import COSTS
from orchestrator.models.serving import tokenizer_of
from orchestrator.recipes.recipe import Source
from orchestrator.report.words import (
    composite_words,
    detectable_text,
    full_title,
    heading,
    number,
    parent_name,
    ranked,
    reference,
    score_text,
    scored,
    signed,
    span,
    title,
)
from orchestrator.results.board import Board, Row
from orchestrator.stats.power import detectable_from
from orchestrator.stats.scores import estimates
from orchestrator.stats.simultaneous import critical

NONE = "–"
MESSAGE = 300
"""Most characters of a failure's message that are shown."""


@dataclass(frozen=True)
class Table:
    """A table's cells, and which of its columns are words."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kinds: tuple[str, ...] = ()
    """For each row, its style: `front`, `near`, `parent`."""
    words: int = 1
    """Number of leading columns that are words and aligned left; the others are numbers."""

    @classmethod
    def of(cls, head: Iterable[str], rows: Iterable[Iterable[str]], words: int = 1) -> Table:
        """Make a table whose rows have no style of their own."""
        return cls(tuple(head), tuple(map(tuple, rows)), words=words)


def mark(row: Row) -> str:
    """The cell of a recipe in the column `front`: `on`, `near` or nothing."""
    return "on" if row.on_front else "near" if row.near_front else ""


def kind(row: Row) -> str:
    """The style of a recipe's row: `front`, `near`, `parent`, two of them, or nothing."""
    place = "front" if row.on_front else "near" if row.near_front else ""
    return f"{place} parent".strip() if parent_name(row) else place


def leaderboard(board: Board) -> Table:
    """List all recipes with status and scores, best first."""
    names = list(board.objectives)
    rows = ranked(board, board.rows)
    cells = [(row.recipe.id, full_title(row), row.status, mark(row), *_scores(row, names)) for row in rows]
    titles = ("id", "recipe", "status", "front", *(heading(board, name) for name in names))
    return Table(titles, tuple(cells), tuple(map(kind, rows)), words=4)


def front(board: Board) -> Table:
    """List the recipes on the front and near it."""
    names = list(board.objectives)
    chosen = [row for row in ranked(board, scored(board)) if row.on_front or row.near_front]
    cells = [(title(row), mark(row), row.recipe.id, *_scores(row, names)) for row in chosen]
    titles = ("recipe", "front", "id", *(heading(board, name) for name in names))
    return Table(titles, tuple(cells), tuple(map(kind, chosen)), words=3)


def differences(board: Board) -> Table:
    """Compare each recipe on the front with each parent, in every objective, with 95 % intervals that hold at once.

    They hold at once for all scored recipes (`comparisons`), as the front was chosen by the same answers.
    """
    head = ("recipe", "against", "objective", "verdict", "difference", "95 % interval", "detectable")
    rows = ranked(board, scored(board))
    parents = [place for place, row in enumerate(rows) if parent_name(row)]
    chosen = [place for place, row in enumerate(rows) if row.on_front]
    if not [place for place in chosen if parents not in ([], [place])]:
        return Table(head, ())
    scores = {name: estimates([row.scores[name] for row in rows]) for name in board.objectives}
    family = {(parent, name): scores[name] - scores[name][[parent]] for parent in parents for name in scores}
    normal = critical([*family.values()])
    ends = {key: each[chosen].interval(normal) for key, each in family.items()}
    shown = {key: detectable_from(each[chosen], normal) for key, each in family.items()}
    cells = []
    for index, place in enumerate(chosen):
        for parent in (parent for parent in parents if parent != place):
            for name, objective in board.objectives.items():
                low, high = (float(end[index]) for end in ends[parent, name])
                difference = signed(float(family[parent, name].values[place]))
                words = (title(rows[place]), title(rows[parent]), name, verdict(low, high, objective.sign))
                cells.append((*words, difference, span(low, high), detectable_text(shown[parent, name][index])))
    return Table.of(head, cells, words=4)


def comparisons(board: Board) -> int:
    """The number of differences between scored recipes and parents, for all of which the intervals hold at once."""
    rows = scored(board)
    return (len(rows) - 1) * sum(bool(parent_name(row)) for row in rows) * len(board.objectives)


def verdict(low: float, high: float, sign: float) -> str:
    """What an interval of a difference says: `better`, `worse`, or nothing where it does not leave out 0."""
    return "better" if min(sign * low, sign * high) > 0 else "worse" if max(sign * low, sign * high) < 0 else ""


def _scores(row: Row, names: Iterable[str]) -> list[str]:
    return [score_text(row.scores[name]) if name in row.scores else NONE for name in names]


def tasks(board: Board, objective: str) -> Table:
    """List an objective's scores task by task; where a task has several metrics, they follow its value."""
    rows = ranked(board, scored(board))
    only = {(task.task, *task.metrics) for task in board.tasks if task.objective == objective}
    columns = [
        (task.task, metric)
        for task in (rows[0].scores[objective].tasks if rows else ())
        for metric in ("", *(task.metrics if len(task.metrics) > 1 else ()))
        if (task.task, metric) not in only  # a task's only metric is its value
    ]
    cells = []
    for row in rows:
        values = {(t.task, m): v for t in row.scores[objective].tasks for m, v in {"": t.value, **t.metrics}.items()}
        cells.append(
            (
                title(row),
                number(row.scores[objective].value),
                *(number(values[c]) if c in values else NONE for c in columns),
            )
        )
    titles = (_column(board, task, metric) for task, metric in columns)
    return Table(("recipe", heading(board, objective), *titles), tuple(cells), tuple(map(kind, rows)))


def _column(board: Board, task: str, metric: str) -> str:
    """Head a column of a task's metric; with what it takes, where it is a composite."""
    takes = {words for each in board.tasks if each.task == task and (words := composite_words(each, metric))}
    return " ".join([f"{task}: {metric}" if metric else task, *(f"(with {words})" for words in takes)])


def slerp(board: Board) -> Table:
    """List the share of tensors that SLERP interpolates along the arc, for each pair of parents."""
    cells = [
        (pair, str(int(share["tensors"])), f"{100 * share['curved']:.1f} %", f"{share['lowest_cosine']:.6f}")
        for pair, share in board.slerp.items()
    ]
    return Table.of(("parents", "tensors", "share with |cos| <= 0.9995", "lowest cosine"), cells)


def failures(board: Board) -> Table:
    """List the recipes without scores and why; messages are on one line and cut, tracebacks are in DIR/failures."""
    cells = []
    for row in board.rows:
        if row.failure is not None:
            message = " ".join(row.failure.message.split())
            message = message if len(message) <= MESSAGE else message[: MESSAGE - 1] + "…"
            cells.append((row.recipe.id, title(row), row.failure.status, row.failure.stage, message))
    return Table.of(("id", "recipe", "status", "stage", "message"), cells, words=5)


def questions(board: Board) -> Table:
    """List each task's number of documents and questions, and how many prompts were cut."""
    cells = [
        (t.objective, t.task, t.split, ", ".join(t.metrics), f"{t.documents}", f"{t.questions}", f"{t.truncated}")
        for t in board.tasks
    ]
    head = ("objective", "task", "split", "metrics", "documents", "questions", "truncated prompts")
    return Table.of(head, cells, words=4)


def sources(board: Board) -> Table:
    """List the models that the recipes are made from."""
    found: dict[str, Source] = {}
    for row in board.rows:
        for source, _ in row.recipe.models:
            found.setdefault(source.name, source)
    cells = [(name, reference(source), source.digest) for name, source in found.items()]
    return Table.of(("name", "model", "digest of the weights"), cells, words=3)


def serving(board: Board) -> Table:
    """List the engine, the numeric profile and everything that all recipes share when they are served."""
    fixed, profile = board.serving, board.profile
    cells = [
        ("engine", profile.engine),
        ("device", profile.device),
        ("tensor parallel size", str(profile.tensor_parallel_size)),
        ("pipeline parallel size", str(profile.pipeline_parallel_size)),
        ("dtype", profile.dtype),
        ("tokenizer", f"that of {tokenizer_of(board.config, fixed)}, digest {fixed.tokenizer}"),
        ("chat template", "none" if fixed.chat_template is None else f"that of {fixed.parent}"),
        ("stop ids", ", ".join(map(str, fixed.stop_token_ids)) or "none"),
        ("max_model_len", str(fixed.max_model_len)),
        *((key, "engine's default" if value is None else str(value)) for key, value in fixed.engine),
        ("identity of serving", fixed.id),
        ("identity of profile", profile.id),
    ]
    return Table.of(("setting", "value"), cells, words=2)


def timings(board: Board) -> Table:
    """List the worker time that each recipe took, for loading and for answering."""
    cells = [
        (title(row), *(duration(row.costs[key]) if any(row.costs.values()) else NONE for key in COSTS))
        for row in ranked(board, board.rows)
    ]
    sums = (duration(sum(row.costs.get(key, 0.0) for row in board.rows)) for key in COSTS)
    return Table.of(("recipe", "loading", "answering"), [*cells, ("all", *sums)])
