"""Status from the files alone, of sweeps that live, died, or were damaged."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.config.load import load_config
from orchestrator.core.files import write_json
from orchestrator.core.store import Store
from orchestrator.results.heartbeat import Driver, driving, read_driver
from orchestrator.results.status import describe, read_status
from tests.helpers.answers import Results, damage
from tests.helpers.paths import ROOT


def test_status_counts_what_run_would_find(results: Results) -> None:
    results.answer(0)
    results.answer(1, slice(2), worker="node:2")
    failures = results.out / "failures"
    failures.mkdir()
    write_json(failures / f"{results.recipes[3]}.json", {"status": "invalid", "stage": "merge", "message": "NaN"})
    with driving(results.layout):
        while read_driver(results.layout) is None:
            time.sleep(0.01)
        status = read_status(results.layout)
    assert status.state == "at work"
    assert status.recipes == {"done": 1, "pending": 2, "invalid": 1, "failed": 0}
    assert (status.answered, status.questions) == (18 + 12, 3 * 18)
    assert status.per_second is not None and status.left_s == pytest.approx(24 / status.per_second)
    assert [(worker.name, worker.blocks) for worker in status.workers] == []
    assert status.worker_hours == pytest.approx(5 * 4 / 3600)
    assert status.failures[0]["message"] == "NaN"
    assert status.damaged == []
    after = read_status(results.layout)
    assert (after.state, after.per_second, after.answered) == ("ended", None, 30)
    assert "1 done, 2 pending, 1 invalid" in describe(after)


def test_status_of_a_dead_sweep_names_its_workers_and_its_damage(results: Results) -> None:
    dead = Driver("elsewhere", 4, time.time() - 900, time.time() - 600)
    write_json(results.out / "driver.json", dead.__dict__)
    results.answer(0, worker="node:1")
    results.answer(1, slice(1), worker="node:2")
    status = read_status(results.layout)
    assert (status.state, status.answered) == ("dead", 18 + 6)
    assert [(worker.name, worker.blocks, worker.answers) for worker in status.workers] == [
        ("node:1", 3, 18),
        ("node:2", 1, 6),
    ]
    damage(Store(results.place))
    status = read_status(results.layout)
    assert status.answered == 18 and len(status.damaged) == 1
    assert "does not match its SHA-256; run evaluates it again" in describe(status)
    assert "was 10.0 min ago; the same command resumes" in describe(status)


def test_status_is_quick_and_starts_nothing(sweep: Callable[..., Path], tmp_path: Path) -> None:
    results = Results(sweep(), tmp_path / "out")
    results.answer(0)
    code = (
        "import sys; from orchestrator.cli.main import main\n"
        f"assert main(['status', {str(results.out)!r}, '--json']) == 0\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'mergekit', 'lm_eval', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answered"] == 18


def test_no_sweep_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["status", str(tmp_path)], ["ledger", "gc", str(tmp_path)]):
        assert main(command) == 2
        assert "has no sweep (no sweep.json); give the folder that `run --out` wrote" in capsys.readouterr().err
    assert main(["ledger", "merge", str(tmp_path), str(tmp_path)]) == 2
    assert "has neither a sweep nor a ledger" in capsys.readouterr().err
    assert main(["ledger", "merge", "s3://key:secret@bucket/x", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "ledger: the address contains a password in a URL" in told and "secret@" not in told


@pytest.mark.parametrize(
    ("gpus", "ranks", "hours", "shown"),
    [(1.0, 2, 2.0, ", 2.00 GPU hours"), (0.5, 1, 0.5, ", 0.50 GPU hours"), (0.0, 2, 0.0, "")],
)
def test_gpu_hours_are_those_of_all_gpus_of_an_engine(
    sweep: Callable[..., Path], tmp_path: Path, gpus: float, ranks: int, hours: float, shown: str
) -> None:
    engine = {"max_model_len": 512, "tensor_parallel_size": ranks}
    results = Results(sweep(workers={"backend": "fake", "gpus": gpus, "engine": engine}), tmp_path / "out")
    results.answer(0, slice(1), swap_s=600.0, answer_s=3000.0)
    status = read_status(results.layout)
    assert [status.worker_hours, status.gpu_hours] == pytest.approx([1.0, hours])
    assert f"1.00 worker hours{shown}\n" in describe(status) + "\n"
    workers = load_config(tmp_path / "sweep.yaml").workers
    assert workers.gpu_hours(3600.0) == (hours or 1.0), "in a budget a worker without a GPU counts as one"
