"""The second phase from the outside: the command line, real Ray Train, real trl on random parents; the fake backend
answers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.config.load import load_config
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.planning.finetune import describe_finetune
from orchestrator.planning.plan import make_plan
from orchestrator.results.layout import Layout
from orchestrator.stages.finetune_runs import finetuned_round, plan_runs
from orchestrator.stages.open import open_sweep
from orchestrator.stages.score import score
from tests.helpers.commands import Run, command_line
from tests.helpers.paths import DEMO, INSTRUCT, ROOT
from tests.helpers.results import finished
from tests.helpers.sweeps import FINETUNE, GENERATION, ICFT, TASK


@pytest.mark.slow
def test_a_sweep_goes_on_into_fine_tuning(
    sweep: Callable[..., Path], parents: dict[str, Path], tmp_path: Path, mergefront: Run
) -> None:
    out, talks = tmp_path / "out", tmp_path / "talks"  # with a chat template, for ICFT's instructions
    shutil.copytree(parents["b"], talks)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(INSTRUCT / file, talks / file)
    models = {"a": {"model": str(parents["a"])}, "b": {"model": str(talks)}}

    def write(**changes: Any) -> Path:
        return sweep(generation=GENERATION, parents=models, finetune={**FINETUNE, **changes})

    # As people write it; Ray's processes have working directories of their own.
    done = command_line("sft", write(), "--out", os.path.relpath(out, ROOT))
    assert "4/4 runs, 8/8 steps" in done.stderr
    results = {file: json.loads(file.read_text()) for file in out.glob("tuning/*/RESULT.json")}
    assert len(results) == 4, "two starts, two seeds"
    assert {(len(note["losses"]), note["examples"]) for note in results.values()} == {(2, 4)}
    assert len({note["data"] for note in results.values()}) == 2, "both starts learn from the same examples"
    assert not (out / "tuning" / "starts").exists(), "the starting checkpoints go when all runs are finished"

    page = (out / "report.md").read_text()
    for title in ("Starting points", "What was forgotten", "What it cost"):
        assert title in page
    assert "best in clinical" in page, "the rule is told with its choice"
    assert (out / "figures" / "learning.png").exists()
    asked = {marker.parts[-3] for marker in finished(out)}
    tuned = [row for row in (out / "answers").iterdir() if row.name in asked]
    assert len(tuned) == 4 + 4, "the four recipes of the first phase and the four that were tuned"

    before = finished(out), {file: file.stat().st_mtime_ns for file in results}
    more = write(examples=[4, 8], method=["full", "icft"], icft={**ICFT, "examples": 8}, cpus=2)
    _, again = mergefront("run", more, "--out", out)
    assert "8 runs of fine-tuning" in again, "only those with 8 examples"
    assert before[0].items() <= finished(out).items()
    assert before[1] == {file: file.stat().st_mtime_ns for file in results}, "finished runs are not repeated"

    _, quiet = mergefront("sft", more, "--out", out)
    assert "starting" not in quiet
    rows = pq.read_table(out / "tuning.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"scored"} and len(rows) == 12
    assert "ICFT-style (from the abstract), 8" in (out / "report.md").read_text(), "in one table with the others"
    mergefront("report", out)


def test_what_is_wrong_with_finetune_is_said(sweep: Callable[..., Path], tmp_path: Path, mergefront: Run) -> None:
    def error(**changes: Any) -> str:
        with pytest.raises(UserError) as raised:
            load_config(sweep(generation=GENERATION, finetune={**FINETUNE, **changes}))
        return str(raised.value)

    assert "finetune.tasks.clinical: an objective has this name too" in error(tasks={"clinical": TASK})
    assert "finetune.starts[0] names 'clinicl'" in error(starts=[{"best": "clinicl"}])
    assert "did you mean 'clinical'" in error(starts=[{"best": "clinical", "floor": {"clinicle": 0.5}}])
    assert "a rule has either best" in error(starts=[{"per": "method"}])
    assert "finetune.epoch: unknown key; did you mean 'epochs'?" in error(epoch=3)
    assert "the key baseline is missing" in error(starts=["baseline"])
    assert "starts does not name" in error(baseline={"start": "a", "file": "x.jsonl"})
    assert "the key icft is missing; write icft: {general:" in error(method="icft")
    assert "icft is the settings of methods that method does not name" in error(icft=ICFT)
    both = {"method": ["full", "icft"]}
    assert "icft.examples takes different values" in error(icft={**ICFT, "examples": [4, 4]}, **both)
    rows = {**ICFT, "recent_rows": 2, "earlier_rows": 2}
    assert "take 4 rows of a batch_size of 4, and leave none for the present stage" in error(icft=rows, **both)
    assert "gpus: icft trains on one GPU, but got 2" in error(icft=ICFT, gpus=2, **both)
    assert "icft.examples: 8 is not among examples, [4]" in error(icft={**ICFT, "examples": 8}, **both)
    assert "finetune.icft.stage: unknown key; did you mean 'stages'?" in error(icft={**ICFT, "stage": 2}, **both)
    assert "finetune.icft.general: this key is missing" in error(icft={}, **both)
    assert "has no section finetune" in mergefront("sft", sweep(), "--out", tmp_path / "out", expect=2)[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": ["bee"]}, "finetune.starts[0]: 'bee' is no recipe of this sweep"),
        ({"starts": ["baseline"], "baseline": {"start": "a", "file": "no.jsonl"}}, "finetune.baseline.file: "),
        ({"method": "icft", "icft": {"general": "no.jsonl"}}, "finetune.icft.general: "),
        ({"max_length": 16}, "max_length is 16, but a training example has"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_plan_and_run_refuse_the_same_before_anything_is_evaluated(
    changes: dict[str, Any], message: str, sweep: Callable[..., Path], tmp_path: Path, mergefront: Run
) -> None:
    path = sweep(generation=GENERATION, finetune={**FINETUNE, **changes})
    said = [mergefront(*command, expect=2)[1] for command in (("plan", path), ("run", path, "--out", tmp_path / "out"))]
    assert all(message in each and "starting engines" not in each for each in said), said
    assert said[0] == said[1]


def test_every_start_learns_from_the_same_nested_examples_and_the_baseline_comes_first(
    sweep: Callable[..., Path], tmp_path: Path
) -> None:
    turns = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A dose."}]
    (tmp_path / "set.jsonl").write_text(json.dumps({"conversations": turns}) + "\n")
    baseline = {"start": "clinical", "file": "set.jsonl", "epochs": 3.0}
    changes = {"starts": ["instruct", "baseline"], "examples": [4, 8, "all"], "baseline": baseline, "min_steps": None}
    parents = {name: {"model": str(DEMO / "parents" / name)} for name in ("clinical", "instruct")}
    config = load_config(sweep(generation=GENERATION, finetune={**FINETUNE, **changes}, parents=parents))
    opened = open_sweep(config, Layout(tmp_path / "out"))
    planned = plan_runs(opened, score(opened, opened.grid))

    assert planned.baseline is not None and planned.all[0] is planned.baseline
    assert planned.baseline.tuning.settings["steps"] == 3 and planned.baseline.tuning.settings["learning_rate"] == 2e-5
    assert len(planned.runs) == 2 * 3 * 2
    by_key = {(run.tuning.start_label, run.tuning.budget, run.tuning.seed): run for run in planned.runs}
    for (start, budget, seed), run in by_key.items():
        whole = by_key["instruct", "all", seed].examples
        assert run.examples == whole[: len(run.examples)], "nested, and the same for every start"
        assert len(run.examples) == {"4": 4, "8": 8, "all": 640}[budget] == run.tuning.examples
        assert run.tuning.settings["steps"] == {"4": 100, "8": 100, "all": 200}[budget]
        if start == "baseline":
            assert run.start == planned.baseline.files.model
            assert run.tuning.start.id == planned.baseline.recipe.id
    firsts = [by_key["instruct", "4", seed].examples for seed in (0, 1)]
    assert firsts[0] != firsts[1], "each seed draws its own"
    assert len({run.recipe.id for run in planned.runs}) == len(planned.runs)
    assert {suite.objective for suite in finetuned_round(opened, planned).suites} == {
        "clinical",
        "instruction",
        "cards",
    }


def test_a_task_has_budgets_of_its_own_and_those_beyond_its_training_examples_are_left_out(
    sweep: Callable[..., Path], tmp_path: Path
) -> None:
    def planned(**tasks: dict[str, Any]) -> SweepConfig:
        settings = {**FINETUNE, "starts": ["b"], "examples": [8, 641, 900, "all"]}
        return load_config(sweep(generation=GENERATION, finetune={**settings, "tasks": tasks}))

    config = planned(cards=TASK, few={**TASK, "examples": [4, 640, 641]})
    said = [
        "finetune.tasks.cards: drug_cards has 640 training examples, so that no run learns from 641 and 900",
        "finetune.tasks.few: drug_cards has 640 training examples, so that no run learns from 641",
    ]
    plan = make_plan(config).finetune
    assert plan is not None and plan.skipped == said
    assert plan.runs == 2 * 4, "two seeds, two feasible budgets of each task"
    assert all(any(line in row for row in describe_finetune(plan)) for line in said)
    opened = open_sweep(config, Layout(tmp_path / "out"))
    assert opened.tasks.training.notes()[:2] == said
    runs = plan_runs(opened, score(opened, opened.grid)).runs
    assert {(run.tuning.task, run.tuning.budget, len(run.examples)) for run in runs} == {
        ("cards", "8", 8),
        ("cards", "all", 640),
        ("few", "4", 4),
        ("few", "640", 640),
    }
    with pytest.raises(UserError, match=r"few\.examples: at least 641 are requested, but drug_cards has 640"):
        make_plan(planned(few={**TASK, "examples": [641, 700]}))


def test_an_example_that_does_not_fit_is_said_before_anything_is_asked(
    sweep: Callable[..., Path], tmp_path: Path, mergefront: Run
) -> None:
    path = sweep(generation=GENERATION, finetune={**FINETUNE, "max_length": 16})
    for command in (["plan", path], ["run", path, "--out", tmp_path / "out"]):
        _, said = mergefront(*command, expect=2)
        assert "finetune.tasks.cards: max_length is 16, but a training example has" in said
    assert not (tmp_path / "out" / "answers").exists()


def test_icft_trains_on_its_budgets_alone_and_keeps_the_same_instructions(
    sweep: Callable[..., Path], tmp_path: Path
) -> None:
    parents = {name: {"model": str(DEMO / "parents" / name)} for name in ("clinical", "instruct")}
    changes = {"starts": ["instruct"], "examples": [4, 64], "method": ["lora", "icft"]}
    icft = {**ICFT, "examples": 64, "consistency": 0.5}
    path = sweep(generation=GENERATION, finetune={**FINETUNE, **changes, "icft": icft}, parents=parents)
    plan = make_plan(load_config(path)).finetune
    assert plan is not None and plan.general == 64
    assert plan.runs == 2 * 3 and plan.steps == 2 * (2 + 4 + 9), "ICFT takes 9 to show 64 examples in 3 stages"
    opened = open_sweep(load_config(path), Layout(tmp_path / "out"))
    runs = {(run.tuning.method, run.tuning.budget): run for run in plan_runs(opened, score(opened, opened.grid)).runs}
    assert set(runs) == {("lora", "4"), ("lora", "64"), ("icft", "64")}
    tuned = runs["icft", "64"]
    assert tuned.examples == runs["lora", "64"].examples and tuned.tuning.id != runs["lora", "64"].tuning.id
    assert tuned.tuning.settings["steps"] == 9 and tuned.tuning.settings["icft"]["consistency"] == 0.5
    assert len(tuned.general) == 64 and not runs["lora", "64"].general
    missing = {**icft, "general": str(tmp_path / "none.jsonl")}
    path = sweep(generation=GENERATION, finetune={**FINETUNE, **changes, "icft": missing}, parents=parents)
    with pytest.raises(UserError, match=r"finetune.icft.general: .*none.jsonl: does not exist"):
        make_plan(load_config(path))


def test_the_plan_counts_runs_and_steps(sweep: Callable[..., Path]) -> None:
    plan = make_plan(load_config(sweep(generation=GENERATION, finetune={**FINETUNE, "examples": [4, 64]}))).finetune
    assert plan is not None
    assert plan.runs == 2 * 2 * 2 and plan.steps == 2 * 2 * (2 + 4) and plan.tasks == {"cards": 640}
