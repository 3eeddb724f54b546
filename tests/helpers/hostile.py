"""Input that is made to do harm, for every file that a command reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
"""A YAML file that would grow to billions of entries."""


def put(name: str, data: bytes | str | dict[str, Any] | list[Any]) -> Callable[[Path], None]:
    encoded = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
    return lambda folder: (folder / name).write_bytes(encoded) and None


def folder_instead(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


MARKER = "it-ran"
"""A file that no test may find: every payload tries to create it in the working directory."""

TOUCH = f"open({MARKER!r}, 'w')"
