"""A row of a user's file, whose values become texts and ids only where they are.

Messages have keys and numbers, never values: these may be a patient's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.core.user_file import UserFile

WHOLE_FLOAT = re.compile(r"(\d+)\.0")
BROKEN_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?[eE][+-]?\d+|[+-]?\d+[.,]\d+")
"""A number that may have been an id once, and has lost or gained digits."""


@dataclass(frozen=True)
class NoText:
    """A value in the place of what looks like a text and is none."""

    what: str
    """What it is, and the way out."""


TWICE = NoText("there twice; keep one")
"""The value of a key that an object or a header has twice."""


@dataclass(frozen=True)
class Row:
    """A row and its place."""

    file: UserFile
    number: int
    """Line of JSON Lines; else the number of the row, from 1, the header not counted."""
    place: str
    """As `row 3 (line 5)`, for messages."""
    values: Mapping[str, Any]

    def wrong(self, what: str) -> UserError:
        """Make an error about this row."""
        return self.file.wrong(what, self.place)

    def text(self, key: str) -> str:
        """Return the text under a key; "" where it is missing or null; raises as `as_text`."""
        value = self.values.get(key)
        return "" if value is None else self.as_text(value, repr(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the texts under a key: one, or those of a list; raises as `as_text`."""
        value = self.values.get(key)
        if not isinstance(value, list):
            return tuple(filter(None, [self.text(key)]))
        return tuple(self.as_text(each, f"{key!r}[{number}]") for number, each in enumerate(value))

    def ident(self, key: str) -> str:
        """Return the id under a key as it was spelt before a program took it for a number: 1.0 is 1.

        Raises:
            UserError: there is none, or it is a number that has lost digits (1e+05).
        """
        value = self.values.get(key)
        whole = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        text = str(value) if whole else self.text(key).strip()
        if found := WHOLE_FLOAT.fullmatch(text):
            return found[1]
        if not text:
            raise self.wrong(f"has no {key!r}; write the id, or take the row out")
        if BROKEN_NUMBER.fullmatch(text):
            raise self.wrong(f"{key!r} is a number with a fraction or an exponent, and no id; read ids as text")
        return text

    def as_text(self, value: object, name: str) -> str:
        """Return a value that is text.

        Args:
            name: of the value, for messages.

        Raises:
            UserError: it is something else, or has half a character.
        """
        if isinstance(value, NoText):
            raise self.wrong(f"{name} is {value.what}")
        if not isinstance(value, str):
            raise self.wrong(f"{name} is {_kind(value)}, not text")
        try:
            value.encode()
        except UnicodeEncodeError:
            what = "has half of a character (a lone surrogate): a text was cut inside of an emoji; cut it beside it"
            raise self.wrong(f"{name} {what}") from None
        return value


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, float) and math.isnan(value):
        return "NaN (a missing value, as programs write it)"
    kinds = {int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), f"a value of type {type(value).__name__}")
