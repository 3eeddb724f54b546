"""Whole sweeps with their ledger, and their parents, in object storage: shared, cut off, and gone for a while."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.core.store import Store
from orchestrator.results.layout import Layout
from orchestrator.results.status import read_status
from tests.helpers.paths import DEMO, EXAMPLES, ROOT
from tests.helpers.results import leaderboard

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]
# So slow that the sweep is not over when the storage comes back: the workers do not wait for it.
SLOW = {"backend": "fake", "fake_seconds": 0.2, "block": 8, "count": 2, "engine": {"max_model_len": 512}}


def start(*args: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "orchestrator", *map(str, args)]
    environment = {**os.environ, **environment}
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def finish(running: subprocess.Popen[str], expect: int = 0) -> str:
    out, error = running.communicate(timeout=900)
    assert running.returncode == expect and "Traceback" not in error, out + error
    return out + error


def wait_for_answers(out: Path, count: int) -> None:
    for _ in range(600):
        if (out / "questions.parquet").exists() and read_status(Layout(out)).answered >= count:
            return
        time.sleep(0.5)
    raise AssertionError("no answers came")


def test_sweeps_share_a_bucket_that_goes_away_and_comes_back(
    sweep: Callable[..., Path], bucket: Any, tmp_path: Path
) -> None:
    calm = tmp_path / "calm"
    finish(start("run", sweep("calm.yaml"), "--out", calm))
    path, first, second = (
        sweep("shared.yaml", workers=SLOW, ledger=bucket("team")),
        tmp_path / "first",
        tmp_path / "second",
    )
    running = start("run", path, "--out", first)
    wait_for_answers(first, 60)
    assert read_status(Layout(first)).state == "at work"
    bucket.door.shut()
    time.sleep(12)
    assert running.poll() is None, "it waits"
    bucket.door.open()
    wait_for_answers(first, 150)
    running.kill()
    running.communicate()
    time.sleep(1)
    dead = read_status(Layout(first))
    assert dead.state == "dead" and 150 <= dead.answered < dead.questions and dead.damaged == []
    before = {entry.name for entry in Store(bucket("team")).list() if entry.name.endswith("SUCCESS")}
    told = finish(start("run", path, "--out", first))
    assert "cannot be" not in told
    assert leaderboard(first) == leaderboard(calm)
    done = {entry.name for entry in Store(bucket("team")).list() if entry.name.endswith("SUCCESS")}
    assert before < done
    assert read_status(Layout(first)).answered == read_status(Layout(first)).questions

    told = finish(start("run", path, "--out", second))
    assert "starting engines" not in told, "what another sweep asked is not asked again"
    assert leaderboard(second) == leaderboard(calm)


def test_real_engines_over_parents_in_a_bucket(bucket: Any, tmp_path: Path) -> None:
    config = yaml.safe_load((EXAMPLES / "demo.yaml").read_text())
    for name in config["parents"]:
        store = Store(bucket(f"models/{name}"))
        for file in (DEMO / "parents" / name).iterdir():
            store.write(file.name, file.read_bytes())
        config["parents"][name] = {"model": bucket(f"models/{name}")}
    config["include_path"] = [str(DEMO / "lm_eval")]
    config["recipes"] = [{"method": "slerp", "t": [0.5]}]
    for objective in config["objectives"].values():
        objective["limit"] = 8
    config["ledger"] = bucket("demo")
    config["workers"] = {**config.get("workers", {}), "count": 2}
    path, node = tmp_path / "sweep.yaml", tmp_path / "node"
    path.write_text(yaml.safe_dump(config))
    finish(start("run", path, "--out", tmp_path / "out", XDG_CACHE_HOME=str(node)))
    assert {row["status"] for row in leaderboard(tmp_path / "out")} == {"scored"}
    lines = [line for line in bucket.log.read_text().splitlines() if '"GET /bucket/models/' in line]
    assert sum("model.safetensors" in line for line in lines) == len(config["parents"]), "one download each"

    weights = next((node / "mergefront" / "models").glob("[0-9a-f]*/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    config["recipes"] = [{"method": "slerp", "t": [0.25]}]
    path.write_text(yaml.safe_dump(config))
    told = finish(start("run", path, "--out", tmp_path / "out", XDG_CACHE_HOME=str(node)), expect=2)
    assert f"{weights}: expected SHA-256" in told and "to fetch it again" in told
    assert json.loads((tmp_path / "out" / "driver.json").read_text())["ended"] is True
