"""Results of an earlier mergefront (0.1, as of 2026-11-27): ids must not move with the code that makes them.

tests/data/results-0.1.tar.gz holds two results folders and the sweep files that made them, over the demo's parents and
the fake backend: a grid that goes on into fine-tuning, and a search. Paths of the machine that made them are written as
@ROOT@ and @OUT@.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import Run
from tests.helpers.results import rows


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
    old_results: Path, mergefront: Run, name: str, tables: list[str]
) -> None:
    out = old_results / name
    before = answers(out), [rows(out, table) for table in tables]
    assert all(row["status"] == "scored" for table in before[1] for row in table)
    mergefront("report", out)
    assert [rows(out, table) for table in tables] == before[1]
    assert answers(out) == before[0]


@pytest.mark.parametrize(("command", "name"), [("run", "grid"), ("search", "search")])
def test_a_run_on_old_results_has_nothing_left_to_evaluate(
    old_results: Path, mergefront: Run, command: str, name: str
) -> None:
    out = old_results / name
    before = answers(out)
    _, err = mergefront(command, old_results / f"{name}.yaml", "--out", out)
    assert "starting engines" not in err and "sampler" not in err
    assert answers(out) == before
