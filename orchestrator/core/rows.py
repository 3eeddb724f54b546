"""Rows of a user's file, which is JSON Lines, a JSON array of objects, CSV or Parquet; the texts may be gzipped.

What reads a user's rows reads them here. Nothing that is no text becomes text, no cell is lost, and every error names
the row. Messages have keys and numbers, never values.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import itertools
import json
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.core.row import TWICE, NoText, Row
from orchestrator.core.text import count
from orchestrator.core.user_file import UserFile

TABLES = (".csv", ".tsv")
DELIMITERS = ",;\t|"
"""Spreadsheets save CSV with the delimiter of their locale."""
NO_VALUE = ("nan", "NaN", "<NA>", "null", "NULL", "#NAME?", "#VALUE!", "#REF!", "#DIV/0!", "#NUM!", "#N/A", r"\N")
"""What programs and databases write into a CSV cell that has no value, or that a spreadsheet took for a formula."""
LONGEST_CELL = 32_767
"""Characters to which spreadsheets cut a cell."""


def read_rows(file: UserFile) -> Iterator[Row]:
    """Yield the rows of a file in its order.

    Raises:
        UserError: it cannot be read, or a row is broken.
    """
    if file.is_parquet():
        return _parquet(file)
    suffixes = [suffix.lower() for suffix in file.path.suffixes if suffix.lower() != ".gz"]
    return _table(file) if suffixes and suffixes[-1] in TABLES else _json(file)


# -------------------------------------------------------------------- JSON
def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        found.update({key: TWICE for key in keys if keys.count(key) > 1})
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_pairs)
LONE_RETURN = re.compile(r"(?<=\r)(?=[^\n])")
BLANK = re.compile(r"[ \t\r\n]*")


def _json(file: UserFile) -> Iterator[Row]:
    lines, seen = file.lines(), False
    for number, line in lines:
        if not line.strip(" \t\r\n"):
            continue
        if not seen and line.lstrip().startswith("["):
            yield from _array(file, number, line + "".join(text for _, text in lines))
            return
        seen, place = True, f"line {number}"
        try:
            value = DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            raise file.wrong(_broken(line, error), place) from None
        yield _object(file, number, place, value)


def _broken(line: str, error: Exception) -> str:
    if not line.endswith("\n"):
        return "is not valid JSON; if the file is cut off there, get it again, or write an object per line"
    if isinstance(error, json.JSONDecodeError) and line.lstrip().startswith("{") and error.pos >= len(line.rstrip()):
        return "is not valid JSON: the object does not end on its line; write an object per line, or one array"
    return "is not valid JSON; write an object per line"


def _object(file: UserFile, number: int, place: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise file.wrong("is no object; write an object per line, or one array of objects", place)
    return Row(file, number, place, value)


def _array(file: UserFile, line: int, text: str) -> Iterator[Row]:
    """The elements of the array that a file is, whose first bracket is on this line."""
    position, end, number = _skip(text, text.index("[") + 1), 0, 0
    while text[position : position + 1] != "]":
        number += 1
        line, end = line + text.count("\n", end, position), position
        place = f"element {number} (line {line})"
        try:
            value, position = DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            cut = "the array does not end: the file is cut off" if position >= len(text) else "is not valid JSON"
            raise file.wrong(f"{cut}; get it again, or write an object per line", place) from None
        yield _object(file, number, place, value)
        position = _skip(text, position)
        if text[position : position + 1] == ",":
            position = _skip(text, position + 1)
        elif text[position : position + 1] != "]":
            raise file.wrong("the array does not go on or end after it; the file is cut off or broken", place)
    if _skip(text, position + 1) < len(text):
        raise file.wrong("has more after the array; write one array of objects, or an object per line")


def _skip(text: str, position: int) -> int:
    blank = BLANK.match(text, position)
    assert blank is not None
    return blank.end()


# -------------------------------------------------------------------- tables
class _Lines:
    """A file's lines as the csv module wants them.

    They end with carriage returns alone where the first one does, as in old files.
    """

    def __init__(self, file: UserFile) -> None:
        self.number = 0
        """Of the line that was read last."""
        self._file = file

    def __iter__(self) -> Iterator[str]:
        old = False
        for number, line in self._file.lines():
            old = bool(LONE_RETURN.search(line)) if number == 1 else old
            self.number = number
            yield from LONE_RETURN.split(line) if old else [line]


def _table(file: UserFile) -> Iterator[Row]:
    """The rows under a header. The delimiter is the one that the header has most of, unless a line `sep=;` names it."""
    csv.field_size_limit(sys.maxsize)
    counted = _Lines(file)
    lines = iter(counted)
    head = next((line for line in lines if line.strip()), "")
    if named := re.fullmatch(r'"?sep=(.)"?\s*', head):
        head = next(lines, "")
    delimiter = named[1] if named else delimiter_of(head)
    records = csv.reader(itertools.chain([head], lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    way_out = f"put quotes around texts with {delimiter!r} or line breaks, or get the file again if it is cut off"
    header: list[str] = []
    number = 0
    while True:
        place = f"row {number + 1} (line {counted.number + 1})" if header else "line 1"
        try:
            cells = next(records, None)
        except csv.Error:
            raise file.wrong(f"is not valid CSV; {way_out}", place) from None
        if cells is None:
            return
        if not header:
            header = [name.strip() for name in cells]
        elif any(map(str.strip, cells)) or len(cells) not in (0, 1, len(header)):
            number += 1
            if len(cells) != len(header):
                what = f"has {count(len(cells), 'cell')}, but the header has {len(header)}"
                raise file.wrong(f"{what}; {way_out}", place)
            if what := _changed(header, cells):
                raise file.wrong(what, place)
            yield Row(file, number, place, _named(header, cells))


def _changed(header: list[str], cells: list[str]) -> str:
    """What shows that a row is not as it was written, and the way out; "" where nothing does."""
    if [cell.strip("\ufeff ") for cell in cells] == header:
        return "is the header again: these are two files, one after the other; split them"
    if any(len(cell) == LONGEST_CELL for cell in cells):
        return f"has a text of {LONGEST_CELL} characters, to which spreadsheets cut it; get the file as it was before"
    return ""


def delimiter_of(header: str) -> str:
    """Return the delimiter that a table's first line has most of outside of quotes; a comma where it has none."""

    def cells(mark: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=mark, skipinitialspace=True, strict=True), []))
        except csv.Error:
            return 0

    return max(DELIMITERS, key=cells)


