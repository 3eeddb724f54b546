"""What is in a results folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

TIMINGS = {"swap_s", "answer_s"}


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    """A table without the timings, which are nobody's promise."""
    found = pq.read_table(out / table).to_pylist()
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in found]


def leaderboard(out: Path) -> list[dict[str, Any]]:
    return rows(out, "leaderboard.parquet")


def finished(out: Path) -> dict[Path, bytes]:
    """The markers of the finished blocks."""
    return {marker: marker.read_bytes() for marker in out.glob("answers/*/*/SUCCESS")}


def questions(marker: Path) -> list[tuple[str, str]]:
    """Recipe and question of each answer of a finished block."""
    file = marker.parent / json.loads(marker.read_text())["file"]
    return [(marker.parts[-3], row) for row in pq.read_table(file)["question_id"].to_pylist()]


def notes(out: Path) -> dict[str, dict[str, Any]]:
    """A search's candidates by recipe."""
    return {file.stem: json.loads(file.read_text()) for file in (out / "search" / "candidates").glob("*.json")}


def state(folder: Path) -> dict[str, str]:
    """Every file below a folder with what it is, its mode and a digest; the lock and the sign of life that a refused run
    leaves do not count."""
    found = {}
    for path in sorted(folder.rglob("*")):
        data = b"" if path.is_dir() or path.is_symlink() or not path.is_file() else path.read_bytes()
        if path.name not in (".lock", "driver.json"):
            found[str(path)] = f"{path.lstat().st_mode:o} {hashlib.sha256(data).hexdigest()}"
    return found
