"""Searches with real engines: examples/joint_search.yaml, killed once and continued; and candidates that cannot be."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.helpers.commands import command, command_line
from tests.helpers.paths import EXAMPLES, ROOT
from tests.helpers.results import finished, notes
from tests.helpers.sweeps import FAKE, OBJECTIVES, SEARCH
from tune.study import load_study

EXAMPLE = EXAMPLES / "joint_search.yaml"


@pytest.mark.prove
def test_a_joint_search_finds_merges_that_have_learned(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = subprocess.Popen(command("search", EXAMPLE, "--out", out), cwd=ROOT)
    deadline = time.monotonic() + 600
    while sum(note["status"] != "pending" for note in notes(out).values()) < 2:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = finished(out)
    trained = {file: file.stat().st_mtime_ns for file in out.glob("tuning/*/RESULT.json")}

    done = command_line("search", EXAMPLE, "--out", out)
    print(done.stderr, done.stdout, sep="\n")
    assert before.items() <= finished(out).items(), "nothing was asked again"
    assert trained == {file: file.stat().st_mtime_ns for file in trained}, "nothing was trained again"
    assert len(notes(out)) == 8
    board = json.loads((out / "front.json").read_text())
    print(json.dumps(board, indent=1))
    assert "+lora" in (out / "report.md").read_text()
    assert not list(out.glob("tuning/*/start")), "the merges that were trained from are gone"


@pytest.mark.prove
def test_candidates_that_cannot_be_are_infeasible_and_the_search_goes_on(
    sweep: Callable[..., Path], tmp_path: Path
) -> None:
    # So large a lambda overflows float32.
    spread = {"low": 1e40, "high": 2e40}
    invalid = {"method": "task_arithmetic", "base_model": "a", "models": {"b": {"weight": 1.0}}}
    space = [{**invalid, "parameters": {"lambda": spread}}, {"method": "linear", "alpha": {"low": 0, "high": 1}}]
    search = {**SEARCH, "space": space, "sampler": "tpe"}
    out = tmp_path / "out"
    path = sweep(objectives=OBJECTIVES, search=search, dtype="float32", workers={**FAKE, "backend": "vllm"})
    done = command_line("search", path, "--out", out, expect=1)  # recipes without a score are named
    states = [note["status"] for note in notes(out).values()]
    print(states)
    assert len(states) == 6 and "invalid" in states and states.count("invalid") < 6
    trials = load_study(out / "search" / "study.log").get_trials(deepcopy=False)
    for trial in trials:
        lost = "task_arithmetic" in str(trial.params.get("method"))
        assert (trial.state == TrialState.PRUNED) == lost, "infeasible, and never a score"
        assert not lost or trial.constraints == {"infeasible": 1.0}
    assert "invalid" in (out / "report.md").read_text() and "has NaN or Inf" in done.stderr
