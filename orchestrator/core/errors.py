"""The one kind of error that is the user's, and the hint that goes with it."""

from __future__ import annotations

import difflib
from typing import Any


class UserError(Exception):
    """The user's input is wrong. The message names the key, the value and the way out."""


def hint(word: str, known: Any) -> str:
    close = difflib.get_close_matches(str(word), list(map(str, known)), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
