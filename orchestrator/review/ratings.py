"""Filled rating sheets, unblinded: each recipe's means with standard errors, paired differences, and agreement.

The sheets come from `orchestrator.review.sheets`. Documents were sampled, so errors are over documents: a document's
value is the mean of its raters. Differences are taken rater by rater within a document, so that neither a hard document
nor a strict rater counts for one recipe only.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.core.errors import UserError
from orchestrator.core.files import read_json_if_exists, write_json
from orchestrator.core.rows import delimiter_of
from orchestrator.results.layout import Layout, ReviewFolder
from orchestrator.review.sheets import CRITERIA, ITEM, Criterion

SAVE = "save the sheet as CSV with quotes around its texts"


@dataclass(frozen=True)
class Rating:
    """One filled cell of a sheet."""

    rater: int
    document: int
    recipes: tuple[str, ...]
    """Ids of all recipes that generated the rated text."""
    criterion: str
    value: int


@dataclass(frozen=True)
class Mean:
    """A mean over documents; None where there are too few (none for the value, one for its standard error)."""

    value: float | None
    se: float | None
    documents: int


@dataclass(frozen=True)
class CriterionResult:
    """The results of one criterion."""

    criterion: str
    means: dict[str, Mean]
    """Recipe id → its mean rating."""
    differences: dict[str, Mean]
    """Recipe id → its mean rating minus that of the first recipe, paired."""
    alpha: float | None
    """Krippendorff's alpha, ordinal; None where it is not defined."""
    shared: int
    """Number of texts that two raters or more have rated: alpha is over these."""


@dataclass(frozen=True)
class Ratings:
    """All results of a review."""

    task: str
    labels: dict[str, str]
    """Recipe id → label; the first is what the others are compared with."""
    empty: dict[int, tuple[int, int]]
    """Rater → number of missing ratings, and number of all ratings on the sheet."""
    results: tuple[CriterionResult, ...]
    file: Path
    """`ratings.json`."""


def read_review(layout: Layout, folder: Path) -> Ratings:
    """Read filled sheets, whatever the names of their files, and write `ratings.json` beside their key.

    Args:
        layout: of the sweep's results folder.
        folder: where the sheets are; cells may be empty and rows may be missing.

    Raises:
        UserError: there is no sheet, a file is no sheet of this sweep, a sheet is there twice, a value is not allowed,
            or nothing is filled in.
    """
    sheets = {file: _rows(file) for file in sorted(folder.glob("[!.~]*.csv"))}
    if not sheets:
        raise UserError(f"--read {folder}: has no .csv file; name the folder with the filled sheets, saved as CSV")
    home, key = _find_review(layout, folder, {row[ITEM] for rows in sheets.values() for row in rows.values()})
    ratings = list(_ratings(sheets, key["items"]))
    if not ratings:
        raise UserError(f"--read {folder}: no rating is filled in yet; fill in {', '.join(c.name for c in CRITERIA)}")
    expected = Counter(item["rater"] for item in key["items"].values() for _ in CRITERIA)
    given = Counter(rating.rater for rating in ratings)
    empty = {rater: (of - given[rater], of) for rater, of in expected.items()}
    results = tuple(
        result(c.name, [r for r in ratings if r.criterion == c.name], list(key["recipes"])) for c in CRITERIA
    )
    read = Ratings(key["task"], key["recipes"], empty, results, home.ratings)
    write_json(read.file, {k: v for k, v in dataclasses.asdict(read).items() if k != "file"})
    return read


# -------------------------------------------------------------------- reading
def _rows(file: Path) -> dict[int, dict[str, str]]:
    """Read a sheet: row number as in a spreadsheet → column → cell, without the empty rows that spreadsheets leave."""
    # Ids and ratings are ASCII: of the encodings in which a spreadsheet saves the texts, only UTF-16 matters.
    raw = file.read_bytes()
    text = raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig", errors="replace")
    wanted = [ITEM, *(criterion.name for criterion in CRITERIA)]
    delimiter = delimiter_of(next(iter(text.splitlines()), ""))
    header: list[str] = []
    rows = {}
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), 1):
            if not header:
                header = _header(file, [name.strip() for name in cells], wanted)
            elif any(map(str.strip, cells[len(header) :])):
                raise UserError(f"{file}, row {number}: has more cells than the first row; {SAVE}")
            else:
                row = dict(zip(header, map(str.strip, cells), strict=False))
                rows[number] = {name: row.get(name, "") for name in wanted}
    except csv.Error:
        raise UserError(f"{file}, row {len(rows) + 2}: is not valid CSV; {SAVE}") from None
    _header(file, header, wanted)
    return {number: row for number, row in rows.items() if any(row.values())}


def _header(file: Path, header: list[str], wanted: Sequence[str]) -> list[str]:
    """The columns of a sheet, each that is wanted once."""
    for name in wanted:
        if header.count(name) != 1:
            what = f"has no column {name!r}" if name not in header else f"has the column {name!r} twice"
            raise UserError(
                f"{file}: {what} in its first row (needs: {', '.join(wanted)}); save the sheet as CSV with its header "
                "as it was, and keep other .csv files elsewhere"
            )
    return header


