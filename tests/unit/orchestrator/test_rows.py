"""The one reader of users' rows: what programs write comes back as it was, and all else is refused by its place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from orchestrator.core.errors import UserError
from orchestrator.core.row import Row
from orchestrator.core.rows import NO_VALUE, read_rows
from orchestrator.core.user_file import UserFile

SECRET = "Zebrafish-plaintext"
ENDS = "\u2028\u2029\u0085\v\f\x1c\x1d\x1e"
"""What Python takes for ends of lines, and JSON Lines and CSV do not."""


def read(folder: Path, name: str, content: bytes | str) -> list[Row]:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(UserFile(file, "the.key")))


# -------------------------------------------------------------------- what is read
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.sampled_from([*ENDS, "a\r\nb", "1.0", "é"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts, st.lists, max_leaves=4
)
objects = st.lists(st.dictionaries(st.sampled_from(["a", "b", "ü"]), anything), min_size=1, max_size=6)
in_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@given(objects, st.booleans(), st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]), st.booleans(), st.booleans())
@in_folder
def test_json_lines_come_back(
    tmp_path: Path, rows: list[dict[str, Any]], ascii_: bool, end: str, bom: bool, packed: bool
) -> None:
    data = end.join(json.dumps(row, ensure_ascii=ascii_) for row in rows).encode("utf-8-sig" if bom else "utf-8")
    found = read(tmp_path, "a.jsonl", gzip.compress(data) if packed else data)
    assert [row.values for row in found] == rows
    assert [row.number for row in found] == [1 + place * end.count("\n") for place in range(len(rows))]


@given(objects, st.sampled_from([None, 0, 2]), st.booleans())
@in_folder
def test_an_array_comes_back(tmp_path: Path, rows: list[dict[str, Any]], indent: int | None, bom: bool) -> None:
    data = json.dumps(rows, indent=indent, ensure_ascii=False).encode("utf-8-sig" if bom else "utf-8")
    assert [row.values for row in read(tmp_path, "a.json", data)] == rows


cells = st.lists(
    st.lists(texts.map(str.strip).filter(lambda cell: cell not in NO_VALUE), min_size=2, max_size=2),
    min_size=1,
    max_size=6,
).filter(lambda rows: all(map(any, rows)))  # fmt: skip


@given(cells, st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.booleans())
@in_folder
def test_tables_come_back(
    tmp_path: Path, rows: list[list[str]], mark: str, end: str, bom: bool, packed: bool, hinted: bool
) -> None:
    # The csv module leaves a carriage return without quotes where lines end with line feeds.
    assume(end == "\r\n" or not any("\r" in cell for row in rows for cell in row))
    stream = io.StringIO(newline="")
    stream.write(f"sep={mark}{end}" if hinted else "")
    csv.writer(stream, delimiter=mark, lineterminator=end).writerows([["id", "a text"], *rows])
    data = stream.getvalue().encode("utf-8-sig" if bom else "utf-8")
    found = read(tmp_path, "a.csv.gz" if packed else "a.csv", gzip.compress(data) if packed else data)
    assert [[row.values["id"], row.values["a text"]] for row in found] == rows
    assert [row.number for row in found] == [*range(1, len(rows) + 1)]


def test_parquet_comes_back_and_lists_in_it(tmp_path: Path) -> None:
    rows = [{"a": "x", "turns": [{"from": "human", "value": "é"}], "n": None}, {"a": None, "turns": [], "n": 2}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [row.values for row in read_rows(UserFile(tmp_path / "a.parquet", "k"))] == rows


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv.gz", "a.parquet", "noname"])
@given(
    data=st.binary(max_size=80)
    | st.builds(bytes.__add__, st.sampled_from([b"PAR1", b"\x1f\x8b\x08", b"[", b"{", b'a,"b\n', b"\xff\xfe"]), st.binary(max_size=40))
)  # fmt: skip
@in_folder
def test_any_bytes_are_rows_or_a_users_error(tmp_path: Path, name: str, data: bytes) -> None:
    try:
        for row in read(tmp_path, name, data):
            for key in row.values:
                row.text(key), row.texts(key), row.ident(key)
    except UserError as error:
        assert str(error).startswith("the.key: ")


@pytest.mark.parametrize("name", ["a@b.csv", "mit leer zeichen.csv", "Übung/ä ö.csv", "a.B.CSV", "日本.tsv"])
def test_paths_have_any_characters(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (row,) = read(tmp_path, name, "a,b\n1,2\n")
    assert row.values == {"a": "1", "b": "2"}


def test_headers_have_blanks_and_pandas_an_index(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "a.csv", ' ,uid , "text"\n0, 1, "a, b"\n\n,,\n')
    assert row.values == {"uid": "1", "text": "a, b"}
    assert [row.number for row in read(tmp_path, "a.csv", "a,b\r1,2\r3,4\r")] == [1, 2]


# -------------------------------------------------------------------- what is refused
def zipped(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, SECRET)
    return stream.getvalue()


GOOD = '{"a": "b"}\n'
JSON_FAULTS: dict[str, tuple[bytes | str, str]] = {
    "Latin-1 on a late line": (GOOD.encode() * 100 + b'{"a": "\xe8"}\n', "line 101: is not UTF-8 text .it may be Latin-1 or Windows-1252.; save it as UTF-8"),
    "Windows-1252": (GOOD.encode() * 9000 + b'{"a": "\x93"}\n', "line 9001: is not UTF-8 text .it may be Windows-1252.; save it as UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "line 1: is not UTF-8 text but UTF-16"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "line 1: is not UTF-8 text but UTF-16"),
    "cut in a character": ('{"a": "é'.encode()[:-1], "line 1: ends in the middle of a character"),
    "cut in a row": (GOOD + '{"a": "' + SECRET, "line 2: is not valid JSON; if the file is cut off there"),
    "a NUL": ('{"a": "\0"}\n' + GOOD * 10, "line 1: has a NUL byte"),
    "an object over lines": ('{\n"a": "b"\n}\n', "line 1: is not valid JSON: the object does not end on its line"),
    "two objects on a line": (GOOD.strip() * 2 + "\n", "line 1: is not valid JSON"),
    "CSV": (f"a,b\n{SECRET},c\n", "line 1: is not valid JSON; write an object per line"),
    "an array that is cut off": (f'[{{"a": "b"}},\n{{"a": "{SECRET}"', r"element 2 \(line 2\): is not valid JSON"),
    "an array without its end": ('[{"a": "b"},\n{"a": "b"}', r"element 2 \(line 2\): the array does not go on"),
    "an array of texts": (f'["{SECRET}"]', r"element 1 \(line 1\): is no object"),
    "two arrays": ("[]\n[]", "has more after the array"),
    "a line after blank ones": (GOOD + "\n\n7\n", "line 4: is no object"),
    "brackets without end": ("[" * 100_000, r"element 1 \(line 1\)"),
    "a zip": (zipped("a.jsonl"), "is a zip archive or a spreadsheet"),
    "a tar": (b"a.jsonl".ljust(257, b"\1") + b"ustar", "is a tar archive; unpack it"),
    "gzip cut off": (gzip.compress(GOOD.encode() * 999)[:40], "line .*: the gzip file is cut off"),
    "gzip in gzip": (gzip.compress(gzip.compress(GOOD.encode())), "is compressed twice"),
    "xz": (b"\xfd7zXZ\0\0", "is compressed by xz"),
    "a web page": (b"\n<!DOCTYPE html><title>Log in", "is a web page, perhaps of a login"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
    "Parquet cut off": (b"PAR1" + b"\0" * 30, "cannot be read as Parquet"),
}  # fmt: skip
TABLE_FAULTS = {
    "commas without quotes": (f"a,b\n1,2\n{SECRET},x,y\n", r"row 2 \(line 3\): has 3 cells, but the header has 2"),
    "cut in the last row": ('a,b,c\n1,"x\ny",2\n3', r"row 2 \(line 4\): has 1 cell, but the header has 3"),
    "a quote that stays open": (f'a,b\n1,2\n3,"{SECRET}\n4,5\n', r"row 2 \(line 3\): is not valid CSV"),
    "a quote inside": ('a,b\n1,"x"y\n', r"row 1 \(line 2\): is not valid CSV"),
    "two files in one": (f"a,b\n1,{SECRET}\na,b\n1,x\n", r"row 2 \(line 3\): is the header again"),
    "cut by a spreadsheet": ("a,b\n1," + "x" * 32767 + "\n", r"row 1 \(line 2\): has a text of 32767 characters"),
    "a return without quotes": (f"a,b\n1,{SECRET}\rx\n", r"row 1 \(line 2\): is not valid CSV"),
    "cp1252": (b"a;b\n1;2\n3;\x84\n", "line 3: is not UTF-8 text .it may be Windows-1252."),
    "a NUL": (b"a,b\n1,2" + b"3" * 99 + b"\n3,\0\n", "line 3: has a NUL byte"),
}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *(pytest.param("a.jsonl", *fault, id=name) for name, fault in JSON_FAULTS.items()),
        *(pytest.param("a.csv", *fault, id=f"CSV: {name}") for name, fault in TABLE_FAULTS.items()),
    ],
)
def test_broken_files_are_named_by_their_place(tmp_path: Path, name: str, content: bytes | str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, name, content)
    assert str(tmp_path / name) in str(caught.value) and SECRET not in str(caught.value)


def text(row: Row) -> object:
    return row.text("a")


def texts_of(row: Row) -> object:
    return row.texts("a")


def ident(row: Row) -> object:
    return row.ident("a")


def under(value: object) -> Row:
    return Row(UserFile(Path("f"), "the.key"), 3, "line 3", {"a": value})


@pytest.mark.parametrize(
    ("get", "value", "expected"),
    [
        (Row.text, "x", "x"), (Row.text, None, ""), (Row.text, "", ""),
        (Row.texts, "x", ("x",)), (Row.texts, ["x", "y"], ("x", "y")), (Row.texts, None, ()), (Row.texts, [], ()),
        (Row.ident, "D2N1", "D2N1"), (Row.ident, 7, "7"), (Row.ident, 7.0, "7"), (Row.ident, "7.0", "7"),
        (Row.ident, " 007 ", "007"),
    ],
)  # fmt: skip
def test_texts_and_ids(get: Callable[[Row, str], object], value: object, expected: object) -> None:
    assert get(under(value), "a") == expected


@pytest.mark.parametrize(
    ("get", "value", "message"),
    [
        (Row.text, 1, "'a' is a number, not text"), (Row.text, True, "'a' is true or false, not text"),
        (Row.text, math.nan, "'a' is NaN"), (Row.text, [SECRET], "'a' is a list, not text"),
        (Row.text, {SECRET: 1}, "'a' is an object"), (Row.text, f"{SECRET}\ud83d", "'a' has half of a character"),
        (Row.texts, ["x", None], r"'a'\[1\] is null, not text"), (Row.texts, [["x"]], r"'a'\[0\] is a list"),
        (Row.ident, "1e+05", "fraction or an exponent"), (Row.ident, "1.000", "fraction or an exponent"),
        (Row.ident, "1,0", "fraction or an exponent"), (Row.ident, 1.5, "fraction or an exponent"),
        (Row.ident, 1e22, "fraction or an exponent"), (Row.ident, None, "has no 'a'"), (Row.ident, " ", "has no 'a'"),
        (Row.ident, True, "'a' is true or false"), (Row.ident, math.nan, "'a' is NaN"),
    ],
)  # fmt: skip
def test_what_is_no_text_does_not_become_one(get: Callable[[Row, str], object], value: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        get(under(value), "a")
    assert "line 3: " in str(caught.value) and SECRET not in str(caught.value)


def test_a_key_that_is_there_twice_is_no_text(tmp_path: Path) -> None:
    (row,) = read(tmp_path, "a.jsonl", '{"a": "x", "b": "y", "a": "z"}')
    assert row.text("b") == "y"
    with pytest.raises(UserError, match="line 1: 'a' is there twice; keep one"):
        row.text("a")
    pq.write_table(pa.table([["1"], ["2"], ["3"]], names=["a", "a", "b"]), tmp_path / "a.parquet")
    (row,) = read_rows(UserFile(tmp_path / "a.parquet", "the.key"))
    with pytest.raises(UserError, match="row 1: 'a' is there twice; keep one"):
        row.text("a")
    (row,) = read(tmp_path, "a.csv", "a, a,b\n1,2,3\n")
    with pytest.raises(UserError, match=r"row 1 \(line 2\): 'a' is there twice; keep one"):
        row.text("a")


@pytest.mark.parametrize("cell", ["['b', \"c\"]", '["b"]', "[**Name**]", "['"])
def test_a_list_in_a_cell_is_no_text(tmp_path: Path, cell: str) -> None:
    (row,) = read(tmp_path, "a.tsv", f"a\tb\n1\t{cell}\n")
    if cell.endswith("]") and "*" not in cell:
        with pytest.raises(UserError, match="'b' is a list that a program wrote as text; write JSON Lines"):
            row.text("b")
    else:
        assert row.text("b") == cell


@pytest.mark.parametrize("cell", NO_VALUE)
def test_what_programs_write_for_no_value_is_no_text(tmp_path: Path, cell: str) -> None:
    (row,) = read(tmp_path, "a.csv", f"a,b\n1,{cell}\n")
    with pytest.raises(UserError, match=f"'b' is {re.escape(cell)}, which programs write where a value is missing"):
        row.text("b")


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("Letters.jsonl", "does not exist, but 'Letters.jsonl' is there"),
        ("letters.jsonl.gz", "but 'letters.jsonl.gz' is there"),
        ("letters (1).jsonl", r"but 'letters \(1\).jsonl' is there"),
        ("leters.jsonl", "but 'leters.jsonl' is there"),
        (".letters.jsonl.swp", "does not exist; correct the path"),
    ],
)
def test_a_file_that_is_not_there_has_near_ones(tmp_path: Path, there: str, message: str) -> None:
    (tmp_path / there).touch()
    with pytest.raises(UserError, match=message):
        list(read_rows(UserFile(tmp_path / "letters.jsonl", "the.key")))
    with pytest.raises(UserError, match="is a folder; name the file in it"):
        list(read_rows(UserFile(tmp_path, "the.key")))
