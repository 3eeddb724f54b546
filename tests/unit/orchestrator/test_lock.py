"""A results folder is one run's at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.results.layout import Layout


def test_a_results_folder_in_use(
    sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.results.lock import locked

    with locked(Layout(tmp_path / "out")):
        assert main(["run", str(sweep()), "--out", str(tmp_path / "out")]) == 2
    assert "another run is at work there" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "has no sweep (no sweep.json)" in capsys.readouterr().err
