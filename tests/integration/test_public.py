"""The package `mergefront`, as a notebook uses it, and the example that shows it."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import mergefront
from tests.helpers.paths import ROOT


def test_the_names_of_a_notebook(sweep: Callable[..., Path], tmp_path: Path) -> None:
    path = sweep()
    config = mergefront.load_sweep(path)
    assert isinstance(config, mergefront.SweepConfig)
    plan = mergefront.plan(config)
    assert f"{len(plan.recipes)} (" in mergefront.describe(plan)
    board = mergefront.run_sweep(path, tmp_path / "out", until=mergefront.Stage.EVALUATE)
    again = mergefront.read_board(tmp_path / "out")
    assert [row.recipe.id for row in again.rows] == [row.recipe.id for row in board.rows]
    assert all(isinstance(row.recipe, mergefront.Recipe) for row in again.rows)
    assert again.find("a").status == mergefront.RecipeStatus.SCORED
    with pytest.raises(mergefront.UserError, match="has no sweep"):
        mergefront.read_board(tmp_path / "nowhere")


def test_the_example_reads_a_results_folder(
    old_results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["analyse.py", str(old_results / "grid")])
    runpy.run_path(str(ROOT / "examples" / "analyse.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "4 recipes," in shown and "95 % interval" in shown


def test_every_public_name_is_there() -> None:
    assert all(hasattr(mergefront, name) for name in mergefront.__all__)
