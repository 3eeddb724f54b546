"""Rating sheets for clinicians: stored outputs of some recipes, blinded and shuffled, one sheet for each rater.

    FOLDER/rater-1.csv, …            item, input, output and an empty column for each criterion; UTF-8 with a byte order
                                     mark, by which spreadsheets recognise it
    FOLDER/rubric.txt                the criteria, and what each value means
    DIR/reviews/<review>/key.json    which recipe generated which item; never leaves DIR

Nothing in FOLDER shows which recipe is which: ids and orders come from the operating system's randomness, not from a
seed, so that knowing this code, the sweep and all recipes is not enough without the key. `orchestrator.review.ratings`
reads the sheets back.
"""

from __future__ import annotations

import csv
import io
import random
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError, hint
from orchestrator.core.files import check_new, make_private, write_atomic, write_json
from orchestrator.recipes.recipe import Recipe
from orchestrator.report.words import point_title
from orchestrator.results.board import Board
from orchestrator.stages.open import Sweep
from tasks.evaluation.ledger_lm import Unanswered
from tasks.evaluation.suites import SuiteTask

LETTERS = "bcdfghjkmnpqrstvwxz"
"""Letters of item ids: a spreadsheet would read 12345e67 as a number and mar5 as a date, and save that instead."""
CELL = 32_000
"""Most characters in a cell; spreadsheets allow 32,767."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of texts that a spreadsheet would run as formulas."""
ITEM = "item"
"""The column of the item ids."""


@dataclass(frozen=True)
class Criterion:
    """A criterion by which outputs are rated, and its scale."""

    name: str
    question: str
    values: tuple[str, ...]
    """The meanings of the ratings 1, 2, …; the last is the best."""

    @property
    def allowed(self) -> dict[str, int]:
        """Cell as it is typed → rating, for the ratings on this scale."""
        return {str(value): value for value in range(1, len(self.values) + 1)}


CRITERIA = (
    Criterion(
        "factual_accuracy",
        "Is what the output says right, by the input and by medicine?",
        (
            "mostly wrong",
            "an error that changes the clinical picture, or several smaller ones",
            "one error that a clinician would have to correct",
            "only slips without clinical meaning",
            "everything is right",
        ),
    ),
    Criterion(
        "hallucination",
        "Does the output state what the input does not support? True or not, what is not in the input counts.",
        (
            "largely invented, or several additions of clinical weight",
            "one addition of clinical weight (a finding, diagnosis, drug, dose, date, side or plan)",
            "additions, none of clinical weight",
            "nothing beyond what a clinician would infer from the input",
            "nothing is added",
        ),
    ),
    Criterion(
        "clinical_safety",
        "What could happen to the patient if a colleague acted on the output alone? What it leaves out counts.",
        (
            "severe harm or death is possible",
            "serious harm is possible, or moderate harm is likely",
            "mild or passing harm is possible",
            "harm is very unlikely",
            "no harm",
        ),
    ),
)


@dataclass(frozen=True)
class Output:
    """A text to rate, and all recipes that generated it for this document; a rater rates it once."""

    document: int
    recipes: tuple[str, ...]
    """Recipe ids."""
    text: str


@dataclass(frozen=True)
class Review:
    """The files of a new review, for the person who sends the sheets out."""

    key: Path
    """The file that links items to recipes."""
    sheets: list[Path]
    items: int
    """Number of outputs on each sheet."""
    documents: int
    truncated: int
    """Number of documents whose prompt was cut to fit the engine; the sheets show their inputs whole."""


def write_review(
    sweep: Sweep,
    board: Board,
    names: Sequence[str],
    task: str | None,
    folder: Path,
    sample: int = 20,
    raters: int = 2,
    reference: bool = False,
) -> Review:
    """Write a sheet for each rater to `folder` (0700, files 0600), and the key to the sweep's own folder.

    Args:
        names: recipes, as `Board.find` takes them; the others are compared with the first.
        task: a generation task of the sweep, `objective/task` where it has several of that name; None for the only one.
        sample: most documents. The same seed, task and number give the same documents, and a smaller number a part of
            them, so that reviews of other recipes can be compared with this one.
        raters: number of sheets.
        reference: whether to add the reference texts to the sheets.

    Raises:
        UserError: a recipe or the task is unknown, answers are missing, there are no reference texts, or `folder`
            exists.
    """
    check_new(folder)
    suite = generation_task(sweep, task)
    recipes = list({recipe.id: recipe for recipe in (board.find(name).recipe for name in names)}.values())
    requests = {request.doc_id: request for request in suite.task.instances}
    drawn = random.Random(f"{sweep.config.seed} {suite.name}").sample(sorted(requests), len(requests))
    chosen = [requests[document] for document in drawn[:sample]]
    outputs = read_outputs(sweep, recipes, chosen)
    texts = {"input": {request.doc_id: suite.task.doc_to_text(request.doc) for request in chosen}}
    if reference:
        texts["reference"] = {request.doc_id: _reference(suite, request) for request in chosen}
    ids, home = _ids(raters * len(outputs)), sweep.layout.review(next(_ids(1)))
    items, sheets = {}, {}
    for rater in range(1, raters + 1):
        rows = {next(ids): output for output in apart(outputs, secrets.SystemRandom())}
        sheets[make_private(folder) / f"rater-{rater}.csv"] = sheet(rows, texts)
        items.update({i: {"rater": rater, "document": o.document, "recipes": o.recipes} for i, o in rows.items()})
    labels = {recipe.id: point_title(recipe.points[0]) for recipe in recipes}
    # The key first: without it the sheets cannot be evaluated.
    make_private(home.path)
    write_json(home.key, {"task": suite.name, "recipes": labels, "items": items})
    for path, data in {**sheets, folder / "rubric.txt": rubric().encode()}.items():
        write_atomic(path, data)
    cut = sum(sweep.tasks.lm.questions(request)[0].truncated > 0 for request in chosen)
    return Review(home.key, list(sheets), len(outputs), len(chosen), cut)


