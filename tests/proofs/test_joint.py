"""examples/joint_search.yaml as it stands: candidates are merged, fine-tuned and raced, killed once and continued."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.test_main_job import finished, mergefront
from tests.test_search import ROOT, command, notes

EXAMPLE = ROOT / "examples" / "joint_search.yaml"


@pytest.mark.prove
def test_a_joint_search_finds_merges_that_have_learned(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = subprocess.Popen(command("search", EXAMPLE, "--out", out), cwd=ROOT)
    deadline = time.monotonic() + 600
    while sum(note["status"] != "open" for note in notes(out).values()) < 2:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    running.send_signal(signal.SIGKILL)
    running.wait()
    before = finished(out)
    trained = {file: file.stat().st_mtime_ns for file in out.glob("tuning/*/RESULT.json")}

    done = mergefront("search", EXAMPLE, "--out", out)
    print(done.stderr, done.stdout, sep="\n")
    assert before.items() <= finished(out).items(), "nothing was asked again"
    assert trained == {file: file.stat().st_mtime_ns for file in trained}, "nothing was trained again"
    assert len(notes(out)) == 8
    board = json.loads((out / "front.json").read_text())
    print(json.dumps(board, indent=1))
    assert "+lora" in (out / "report.md").read_text()
    assert not list(out.glob("tuning/*/start")), "the merges that were trained from are gone"
