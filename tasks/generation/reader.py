"""Reading the files of a data set's folder.

An error names the file, the column and the line, never the content: this is clinical text.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from orchestrator.core.errors import UserError

Row = dict[str, str]
Columns = dict[str, tuple[str, ...]]
"""Field → the names that its column has in the files, the official one first."""


@dataclass(frozen=True)
class Reader:
    """One folder, its task, and where the data set is available."""

    task: str
    folder: Path
    origin: str

    def find(self, *names: str) -> Path:
        """Find the first of these files in the folder, or anywhere below it.

        Raises:
            UserError: there is none, or several.
        """
        for name in names:
            found = [self.folder / name] if (self.folder / name).is_file() else sorted(self.folder.rglob(name))
            if len(found) > 1:
                raise UserError(
                    f"{self._where}: {name} exists there {len(found)} times, first in {found[0].parent}; name the "
                    "folder that is meant"
                )
            if found:
                return found[0]
        raise self.wrong(f"the file {names[0]} is not there")

    def rows(self, file: Path, columns: Columns) -> Iterator[Row]:
        """Yield the rows of a CSV file (or of JSON Lines with the same fields); what is missing is empty.

        Raises:
            UserError: a column is missing, or the file is no CSV.
        """
        fields: dict[str, str] | None = None
        parse = json_lines if file.suffix == ".jsonl" else _csv
        for number, row in parse(file):
            if isinstance(row, str):
                raise self.wrong(f"{file}, row {number}: {row}")
            fields = fields or self._fields(file, row, columns)
            yield {field: (row.get(column) or "").strip() for field, column in fields.items()}
        if fields is None:
            raise self.wrong(f"{file} has no rows")

    def wrong(self, what: str) -> UserError:
        """Make an error about the folder's files that names the place where the data set is available."""
        return UserError(f"{self._where}: {what}; the data set is available from {self.origin}")

    @property
    def _where(self) -> str:
        return f"generation.data.{self.task} ({self.folder})"

    def _fields(self, file: Path, row: Row, columns: Columns) -> dict[str, str]:
        found = {}
        for field, names in columns.items():
            known = [name for name in names if name in row]
            if not known:
                # The message leaves out what it has instead: without a header, that would be a patient's note.
                raise self.wrong(f"the first line of {file} names no column {names[0]!r}")
            found[field] = known[0]
        return found


Numbered = Iterator[tuple[int, Row | str]]
"""Rows with their number, from 1; a string says what is wrong with one, without its content."""


def _csv(file: Path) -> Numbered:
    csv.field_size_limit(sys.maxsize)
    return _rows_or_error(file, lambda stream: enumerate(csv.DictReader(stream, strict=True), start=1))


def json_lines(file: Path) -> Numbered:
    """Yield the objects of a JSON Lines file with their line number; values that are no text are written as JSON."""

    def rows(stream: TextIO) -> Numbered:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, _object(line)

    return _rows_or_error(file, rows)


def _object(line: str) -> Row | str:
    try:
        row = json.loads(line)
    except ValueError:
        return "is not valid JSON"
    return {key: _text(value) for key, value in row.items()} if isinstance(row, dict) else "is no object"


def _rows_or_error(file: Path, rows: Callable[[TextIO], Iterable[tuple[int, Row | str]]]) -> Numbered:
    """The file's rows; what breaks the reading is yielded as one more."""
    number = 0
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            for number, row in rows(stream):
                yield number, row
    except UnicodeDecodeError:
        yield number + 1, "is not UTF-8 text"
    except csv.Error:
        yield number + 1, "is not valid CSV"
    except OSError as error:
        yield number + 1, f"cannot be read ({error.strerror})"


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
