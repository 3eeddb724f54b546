"""Rating sheets for clinicians: stored outputs of some recipes, blinded and shuffled, a sheet a rater.

    FOLDER/rater-1.csv, …            item, input, output and an empty column for each criterion; UTF-8 with a byte order
                                     mark, by which spreadsheets know it
    FOLDER/rubric.txt                the criteria, and what each value means
    DIR/reviews/<review>/key.json    which recipe gave which item; never leaves DIR

Nothing in FOLDER tells recipes apart: ids and orders come from the operating system's randomness, not from a seed, so
whoever knows this code, the sweep and all recipes still needs the key. `orchestrator.review.ratings` reads the sheets
back.
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
from orchestrator.recipes.recipe import Recipe, find_recipe
from orchestrator.report.words import point_title
from orchestrator.stages.open import Sweep
from tasks.evaluation.ledger_lm import Unanswered
from tasks.evaluation.suites import SuiteTask

LETTERS = "bcdfghjkmnpqrstvwxz"
"""No digits and no vowels: a spreadsheet takes 12345e67 for a number and mar5 for a date, and would save that."""
CELL = 32_000
"""Characters; a spreadsheet's cell holds 32,767."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
ITEM = "item"


@dataclass(frozen=True)
class Criterion:
    name: str
    question: str
    values: tuple[str, ...]
    """What 1, 2, … mean; the last is the best."""

    @property
    def allowed(self) -> dict[str, int]:
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
    """What is rated: a text, and all recipes that gave it for this document. Nobody rates the same text twice."""

    document: int
    recipes: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Review:
    """What was written, for the person who sends it out."""

    key: Path
    sheets: list[Path]
    items: int
    documents: int
    truncated: int
    """Documents whose prompt was cut to fit the engine; the sheets show them whole."""


def write_review(
    sweep: Sweep,
    names: Sequence[str],
    task: str | None,
    folder: Path,
    sample: int = 20,
    raters: int = 2,
    reference: bool = False,
) -> Review:
    """Write a sheet for each rater to `folder` (0700, files 0600) and the key to the sweep's own folder.

    Args:
        names: recipes, as `find_recipe` takes them; the first is what the others are compared with.
        task: a generation task of the sweep, `objective/task` where it has several of that name; None for the only one.
        sample: documents at most. The same seed, task and number give the same documents, a smaller number some of
            them: reviews of other recipes can be laid beside this one.
        reference: show the reference text too.

    Raises:
        UserError: an unknown recipe or task, answers that are missing, no reference texts, or `folder` exists.
    """
    check_new(folder)
    suite = generation_task(sweep, task)
    recipes = list({recipe.id: recipe for recipe in (find_recipe(sweep.recipes, name) for name in names)}.values())
    requests = {request.doc_id: request for request in suite.task.instances}
    drawn = random.Random(f"{sweep.config.seed} {suite.name}").sample(sorted(requests), len(requests))
    chosen = [requests[document] for document in drawn[:sample]]
    outputs = read_outputs(sweep, recipes, chosen)
    texts = {"input": {request.doc_id: suite.task.doc_to_text(request.doc) for request in chosen}}
    if reference:
        texts["reference"] = {request.doc_id: _reference(suite, request) for request in chosen}
    ids, home = _ids(raters * len(outputs)), make_private(sweep.layout.reviews) / next(_ids(1))
    items, sheets = {}, {}
    for rater in range(1, raters + 1):
        rows = {next(ids): output for output in apart(outputs, secrets.SystemRandom())}
        sheets[make_private(folder) / f"rater-{rater}.csv"] = sheet(rows, texts)
        items.update({i: {"rater": rater, "document": o.document, "recipes": o.recipes} for i, o in rows.items()})
    labels = {recipe.id: point_title(recipe.points[0]) for recipe in recipes}
    # The key first: without it the sheets are worth nothing.
    write_json(make_private(home) / "key.json", {"task": suite.name, "recipes": labels, "items": items})
    for path, data in {**sheets, folder / "rubric.txt": rubric().encode()}.items():
        write_atomic(path, data)
    cut = sum(sweep.tasks.lm.questions(request)[0].truncated > 0 for request in chosen)
    return Review(home / "key.json", list(sheets), len(outputs), len(chosen), cut)


