"""Training on real Ray Train: groups that are stopped, and what a process that only schedules them has to import."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cluster.errors import EngineStartError
from cluster.session import session
from cluster.slots import Busy, Idle, Starting, Waiting
from cluster.spec import Place
from cluster.training import check_beside, group_of, shares, train_runs
from orchestrator.config.finetune import Finetune
from orchestrator.core.records import Block
from orchestrator.recipes.recipe import Recipe, Source
from orchestrator.recipes.tuning import Tuning
from tasks.finetuning.examples import Labelled
from tasks.finetuning.run import Run

ROOT = Path(__file__).resolve().parents[2]
FINETUNE = Finetune.model_validate({"starts": ["a"], "tasks": {"notes": {"tasks": ["clinical_mts_dialog"]}}})


def make_run(start: Path, folder: Path, steps: int) -> Run:
    drawn = random.Random(0)
    rows = [(tuple(drawn.randrange(3, 700) for _ in range(9)), (drawn.randrange(3, 700), 2)) for _ in range(8)]
    source = Recipe("passthrough", ((Source("d", "a", str(start)), {}),), None, {}, "float32")
    settings = {"steps": steps, "learning_rate": 1e-5, "batch_size": 2, "accumulation": 1, "optimizer": "adamw_torch"}
    tuning = Tuning(source, "data", "full", 0, settings, "notes", "a", len(rows), "8")
    return Run(tuning, start, folder, start, tuple(Labelled(*row) for row in rows), "float32", 20, False)


def checkpoint(run: Run) -> Path | None:
    """The newest complete one."""
    return next((file.parent for file in run.files.checkpoints.glob("checkpoint-*/COMPLETE")), None)


@pytest.fixture
def cluster() -> Iterator[None]:
    with session():
        yield


@pytest.mark.prove
@pytest.mark.usefixtures("cluster")
def test_training_that_is_stopped_ends_and_is_resumed_by_the_next_call(
    parents: dict[str, Path], tmp_path: Path
) -> None:
    run, group = make_run(parents["a"], tmp_path / "run", steps=600), group_of(FINETUNE, 0, tmp_path / "ray", 300.0)
    check_beside(group, {"CPU": 1.0})
    with pytest.raises(EngineStartError, match=r"needs 1000 CPU for its engines and for training beside them, but"):
        check_beside(group, {"CPU": 999.0})
    assert list(train_runs([run], group, stop=lambda: True)) == [] and not run.folder.exists(), "nothing is started"

    results = list(train_runs([run], group, stop=lambda: checkpoint(run) is not None))
    assert not any(results) and not run.is_finished, "it is stopped, which is no failure"
    (note,) = run.files.processes
    pid = json.loads(note.read_text())["pid"]
    until = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "its process has ended"
        time.sleep(0.1)

    saved = checkpoint(run)
    assert saved is not None
    state = json.loads((saved / "trainer_state.json").read_text())
    state["log_history"][0]["loss"] = -1
    (saved / "trainer_state.json").write_text(json.dumps(state))
    assert not any(train_runs([run], group))
    losses = json.loads(run.files.result.read_text())["losses"]
    assert len(losses) == 600 and losses[0] == -1, "resumed, not begun anew"


def test_the_longest_runs_are_dealt_out_first(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, tmp_path, steps) for steps in (1, 5, 2, 3)]
    assert [[run.steps for run in share] for share in shares(runs, 2)] == [[5, 1], [3, 2]]
    assert len(shares(runs, 9)) == 4


def test_a_slot_goes_through_its_states_and_keeps_what_belongs_to_each() -> None:
    place, block = Place("node", "host:1", 1, 0), Block("recipe", ())
    starting = Waiting().placed(place)
    idle = starting.ready()
    busy = idle.busy(block)
    assert (type(starting), type(idle), type(busy)) == (Starting, Idle, Busy)
    assert idle.recipe_id is None and busy.block == block and busy.done().recipe_id == "recipe"
    assert starting.placed_at == busy.done().placed_at and starting.since <= busy.since <= busy.done().since


@pytest.mark.parametrize(
    "module, heavy",
    [
        ("cluster.training", ("torch", "transformers", "trl", "vllm")),
        ("cluster.pool", ("torch", "transformers", "vllm")),
        ("cluster.nodes", ("ray", "torch", "vllm")),
        ("cluster.session", ("ray", "torch", "vllm")),
        ("cluster.errors", ("ray", "torch", "vllm")),
    ],
)
def test_the_driver_imports_nothing_that_only_workers_need(module: str, heavy: tuple[str, ...]) -> None:
    code = f"import {module}, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
