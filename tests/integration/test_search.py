"""`mergefront search` from the outside, over the fake backend: real Ray, real Optuna, an interruption in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
import pyarrow.parquet as pq
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tests.helpers.commands import Run, command
from tests.helpers.paths import ROOT
from tests.helpers.results import finished, notes, questions
from tests.helpers.sweeps import FAKE, OBJECTIVES, SEARCH


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": None}, "has no section search"),
        ({"objectives": {"clinical": {"tasks": ["demo_formulary"]}}}, "objectives.clinical.split: is None"),
        ({"search": {**SEARCH, "budget": {}}}, "search.budget: give candidates, questions or gpu_hours"),
        (
            {"search": {**SEARCH, "space": [{"method": "linear", "alpha": {"low": 0.7, "high": 0.2}}]}},
            "search.space[0].alpha: `low < high` must be true, but got (low=0.7, high=0.2)",
        ),
        (
            {"search": {**SEARCH, "space": [{"method": "linear", "models": {"a": {"weight": {"low": 0, "hihg": 1}}}}]}},
            "a range is written {low: 0.1, high: 0.9}, of two finite numbers (with knots or modules), but got",
        ),
        ({"search": {**SEARCH, "budget": {"candidate": 6}}}, "search.budget.candidate: unknown key; did you mean"),
        (
            {"search": {**SEARCH, "constraints": {"clinicl": {"parent": "a", "share": 1}}}},
            "search.constraints.clinicl: is no objective; did you mean 'clinical'?",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_at_once(
    sweep: Callable[..., Path], tmp_path: Path, mergefront: Run, changes: dict[str, Any], said: str
) -> None:
    path = sweep(**{"objectives": OBJECTIVES, "search": SEARCH, "workers": FAKE, **changes})
    _, err = mergefront("search", path, "--out", tmp_path / "out", expect=2)
    assert said in err and "Traceback" not in err


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_where_it_was(
    sweep: Callable[..., Path], tmp_path: Path, mergefront: Run
) -> None:
    out = tmp_path / "out"
    path = sweep(objectives=OBJECTIVES, search=SEARCH, workers={**FAKE, "fake_seconds": 0.01})
    running = subprocess.Popen(command("search", path, "--out", out), cwd=ROOT, stderr=(tmp_path / "err").open("w"))
    deadline = time.monotonic() + 240

    def wait_for(candidates: int) -> None:
        while sum(note["status"] != "pending" for note in notes(out).values()) < candidates:
            assert running.poll() is None and time.monotonic() < deadline, (tmp_path / "err").read_text()
            time.sleep(0.05)

    wait_for(1)
    workers = [p for p in psutil.Process(running.pid).children(recursive=True) if p.name().startswith("ray::Worker")]
    assert workers, "an engine's actor"
    workers[0].kill()
    wait_for(2)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before, proposed = finished(out), notes(out)
    assert len(proposed) < 6

    mergefront("search", path, "--out", out)
    assert before.items() <= finished(out).items(), "nothing was asked again"
    after = notes(out)
    assert proposed.keys() <= after.keys() and len(after) == 6
    assert sorted(note["number"] for note in after.values()) == list(range(6))
    assert {note["status"] for note in after.values()} <= {"scored", "stopped early", "deferred"}

    asked = [row for marker in finished(out) for row in questions(marker)]
    assert len(asked) == len(set(asked)), "no question twice"
    storage = JournalStorage(JournalFileBackend(str(out / "search" / "study.log")))
    study = optuna.load_study(study_name="mergefront", storage=storage)
    told = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert {trial.user_attrs["recipe_id"] for trial in told} >= after.keys()
    assert all(trial.constraints for trial in told) and study.best_trials

    page = (out / "report.md").read_text()
    for words in ("Hypervolume of the front on the held-out questions", "In-sample", "resamplings", "Sampler: tpe"):
        assert words in page
    held_out = json.loads((out / "confirmed" / "front.json").read_text())
    assert held_out["front"] and "on the front of the held-out questions too" in page
    rows = pq.read_table(out / "leaderboard.parquet").to_pylist()
    mergefront("report", out)
    assert pq.read_table(out / "leaderboard.parquet").to_pylist() == rows
    assert (out / "report.md").read_text() == page
    mergefront("ledger", "export", out, "--to", tmp_path / "answers.parquet")
    exported = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert {row["stage"] for row in exported} == {"sweep", "confirm"}
    for stage, folder in (("sweep", out), ("confirm", out / "confirmed")):
        board = {row["recipe_id"]: row for row in pq.read_table(folder / "leaderboard.parquet").to_pylist()}
        for row in exported:
            if row["stage"] == stage:
                assert row["objective_score"] == board[row["recipe_id"]][row["objective"]]
    _, quiet = mergefront("search", path, "--out", out)
    assert "sampler" not in quiet, "nothing is left, and nothing is started"
    assert not (out / "ray").exists() or not any((out / "ray").iterdir())
