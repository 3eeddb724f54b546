"""Types of arguments; argparse shows their function names in its messages: `invalid hours value`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `add_subparsers` gives; argparse has no public name for it."""


def folder(text: str) -> Path:
    """Parse a folder's path and make it absolute, as the workers have working directories of their own."""
    return Path(text).absolute()


def hours(text: str) -> float:
    """Parse a number of hours above 0.

    Raises:
        ArgumentTypeError: it is not above 0.
    """
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text}")
    return value


def at_least(minimum: int) -> Callable[[str], int]:
    """Make a type for whole numbers that are not below `minimum`."""

    def number(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, but got {text}")
        return value

    return number
