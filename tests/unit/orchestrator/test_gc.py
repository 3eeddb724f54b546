"""Garbage collection takes only what nothing refers to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.core.store import Store
from orchestrator.results.gc import GRACE_S, collect, find_garbage
from orchestrator.results.status import read_status
from tests.helpers.answers import Results


def test_gc_tells_first_and_takes_only_what_nothing_refers_to(
    sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(sweep(), tmp_path / "out")
    answers, old = tmp_path / "out" / "answers", time.time() - GRACE_S - 10
    results.answer(0)
    results.answer(0)  # the files of the first time are superseded: three
    results.answer(1, slice(2))
    (answers / results.recipes[1]).rename(tmp_path / "aside")
    results.ledger.forget(results.recipes[1])
    (tmp_path / "aside").rename(answers / results.recipes[1])
    unfinished, broken = sorted((answers / results.recipes[1]).iterdir())
    (unfinished / "SUCCESS").unlink()
    (broken / "SUCCESS").write_text("{")
    (tmp_path / "out" / ".report.md.12345678.tmp").write_text("half")
    for folder in ("checkpoints/scratch/0/lora", "checkpoints/" + "a" * 20, "checkpoints/" + results.recipes[2]):
        (tmp_path / "out" / folder).mkdir(parents=True)
        (tmp_path / "out" / folder / "model.safetensors").write_bytes(b"x" * 100)
    (answers / "notes.txt").write_text("the user's own")

    assert {each.what for each in find_garbage(results.layout) if each.in_ledger} == set(), "a writer may be at work"
    for file in answers.rglob("*"):
        os.utime(file, (old, old))
    before = {path for path in (tmp_path / "out").rglob("*")}
    garbage = find_garbage(results.layout)
    kinds = {what: sum(each.what == what for each in garbage) for what in {each.what for each in garbage}}
    assert kinds == {
        "ledger: superseded or left over": 3,
        "ledger: of blocks that were never finished": 1,
        "ledger: of damaged blocks": 2,
        "half-written files": 1,
        "scratch of engines": 1,
        "checkpoints of recipes that the sweep no longer has": 1,
    }
    assert main(["ledger", "gc", str(results.out)]) == 0
    told = capsys.readouterr().out
    assert f"{sum(each.size for each in garbage):,} bytes  in all" in told and "`--yes` deletes" in told
    assert {path for path in (tmp_path / "out").rglob("*")} == before

    answered = read_status(results.layout).answered
    assert main(["ledger", "gc", str(results.out), "--yes"]) == 0
    assert find_garbage(results.layout) == []
    after = read_status(results.layout)
    assert (after.answered, after.damaged) == (answered, []) and answered == 18
    assert (answers / "notes.txt").exists()
    assert (tmp_path / "out" / "checkpoints" / results.recipes[2]).exists()


def test_gc_leaves_a_bucket_that_others_write_to_alone(bucket: Any, sweep: Callable[..., Path], tmp_path: Path) -> None:
    results = Results(sweep(ledger=bucket("busy")), tmp_path / "out")
    results.answer(0)
    Store(results.place).write("r/b/answers-01234567.parquet", b"of a writer that is about to write its marker")
    collect(results.layout, find_garbage(results.layout))
    assert Store(results.place).read("r/b/answers-01234567.parquet")
    assert read_status(results.layout).answered == 18