def _find_review(layout: Layout, folder: Path, items: set[str]) -> tuple[ReviewFolder, dict[str, Any]]:
    """Find the review that the items belong to: its folder and its key."""
    for review in layout.all_reviews():
        key = read_json_if_exists(review.key)
        if items & key["items"].keys():
            return review, key
    raise UserError(
        f"--read {folder}: no sheet there was written from {layout.root} (its keys are in {layout.reviews}); name the "
        "results folder that `review --to` was run on"
    )


def _ratings(sheets: Mapping[Path, dict[int, dict[str, str]]], items: dict[str, dict[str, Any]]) -> Iterator[Rating]:
    """Yield every filled cell.

    Messages name places and never contents: in a sheet with shifted columns, any cell may have a patient's text.
    """
    seen: dict[str, tuple[Path, int]] = {}
    for file, rows in sheets.items():
        for number, row in rows.items():
            item = items.get(row[ITEM])
            where = f"{file}, row {number}, column"
            if item is None:
                way_out = "restore the id as it was sent, and keep other reviews in other folders"
                raise UserError(f"{where} {ITEM}: is no item of this review; {way_out}")
            if row[ITEM] in seen:
                other, place = seen[row[ITEM]]
                raise UserError(f"{where} {ITEM}: is also in {other}, row {place}; keep one of the two")
            seen[row[ITEM]] = file, number
            for criterion in CRITERIA:
                value = _value(criterion, row[criterion.name], where)
                if value is not None:
                    yield Rating(item["rater"], item["document"], tuple(item["recipes"]), criterion.name, value)


def _value(criterion: Criterion, cell: str, where: str) -> int | None:
    if not cell:
        return None
    value = criterion.allowed.get(cell.removesuffix(".0"))  # what programs make of whole numbers beside empty cells
    if value is None:
        allowed = ", ".join(criterion.allowed)
        raise UserError(
            f"{where} {criterion.name}: is none of {allowed}; correct it, or leave it empty if it is not rated"
        )
    return value


# -------------------------------------------------------------------- statistics
def result(criterion: str, ratings: Sequence[Rating], recipes: Sequence[str]) -> CriterionResult:
    """Compute means, differences from the first recipe, and agreement, from one criterion's ratings."""
    cells: dict[str, dict[tuple[int, int], float]] = {recipe: {} for recipe in recipes}
    texts: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
    for rating in ratings:
        texts[rating.document, rating.recipes].append(rating.value)
        for recipe in rating.recipes:
            cells[recipe][rating.document, rating.rater] = rating.value
    first = cells[recipes[0]]
    differences = {
        recipe: mean((place, own[place] - first[place]) for place in own if place in first)
        for recipe, own in cells.items()
        if recipe != recipes[0]
    }
    means = {recipe: mean(own.items()) for recipe, own in cells.items()}
    units = [values for values in texts.values() if len(values) > 1]
    return CriterionResult(criterion, means, differences, krippendorff_alpha(units), len(units))


def mean(cells: Iterable[tuple[tuple[int, int], float]]) -> Mean:
    """Compute the mean over documents of the mean over raters, and its standard error.

    Args:
        cells: ((document, rater), value) for each rating.
    """
    documents: dict[int, list[float]] = defaultdict(list)
    for (document, _), value in cells:
        documents[document].append(value)
    values = [math.fsum(group) / len(group) for group in documents.values()]
    se = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(math.fsum(values) / len(values) if values else None, se, len(values))


def krippendorff_alpha(units: Iterable[Sequence[int]]) -> float | None:
    """Compute agreement beyond chance of ordinal ratings: 1 is perfect, 0 is chance, below 0 systematic disagreement.

    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), with its ordinal metric. It allows any number of
    raters and sheets with gaps; weighted kappa needs exactly two raters and no gaps.

    Args:
        units: for each rated text its ratings, by any raters; texts with fewer than two do not count.

    Returns:
        None where alpha is not defined: no two ratings of one text, or the same value everywhere.
    """
    pairable = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in pairable for value in unit})
    if len(values) < 2:
        return None
    counts = np.array([[unit.count(value) for value in values] for unit in map(list, pairable)], float)
    weighted = counts / (counts.sum(axis=1, keepdims=True) - 1)
    coincidences = counts.T @ weighted - np.diag(weighted.sum(axis=0))
    totals = counts.sum(axis=0)
    # The metric adds up the ratings from one value to the other, half of both ends: the distance of their mean ranks.
    ranks = np.cumsum(totals) - totals / 2
    distances = (ranks[:, None] - ranks[None, :]) ** 2
    observed, by_chance = (coincidences * distances).sum(), (np.outer(totals, totals) * distances).sum()
    return float(1 - (totals.sum() - 1) * observed / by_chance)
