"""Numbers, amounts and lists as text, written the same way in messages, plans, status lines and the report."""

from __future__ import annotations

from collections.abc import Iterable

LISTED = 12
"""Names that a sentence lists before it only counts the rest."""
UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
"""Seconds of each unit of time above the second."""


def duration(seconds: float) -> str:
    """Format seconds in the largest unit of which there are at least two: `45.0 s`, `12.5 min`, `3.2 h`, `2.1 d`."""
    for size, unit in UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def gigabytes(size: float) -> str:
    """Format a number of bytes in GB (10^9 bytes), to a tenth: `16.1 GB`."""
    return f"{size / 1e9:.1f} GB"


def count(number: int, noun: str) -> str:
    """Format a number with its noun, in the plural (with an s) unless it is one: `1 recipe`, `3 recipes`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(names: Iterable[str], most: int = LISTED) -> str:
    """Join names as in a sentence: `a, b and c`; beyond `most` the rest is counted; empty for none."""
    names = list(names)
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return " and ".join(([", ".join(names[:-1])] if names[1:] else []) + names[-1:])


def one_line(error: object, most: int = 500) -> str:
    """Return the whole text of an error on one line, or its type where it has none, cut after `most` characters.

    All of it, because the value that is wrong often stands in the second line. Of another object the text may be empty.
    """
    text = str(error).strip() or (type(error).__name__ if isinstance(error, BaseException) else "")
    return " ".join(text.split())[:most]
