"""A sweep over texts of the user's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.config.load import load_config
from orchestrator.core.errors import UserError
from orchestrator.stages.publish import read_board
from orchestrator.sweep import run_sweep
from tests.helpers.clinical import SECRET


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    rows = [{"letter": f"{SECRET} {i}: takes 5 mg", "summary": f"{SECRET} takes 5 mg"} for i in range(6)]
    (tmp_path / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompt = "Summarize.\n{{input}}\nSummary:"
    return {"letters": {"file": "letters.jsonl", "prompt": prompt, "input": "letter", "reference": "summary"}}


METRICS = ("bleu", "meteor", "rouge1", "rouge2", "rougeL", "faithfulness")
OBJECTIVE = {"metric": "composite_without_bertscore", "gen_kwargs": {"max_gen_toks": 64}}


def test_a_sweep_over_an_own_task(
    sweep: Callable[..., Path], own: dict[str, Any], tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.generation.measured.measure", lambda *_: pytest.fail("measured by the driver"))
    path, out = (
        sweep(objectives={"notes": {"tasks": ["letters"], **OBJECTIVE}}, generation={"own": own}),
        tmp_path / "out",
    )
    board = run_sweep(path, out)
    assert all(row.status == "scored" for row in board.rows)
    values = board.find("a").scores["notes"].tasks[0]
    assert {"composite_without_bertscore", *METRICS} <= set(values.metrics)
    assert values.value == values.metrics["composite_without_bertscore"]
    assert any("BERTScore was left out" in note for note in board.notes)
    told = "".join(capfd.readouterr())
    written = [f for f in out.rglob("*") if f.is_file() and "answers" not in f.parts]
    for text in (SECRET, "fake answer"):
        assert text not in told and not any(text.encode() in file.read_bytes() for file in written)

    (remembered,) = (out / "metrics").iterdir()
    before = remembered.read_text()
    assert read_board(out).find("a").scores["notes"].tasks[0].metrics == values.metrics
    assert remembered.read_text() == before, "nothing was measured twice"
    remembered.unlink()  # as if the first run had been killed before it measured
    assert run_sweep(path, out).find("a").scores["notes"].tasks[0].metrics == values.metrics
    assert len(remembered.read_text().split()) == len(before.split())


def test_sixteen_sequences_unless_the_sweep_says_more(sweep: Callable[..., Path], own: dict[str, Any]) -> None:
    assert load_config(sweep()).workers.engine.max_num_seqs == 128
    assert load_config(sweep(generation={"own": own})).workers.engine.max_num_seqs == 16
    workers = {"backend": "fake", "engine": {"max_num_seqs": 64}}
    assert load_config(sweep(generation={"own": own}, workers=workers)).workers.engine.max_num_seqs == 64


def test_plan_refuses_the_encoder_that_run_would(sweep: Callable[..., Path], own: Any, capsys: Any) -> None:
    generation = {"own": own, "encoder": {"model": "./nowhere", "layer": 2}}
    assert (
        main(["plan", str(sweep(objectives={"notes": {"tasks": ["letters"], **OBJECTIVE}}, generation=generation))])
        == 2
    )
    assert "generation.encoder.model: the folder" in capsys.readouterr().err


def wrong(generation: dict[str, Any] | None, task: str, expected: str, **objective: Any) -> Any:
    return pytest.param(generation, {"tasks": [task], **OBJECTIVE, **objective}, expected, id=expected[:40])


@pytest.mark.parametrize(
    ("generation", "objective", "expected"),
    [
        wrong(None, "clinical_bhc", r"write it under generation\.data\.clinical_bhc; it is available from https://physionet"),
        wrong({"data": {"clinical_bhc": "nowhere"}}, "clinical_bhc", "there is no such folder"),
        wrong({"data": {"clinical_bch": "."}}, "letters", r"generation\.data\.clinical_bch: no such task; did you mean 'clinical_bhc'"),
        wrong({"own": {"l": {"file": "f", "prompt": "x"}}}, "l", r"generation\.own\.l: prompt has no \{\{input\}\}"),
        wrong({"own": {"l": {"file": "f", "prompt": "{{input}}", "input": "a", "reference": "a"}}}, "l", "input and reference are both 'a'; name the field of each"),
        wrong({"own": {"l": {"file": "f", "prompt": "{{input}}", "truncat": "left"}}}, "l", r"generation\.own\.l\.truncat: unknown key; did you mean 'truncate'"),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}} {{x}}"}}}, "l", r"generation\.own\.l\.prompt: 'x' cannot stand in it; only \{\{input\}\} can"),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}} {{reference}}"}}}, "l", r"prompt: 'reference' cannot stand in it"),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}} {% if %}"}}}, "l", r"generation\.own\.l\.prompt: .*; write Jinja"),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}}"}}}, "l", r"composite needs BERTScore's encoder, but generation\.encoder is missing", metric=None),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}}"}}}, "l", r"has no metric 'rouge3'", metric="rouge3"),
    ],
)  # fmt: skip
def test_wrong_sweeps(
    generation: Any, objective: Any, expected: str, sweep: Callable[..., Path], own: Any, tmp_path: Path
) -> None:
    path = sweep(objectives={"notes": objective}, generation=generation)
    with pytest.raises(UserError, match=expected):
        run_sweep(path, tmp_path / "out")
