"""Failure on the real demo, and a disk that is full: `make prove`, or

pytest -m prove -s tests/proofs/test_failure.py
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.campaign import KINDS, campaign, leaderboard, markers, questions, write_demo
from benchmarks.common import ROOT
from tests.helpers.sweeps import FINETUNE, GENERATION

pytestmark = [pytest.mark.prove, pytest.mark.timeout(3600)]


def test_the_real_demo_survives_one_death_of_each_kind(tmp_path: Path) -> None:
    results = campaign(write_demo(tmp_path, "vllm"), tmp_path, len(KINDS), KINDS, seed=0, nodes=2)
    assert len(results) == len(KINDS) and all(result.good for result in results), results


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True)
    if mount.returncode:
        pytest.skip(f"no small disk can be mounted here: {mount.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_said_and_the_same_command_goes_on(sweep: Callable[..., Path], small_disk: Path) -> None:
    workers = {"backend": "fake", "gpus": 0, "fake_seconds": 0.05, "block": 8, "engine": {"max_model_len": 512}}
    out = small_disk / "out"
    command = [sys.executable, "-m", "orchestrator", "run", str(sweep(workers=workers)), "--out", str(out)]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while len(markers(out)) < 3:
        assert driver.poll() is None
        time.sleep(0.02)
    fill(small_disk / "filler")
    _, said = driver.communicate(timeout=120)
    assert driver.returncode == 2 and "Traceback" not in said
    assert f"No space left on device ({out}" in said and "fix that, and run the same command again" in said
    before = markers(out)
    for marker in before:
        assert len(questions(out, marker)) == json.loads((out / marker).read_text())["rows"]
    (small_disk / "filler").unlink()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert before.items() <= markers(out).items()
    assert {row["status"] for row in leaderboard(out)} == {"scored"}


def fill(file: Path) -> None:
    """Until nothing fits any more."""
    with file.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        while True:
            stream.write(bytes(4096))


def test_fine_tuning_that_hangs_is_ended_and_goes_on(sweep: Callable[..., Path], tmp_path: Path) -> None:
    """A stopped process neither makes steps nor hears that it should end."""
    finetune = {**FINETUNE, "starts": ["b"], "seeds": [0], "min_steps": 400, "save_steps": 50}
    out, workers = tmp_path / "out", {"backend": "fake", "gpus": 0, "patience": 5, "engine": {"max_model_len": 512}}
    path = sweep(generation=GENERATION, finetune=finetune, workers=workers)
    command = [sys.executable, "-m", "orchestrator", "sft", str(path), "--out", str(out)]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not (saved := list(out.glob("tuning/*/checkpoints/checkpoint-*/COMPLETE"))):
        assert driver.poll() is None
        time.sleep(0.2)
    (note,) = out.glob("tuning/*/process-0.json")
    stopped = json.loads(note.read_text())["pid"]
    os.kill(stopped, signal.SIGSTOP)
    _, said = driver.communicate(timeout=600)
    assert driver.returncode == 0 and "fine-tuning hangs (no step for" in said, said
    assert not psutil.pid_exists(stopped) and saved
    (result,) = out.glob("tuning/*/RESULT.json")
    assert len(json.loads(result.read_text())["losses"]) == 400
