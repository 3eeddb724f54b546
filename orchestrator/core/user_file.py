"""A file of texts that a user brings, as lines of UTF-8, whatever was done to it on the way.

It may be gzipped and begin with a byte order mark. What is no text is recognised by its first bytes, so that the error
says what the file is, and not only what it is not. No message has a file's content: it may be a patient's.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from orchestrator.core.errors import UserError
from orchestrator.core.folders import near_names

GZIP, PARQUET, BOM = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
HEAD = 512
"""Bytes that a file is recognised by; a tar's mark is at its 257th."""
BINARY = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (xlsx); unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet or document (xls, doc); save it as CSV",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a rar archive; unpack it",
    b"BZh": "compressed by bzip2; unpack it, or compress it by gzip",
    b"\xfd7zXZ": "compressed by xz; unpack it, or compress it by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it, or compress it by gzip",
    GZIP: "compressed twice; unpack it",
    PARQUET: "a Parquet file inside of a gzip file; unpack it",
    b"ARROW1": "an Arrow file; save it as Parquet or JSON Lines",
    b"SQLite format 3": "a database (SQLite); export the table as CSV",
    b"%PDF": "a PDF; write its texts as JSON Lines",
    b"version https://git-lfs": "a pointer of Git LFS, not the file; fetch it with `git lfs pull`",
    b"<?xml": "XML; write its texts as JSON Lines",
    b"<!doctype html": "a web page, perhaps of a login, not the file; download it again",
    b"<html": "a web page, perhaps of a login, not the file; download it again",
}
"""First bytes (letters in lower case) → what such a file is, and the way out."""


@dataclass(frozen=True)
class UserFile:
    """A file, and the key of the sweep file that names it."""

    path: Path
    where: str
    """As `generation.own.letters.file`, for messages."""

    def wrong(self, what: str, place: str = "") -> UserError:
        """Make an error about the file, or about a place in it (`line 3`)."""
        return UserError(f"{self.where}: {self.path}{place and f', {place}'}: {what}")

    def is_parquet(self) -> bool:
        """Whether the file is Parquet; raises as `lines`."""
        with self._opened() as stream:
            return stream.read(len(PARQUET)) == PARQUET

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield the lines with their number from 1: each ends with a line feed, and with nothing else.

        Raises:
            UserError: there is no such file, or it is no text in UTF-8.
        """
        number = 0
        try:
            with self._text() as stream:
                for number, raw in enumerate(stream, start=1):
                    yield number, self._decode(number, raw.removeprefix(BOM) if number == 1 else raw)
        except EOFError:
            raise self.wrong("the gzip file is cut off; get it again", f"line {number + 1}") from None
        except (gzip.BadGzipFile, zlib.error):
            raise self.wrong("the gzip file is damaged; get it again", f"line {number + 1}") from None
        except OSError as error:
            raise self.wrong(f"cannot be read ({error.strerror or type(error).__name__})") from None

    def _opened(self) -> BinaryIO:
        if self.path.is_dir():
            raise self.wrong("is a folder; name the file in it")
        if self.path.exists() and not self.path.is_file():
            raise self.wrong("is no file but a device or a pipe; save what it gives to a file")
        try:
            return self.path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            near = near_names(self.path.parent, self.path.name)
            raise self.wrong(f"does not exist{near}; correct the path") from None
        except (OSError, ValueError) as error:
            raise self.wrong(f"cannot be read ({getattr(error, 'strerror', error)}); check its permissions") from None

    def _text(self) -> BinaryIO:
        """The file's bytes, unpacked; they are text as far as their beginning shows."""
        stream = self._opened()
        if stream.read(len(GZIP)) == GZIP:
            stream.close()
            stream = cast(BinaryIO, gzip.GzipFile(self.path))
        stream.seek(0)
        head = stream.read(HEAD)
        stream.seek(0)
        start = head.removeprefix(BOM).lstrip()
        for mark, what in BINARY.items():
            if head.startswith(mark) or start.lower().startswith(mark):
                raise self.wrong(f"is {what}")
        if head[257:262] == b"ustar":
            raise self.wrong("is a tar archive; unpack it")
        if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(0) > len(head) // 4:
            raise self.wrong("is not UTF-8 text but UTF-16, or no text at all; save it as UTF-8", "line 1")
        return stream

    def _decode(self, number: int, raw: bytes) -> str:
        try:
            if 0 not in raw:
                return raw.decode()
            what = "has a NUL byte: the file is damaged, or no text; get it again"
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data" and error.end == len(raw):
                what = "ends in the middle of a character: the file is cut off; get it again"
            else:
                what = f"is not UTF-8 text{_likely(raw)}; save it as UTF-8"
        raise self.wrong(what, f"line {number}")


def _likely(raw: bytes) -> str:
    """Name the encoding that a line that is not UTF-8 is probably in."""
    if not any(0x80 <= byte < 0xA0 for byte in raw):
        return " (it may be Latin-1 or Windows-1252)"
    try:
        raw.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    return " (it may be Windows-1252)"