def _named(header: list[str], cells: list[str]) -> dict[str, Any]:
    """Column → cell; the columns that pandas names nothing, its index, are left out."""
    values: dict[str, Any] = {name: _value(cell) for name, cell in zip(header, cells, strict=True) if name}
    if len(set(header)) < len(header):
        values.update({name: TWICE for name in values if header.count(name) > 1})
    return values


def _value(cell: str) -> str | NoText:
    if cell in NO_VALUE:
        return NoText(f"{cell}, which programs write where a value is missing; leave the cell empty")
    if cell.startswith(("['", '["')) and cell.endswith("]"):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about escapes
            if isinstance(ast.literal_eval(cell), list):
                return NoText("a list that a program wrote as text; write JSON Lines, in which it is a list")
    return cell


def _parquet(file: UserFile) -> Iterator[Row]:
    try:
        opened = pq.ParquetFile(file.path)
        names = opened.schema_arrow.names
        twice = {name: TWICE for name in names if names.count(name) > 1}
        rows = (row for batch in opened.iter_batches(1024) for row in batch.to_pylist())
        for number, values in enumerate(rows, start=1):
            yield Row(file, number, f"row {number}", {**values, **twice})
    except (pa.ArrowException, OSError, ValueError) as error:
        raise file.wrong(f"cannot be read as Parquet ({type(error).__name__}); get it again") from None
