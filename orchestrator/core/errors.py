"""The error for wrong input, and the hint that its message may end with."""

from __future__ import annotations

import difflib
from typing import Any


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
