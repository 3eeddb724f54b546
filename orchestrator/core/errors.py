"""The error for wrong input, and the hint that its message may end with."""

from __future__ import annotations

import difflib
import traceback
from pathlib import Path
from typing import Any

from orchestrator.core.text import one_line

NAMES_CODE = (ImportError, NameError, AttributeError, TypeError)
"""Exceptions whose text names code; that of others may quote a document or an answer, which may be about a patient."""


class UserError(Exception):
    """The user's input is wrong. The message names the key, the value and the way out."""


def hint(word: str, known: Any) -> str:
    """Suggest the known word that is most like a wrong one: `; did you mean 'linear'?`, or "" where none is close.

    Args:
        known: an iterable of the words that are allowed.
    """
    folded = {str(each).casefold(): str(each) for each in known}
    close = difflib.get_close_matches(str(word).casefold(), folded, n=1)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def describe(error: BaseException) -> str:
    """Describe an exception of a task's code by its type and place, and its text where that quotes no document."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f": {one_line(error, 120)}" if isinstance(error, NAMES_CODE) else ""
    return f"{type(error).__name__}{text} ({Path(place.filename).name}, line {place.lineno})"