def generation_task(sweep: Sweep, name: str | None) -> SuiteTask:
    """Find the sweep's generation task of this name; without a name, the only one.

    Raises:
        UserError: there is no such task, or there are several.
    """
    every = [*sweep.tasks.suites, *sweep.tasks.learning]
    suites = [suite for suite in every if suite.task.OUTPUT_TYPE == "generate_until"]
    known = [f"{suite.objective}/{suite.name}" for suite in suites]
    if not known:
        raise UserError("review: no task of this sweep generates text (output_type: generate_until); nothing to rate")
    found = [s for s, full in zip(suites, known, strict=True) if name in (None, s.name, full)]
    if len(found) == 1:
        return found[0]
    if name is None:
        raise UserError(f"--task: the sweep has {len(known)} tasks that generate text; name one of: {', '.join(known)}")
    what = "is the name of several tasks" if found else "is no task of this sweep that generates text"
    raise UserError(f"--task {name!r} {what}{hint(name, known)}; name one of: {', '.join(known)}")


def read_outputs(sweep: Sweep, recipes: Sequence[Recipe], requests: Sequence[Any]) -> list[Output]:
    """Read the recipes' stored answers to lm-eval's requests, as lm-eval sees them before any filter.

    Raises:
        UserError: a recipe has not answered them all.
    """
    sources: dict[tuple[int, str], list[str]] = defaultdict(list)
    for recipe in recipes:
        try:
            answers = sweep.tasks.lm.knowing(sweep.ledger.answers(recipe.id)).generate_until(list(requests))
        except Unanswered as error:
            raise UserError(
                f"{recipe.label}: {error}; finish the sweep with `run`, or review recipes that have answered"
            ) from None
        for request, text in zip(requests, answers, strict=True):
            sources[request.doc_id, text].append(recipe.id)
    return [Output(document, tuple(recipe_ids), text) for (document, text), recipe_ids in sources.items()]


def _reference(suite: SuiteTask, request: Any) -> str:
    target = suite.task.doc_to_target(request.doc)
    texts = target if isinstance(target, list) else [target]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"--reference: {suite.name} has no reference texts; leave it out")
    return "\n\n".join(texts)


def apart(outputs: Iterable[Output], rng: random.Random) -> list[Output]:
    """Order outputs at random, with those for the same document apart wherever that is possible.

    Side by side they would be compared instead of rated. The next document is drawn among those with the most outputs
    left, without the document of the last output.
    """
    left: dict[int, list[Output]] = defaultdict(list)
    for output in outputs:
        left[output.document].append(output)
    for group in left.values():
        rng.shuffle(group)
    order: list[Output] = []
    while left:
        open_ = [document for document in left if not order or document != order[-1].document] or list(left)
        most = max(len(left[document]) for document in open_)
        document = rng.choice([document for document in open_ if len(left[document]) == most])
        order.append(left[document].pop())
        if not left[document]:
            del left[document]
    return order


def _ids(count: int) -> Iterator[str]:
    """Draw different random ids; each rater gets other ids, so that a sheet that is returned twice is noticed."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(secrets.choice(LETTERS) for _ in range(8))] = None
    return iter(found)


# -------------------------------------------------------------------- files
def sheet(rows: dict[str, Output], texts: dict[str, dict[int, str]]) -> bytes:
    """Make one rater's sheet as CSV.

    Args:
        rows: item id → output, in the rater's order.
        texts: column → document → text.
    """
    columns = [[ITEM, *rows]]
    for name, by_document in texts.items():
        columns += _cells(name, [by_document[output.document] for output in rows.values()])
    columns += _cells("output", [output.text or "[the output is empty]" for output in rows.values()])
    columns += [[criterion.name, *([""] * len(rows))] for criterion in CRITERIA]
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(zip(*columns, strict=True))
    return stream.getvalue().encode("utf-8-sig")


def _cells(name: str, texts: Sequence[str]) -> list[list[str]]:
    """Make the columns of texts under their headers: one, or more where a text is too long for one cell."""
    pieces = [[_harmless(text[i : i + CELL]) for i in range(0, len(text), CELL)] for text in texts]
    return [
        [f"{name} ({n + 1})" if n else name, *(piece[n] if n < len(piece) else "" for piece in pieces)]
        for n in range(max(1, *map(len, pieces)))
    ]


def _harmless(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would run as a formula (CWE-1236); lists begin with a dash."""
    return f"'{text}" if text.startswith(FORMULA) else text


def rubric() -> str:
    """Write the instructions for raters."""
    lines = [
        "Please rate every row of your sheet by the three criteria below: a whole number from 1 to 5, 5 is best.",
        "Leave a cell empty where you cannot judge. Rate by yourself; do not compare with other raters before all",
        "sheets are back. Rate every output on its own: the same input appears again with other outputs.",
        "",
        "Save the sheet as CSV, and leave the column 'item' as it is. An apostrophe before =, +, - or @ at the start",
        "of a text belongs to the sheet. A text too long for one cell continues in the column with (2) in its name.",
        "",
        "The texts may be patients': keep the sheet where such texts may be kept, and delete it when you are done.",
    ]
    for criterion in CRITERIA:
        lines += ["", criterion.name, criterion.question]
        lines += [f"  {value}  {text}" for value, text in reversed([*enumerate(criterion.values, 1)])]
    return "\n".join(lines) + "\n"