def generation_task(sweep: Sweep, name: str | None) -> SuiteTask:
    """The task whose answers are texts and that goes by `name`.

    Raises:
        UserError: none, or several.
    """
    suites = [suite for suite in sweep.tasks.suites if suite.task.OUTPUT_TYPE == "generate_until"]
    known = [f"{suite.objective}/{suite.name}" for suite in suites]
    if not known:
        raise UserError("review: no task of this sweep generates text (output_type: generate_until); nothing to rate")
    found = [s for s, full in zip(suites, known, strict=True) if name in (None, s.name, full)]
    if len(found) == 1:
        return found[0]
    if name is None:
        raise UserError(f"--task: the sweep has {len(known)} tasks that generate text; name one of: {', '.join(known)}")
    what = "stands for several tasks" if found else "is no task of this sweep that generates text"
    raise UserError(f"--task {name!r} {what}{hint(name, known)}; name one of: {', '.join(known)}")


def read_outputs(sweep: Sweep, recipes: Sequence[Recipe], requests: Sequence[Any]) -> list[Output]:
    """The recipes' stored answers to lm-eval's requests, as its metrics see them before any filter.

    Raises:
        UserError: a recipe has not answered them all.
    """
    givers: dict[tuple[int, str], list[str]] = defaultdict(list)
    for recipe in recipes:
        try:
            answers = sweep.tasks.lm.knowing(sweep.ledger.answers(recipe.id)).generate_until(list(requests))
        except Unanswered as error:
            raise UserError(
                f"{recipe.label}: {error}; finish the sweep with `run`, or review recipes that have answered"
            ) from None
        for request, text in zip(requests, answers, strict=True):
            givers[request.doc_id, text].append(recipe.id)
    return [Output(document, tuple(recipe_ids), text) for (document, text), recipe_ids in givers.items()]


def _reference(suite: SuiteTask, request: Any) -> str:
    target = suite.task.doc_to_target(request.doc)
    texts = target if isinstance(target, list) else [target]
    if not all(isinstance(text, str) for text in texts):
        raise UserError(f"--reference: {suite.name} has no reference texts; leave it out")
    return "\n\n".join(texts)


def apart(outputs: Iterable[Output], rng: random.Random) -> list[Output]:
    """A random order in which outputs for the same document stand apart, wherever that can be: side by side they would
    be compared instead of rated.

    The next document is one of those with the most outputs left, the last one's excepted; drawn among equals.
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
    """Different random ids. Each rater has ids of their own: a sheet that is handed in twice is then noticed."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(secrets.choice(LETTERS) for _ in range(8))] = None
    return iter(found)


# -------------------------------------------------------------------- files
def sheet(rows: dict[str, Output], texts: dict[str, dict[int, str]]) -> bytes:
    """One rater's CSV.

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
    """Columns of texts under their headers: one, or more where a text is longer than a cell holds."""
    pieces = [[_harmless(text[i : i + CELL]) for i in range(0, len(text), CELL)] for text in texts]
    return [
        [f"{name} ({n + 1})" if n else name, *(piece[n] if n < len(piece) else "" for piece in pieces)]
        for n in range(max(1, *map(len, pieces)))
    ]


def _harmless(text: str) -> str:
    """A spreadsheet runs a cell that begins like a formula (CWE-1236), and lists begin with a dash."""
    return f"'{text}" if text.startswith(FORMULA) else text


def rubric() -> str:
    """What raters are told."""
    lines = [
        "Please rate every row of your sheet by the three criteria below: a whole number from 1 to 5, 5 is best.",
        "Leave a cell empty where you cannot judge. Rate by yourself; do not compare with other raters before all",
        "sheets are back. Rate every output by its own: the same input comes back with other outputs.",
        "",
        "Save the sheet as CSV, and leave the column 'item' as it is. An apostrophe before =, +, - or @ at the start",
        "of a text belongs to the sheet. A text too long for one cell goes on in the column with (2) in its name.",
        "",
        "The texts may be patients': keep the sheet where such texts may be kept, and delete it when you are done.",
    ]
    for criterion in CRITERIA:
        lines += ["", criterion.name, criterion.question]
        lines += [f"  {value}  {text}" for value, text in reversed([*enumerate(criterion.values, 1)])]
    return "\n".join(lines) + "\n"
