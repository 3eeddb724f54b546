"""Ray and the engines of a new sweep start beside its opening; what goes wrong meanwhile leaves nothing of them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import ray

from orchestrator.config.load import load_config
from orchestrator.core.errors import UserError
from orchestrator.results.layout import Layout
from orchestrator.stages.compute import computing
from orchestrator.stages.open import open_sweep
from orchestrator.sweep import run_sweep
from tests.helpers.commands import start
from tests.helpers.results import finished
from tests.helpers.sweeps import content

Write = Callable[..., Path]


def processes_of_ray(parent: psutil.Process) -> list[psutil.Process]:
    return [child for child in parent.children(recursive=True) if "ray" in " ".join(child.cmdline())]


@pytest.mark.parametrize("stored", ["sweep.json", "answers/x/y"])
def test_a_folder_with_results_starts_nothing_before_it_is_known_what_is_left(
    stored: str, write: Write, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "out")
    (layout.root / stored).parent.mkdir(parents=True)
    (layout.root / stored).touch()
    with computing(load_config(write(content())), layout, None, searches=False) as compute:
        compute.begin()
        assert not compute.is_new and compute.gpu_hours == 0
    assert not ray.is_initialized()


def test_neither_does_a_sweep_whose_ledger_is_shared(write: Write, tmp_path: Path) -> None:
    config = load_config(write(content(ledger=str(tmp_path / "ledger"))))
    with computing(config, Layout(tmp_path / "out"), None, searches=False) as compute:
        assert not compute.is_new
    assert not ray.is_initialized()


@pytest.mark.slow
def test_the_engine_of_a_new_sweep_starts_while_its_tasks_are_read(write: Write, tmp_path: Path) -> None:
    config, layout = load_config(write(content())), Layout(tmp_path / "out")
    with computing(config, layout, None, searches=False) as compute:
        sweep = open_sweep(config, layout, compute.begin)
        pool = compute.pool(sweep, 3)
        assert len(pool.workers.slots) == 1 and pool is compute.pool(sweep, 1)
        compute.release()
        assert compute.pool(sweep, 1) is not pool
        compute.end()
    assert not ray.is_initialized() and not processes_of_ray(psutil.Process())


@pytest.mark.slow
def test_a_mistake_that_is_found_while_an_engine_starts_leaves_nothing(write: Write, tmp_path: Path) -> None:
    path = write(content(objectives={"clinical": {"tasks": ["demo_formularies"]}}))
    with pytest.raises(UserError, match="demo_formularies"):
        run_sweep(path, tmp_path / "out")
    assert not ray.is_initialized() and not processes_of_ray(psutil.Process())
    assert not Layout(tmp_path / "out").scratch.exists() and not finished(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_run_that_is_ended_while_ray_starts_leaves_no_process(
    number: signal.Signals, code: int, write: Write, tmp_path: Path
) -> None:
    running = start(write(content()), tmp_path / "out")
    driver = psutil.Process(running.pid)
    deadline = time.monotonic() + 240
    while not (started := processes_of_ray(driver)):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    running.send_signal(number)
    _, said = running.communicate(timeout=240)
    assert running.returncode == code and b"Traceback" not in said
    assert not psutil.wait_procs(started, timeout=60)[1]
