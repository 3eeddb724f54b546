"""Work that copies of this process share gives what this process alone would give."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.processes import WORTH_S, shared_out, usable_cores
from orchestrator.core.records import RecipeStatus
from orchestrator.results.board import Board
from orchestrator.results.layout import Layout
from orchestrator.stages.open import reopen_sweep
from orchestrator.stages.publish import publish
from orchestrator.stages.score import DOCUMENT_S
from tests.helpers.answers import damage
from tests.helpers.results import state
from tests.helpers.tasks import TEXT, answered_sweep, rows, write_task

pytestmark = pytest.mark.skipif(usable_cores() < 2, reason="one core, or a system where processes are not copied")


@pytest.fixture
def one_core() -> Iterator[None]:
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    yield
    os.sched_setaffinity(0, usable)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(), max_size=20))
def test_results_are_in_order_and_from_copies(items: list[int]) -> None:
    found = list(shared_out(lambda item: (item + 1, os.getpid()), items, WORTH_S))
    assert [each for each, _ in found] == [item + 1 for item in items]
    assert len(items) < 2 or os.getpid() not in {pid for _, pid in found}


def test_little_work_is_done_here() -> None:
    assert set(shared_out(lambda _: os.getpid(), range(9), WORTH_S / 2)) == {os.getpid()}


def test_copies_are_not_copied() -> None:
    def work(_: int) -> set[int]:
        return {os.getpid(), *shared_out(lambda _: os.getpid(), range(4), WORTH_S)}

    assert all(len(pids) == 1 for pids in shared_out(work, range(4), WORTH_S))


def test_what_raises_raises_here_after_what_was_before() -> None:
    def work(item: int) -> int:
        return 12 // (3 - item)

    found = shared_out(work, range(6), WORTH_S)
    assert [next(found), next(found), next(found)] == [4, 6, 12]
    with pytest.raises(ZeroDivisionError) as caught:
        next(found)
    assert any("test_processes" in str(entry.path) for entry in caught.traceback)


def test_what_a_copy_does_not_give_is_computed_here() -> None:
    here = os.getpid()

    def work(item: int) -> object:
        if item == 5 and os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return threading.Lock() if item == 2 else item  # a lock cannot be pickled

    found = list(shared_out(work, range(12), WORTH_S))
    assert [each for each in found if isinstance(each, int)] == [0, 1, *range(3, 12)]


def test_torch_computes_in_copies() -> None:
    """A copy has none of the threads that torch has started here, and would wait for them."""
    import torch

    large = torch.randn(1 << 20)
    expected = float(large.exp().sum())
    found = list(shared_out(lambda _: float(large.exp().sum()), range(4), WORTH_S))
    assert found == pytest.approx([expected] * 4, rel=1e-4)


@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGINT])
def test_copies_end_with_their_process(signalled: signal.Signals) -> None:
    code = f"""
import os, sys, time
from orchestrator.core.processes import WORTH_S, shared_out
def work(item):
    time.sleep(0.05)
    return os.getpid(), bytes(1 << 20)
for pid, _ in shared_out(work, range(10_000), {WORTH_S}):
    print(pid, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        copies = {int(process.stdout.readline()) for _ in range(8)}
        assert len(copies) > 1
        process.send_signal(signalled)
        process.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in copies):
        assert time.monotonic() < until, "a copy outlives its process"
        time.sleep(0.05)


def test_a_board_is_the_same_on_all_cores(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Many recipes, one of which lacks answers, and a damaged block; the copies' processors are those of a report."""
    documents, grid = 200, [{"method": "linear", "alpha": {"start": 0, "stop": 1, "step": 0.01}}]
    write_task(tmp_path, TEXT, rows(documents))
    sweep = answered_sweep(tmp_path, objectives={"x": {"tasks": ["own"]}}, recipes=grid)
    assert DOCUMENT_S * documents * len(sweep.recipes) > WORTH_S
    damage(sweep.ledger.store)
    sweep.ledger.forget(sweep.recipes[-1].id)

    def board() -> tuple[Board, dict[str, str]]:
        again = reopen_sweep(Layout(tmp_path / "out"))
        made = publish(again, None)
        assert again.scores.keys() == {
            (row.recipe.id, id(suite)) for row in made.rows if row.scores for suite in again.tasks.suites
        }
        assert all(row.recipe is recipe for row, recipe in zip(made.rows, again.recipes, strict=True))
        return made, state(tmp_path / "out")

    shared, files = board()
    request.getfixturevalue("one_core")
    alone, same_files = board()
    assert [row.status for row in shared.rows].count(RecipeStatus.PENDING) == 2
    assert any("does not match its SHA-256" in note for note in shared.notes) and shared.notes == alone.notes
    assert files == same_files
