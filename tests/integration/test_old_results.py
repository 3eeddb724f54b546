"""Results of an earlier mergefront (0.1, as of 2026-11-27): ids must not move with the code that makes them.

tests/data/results-0.1.tar.gz holds two results folders and the sweep files that made them, over the demo's parents and
the fake backend: a grid that goes on into fine-tuning, and a search. Paths of the machine that made them are written as
@ROOT@ and @OUT@.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.commands import Run
from tests.helpers.results import rows


def answers(out: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted((out / "answers").rglob("*")) if file.is_file()}


def kept(table: list[dict[str, Any]], columns: list[str]) -> list[list[Any]]:
    """The rows of a table in the columns of earlier, but for errors, which are estimated in another way now."""
    known = [name for name in columns if not name.endswith("_se") and name not in ("near_front", "reason")]
    return [[row[name] for name in known] for row in table]


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
    halved = "halved by a hash of its documents" in (out / "report.md").read_text()
    assert halved is (name == "search"), "it keeps the sides that its answers are from, and says so"
    for file, table in zip(tables, before[1], strict=True):
        assert kept(rows(out, file), list(table[0])) == kept(table, list(table[0]))
    assert answers(out) == before[0]


@pytest.mark.parametrize(("command", "name"), [("run", "grid"), ("search", "search")])
def test_a_run_on_old_results_has_nothing_left_to_evaluate(
    old_results: Path, mergefront: Run, command: str, name: str
) -> None:
    out, path = old_results / name, old_results / f"{name}.yaml"
    before = answers(out)
    # One seed was the default then.
    path.write_text(path.read_text().replace("  examples: [4]\n", "  examples: [4]\n  seeds: [0]\n"))
    _, err = mergefront(command, path, "--out", out)
    assert "starting engines" not in err and "sampler" not in err
    assert answers(out) == before


def test_every_recipe_that_the_report_names_can_be_compared_and_promoted(
    old_results: Path, mergefront: Run, tmp_path: Path
) -> None:
    search, grid = old_results / "search", old_results / "grid"
    candidates = [
        row
        for row in rows(search, "leaderboard.parquet")
        if (search / "search" / "candidates" / f"{row['recipe_id']}.json").exists()
    ]
    winner = candidates[0]["recipe_id"]
    for name in (winner, winner[:8]):
        out, _ = mergefront("compare", search, name, "instruct")
        assert winner in out
    mergefront("promote", search, winner, "--to", tmp_path / "model")
    assert winner in (tmp_path / "model" / "README.md").read_text()
    tuned = rows(grid, "tuning.parquet")
    out, _ = mergefront("compare", grid, tuned[0]["recipe_id"], tuned[-1]["recipe_id"])
    assert tuned[0]["task"] in out, "what was learned is compared too"
    _, err = mergefront("promote", grid, tuned[0]["recipe_id"], "--to", tmp_path / "tuned", expect=2)
    assert "its weights were not kept" in err


def test_a_search_of_an_earlier_version_is_continued_in_its_own_space_alone(old_results: Path, mergefront: Run) -> None:
    path = old_results / "search.yaml"
    content = yaml.safe_load(path.read_text())
    content["search"]["space"] = [{"method": "slerp", "t": {"low": 0.4, "high": 0.6}}]
    path.write_text(yaml.safe_dump(content))
    _, err = mergefront("search", path, "--out", old_results / "search", expect=2)
    assert "restore that search.space" in err
