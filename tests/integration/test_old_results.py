"""Results of an earlier mergefront (0.1, as of 2026-11-27): ids must not move with the code that makes them.

tests/data/results-0.1.tar.gz holds two results folders and the sweep files that made them, over the demo's parents and
the fake backend: a grid that goes on into fine-tuning, and a search. Paths of the machine that made them are written as
@ROOT@ and @OUT@.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.helpers.commands import Run
from tests.helpers.paths import ROOT
from tests.helpers.results import rows


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder with both results folders and sweep files, as if they had been made here."""
    with tarfile.open(ROOT / "tests" / "data" / "results-0.1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    for file in tmp_path.rglob("*"):
        if file.suffix in {".json", ".yaml"}:
            file.write_text(file.read_text().replace("@ROOT@", str(ROOT)).replace("@OUT@", str(tmp_path)))
    return tmp_path


def answers(out: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted((out / "answers").rglob("*")) if file.is_file()}


@pytest.mark.parametrize(
    ("name", "tables"),
    [
        ("grid", ["leaderboard.parquet", "tuning.parquet"]),
        ("search", ["leaderboard.parquet", "confirmed/leaderboard.parquet"]),
    ],
)
def test_a_report_on_old_results_scores_every_stored_answer(
    old: Path, mergefront: Run, name: str, tables: list[str]
) -> None:
    out = old / name
    before = answers(out), [rows(out, table) for table in tables]
    assert all(row["status"] == "scored" for table in before[1] for row in table)
    mergefront("report", out)
    assert [rows(out, table) for table in tables] == before[1]
    assert answers(out) == before[0]


@pytest.mark.parametrize(("command", "name"), [("run", "grid"), ("search", "search")])
def test_a_run_on_old_results_has_nothing_left_to_evaluate(old: Path, mergefront: Run, command: str, name: str) -> None:
    out = old / name
    before = answers(out)
    _, err = mergefront(command, old / f"{name}.yaml", "--out", out)
    assert "starting engines" not in err and "sampler" not in err
    assert answers(out) == before
