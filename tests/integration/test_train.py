"""Fine-tuning by real trl on a random two-layer model: what is learned from, for how long, and what is left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from orchestrator.models.headers import read_headers
from orchestrator.recipes.recipe import Recipe, Source
from orchestrator.recipes.tuning import Tuning
from tasks.finetuning.examples import Labelled
from tasks.finetuning.rows import difficulties, load
from tasks.finetuning.run import ExamplesChanged, Run
from tasks.finetuning.train import (
    COMPLETE,
    arguments,
    check_examples,
    last_checkpoint,
    make_trainer,
    train,
)
from tests.helpers.paths import ROOT

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0}

ICFT = {
    "general": "digest", "stages": 3, "recent_rows": 1, "earlier_rows": 1, "long_memory": 8,
    "task": 1.0, "fine_tune": 1.0, "consistency": 1.0,
}  # fmt: skip

METHODS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"lora": LORA},
    "icft": {"lora": LORA, "icft": ICFT, "batch_size": 4},
}


def random_examples(count: int, prompt: int = 12, response: int = 6) -> tuple[Labelled, ...]:
    drawn = random.Random(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(drawn.randrange(3, 700) for _ in range(n))

    return tuple(Labelled(tokens(prompt + index % 5), tokens(response)) for index in range(count))


def make_run(start: Path, folder: Path, steps: int = 6, count: int = 10, save: int = 50, **more: Any) -> Run:
    source = Recipe("passthrough", ((Source("d", "a", str(start)), {}),), None, {}, "float32")
    given = {"steps": steps, "learning_rate": 1e-3, "batch_size": 2, "accumulation": 2, "optimizer": "adamw_torch"}
    method = next(each for each in ("icft", "lora", "full") if each in more or each == "full")
    general = random_examples(3, response=9) if method == "icft" else ()
    tuning = Tuning(source, "data", method, 3, {**given, **more}, "t", "a", count, str(count))
    return Run(tuning, start, folder, start, random_examples(count), "float32", save, False, general)


@pytest.fixture(scope="module")
def start(parents: dict[str, Path]) -> Path:
    return parents["a"]


def test_the_loss_is_that_of_the_responses_alone(start: Path, tmp_path: Path) -> None:
    run = make_run(start, tmp_path / "run")
    trainer = make_trainer(run)
    batch = next(iter(trainer.get_train_dataloader()))
    rows = {tuple(ids[ids != trainer.processing_class.pad_token_id].tolist()): ids for ids in batch["input_ids"]}
    by_tokens = {(*each.prompt, *each.response): each for each in run.examples}
    assert set(rows) <= set(by_tokens)
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        each = by_tokens[tuple(ids[ids != trainer.processing_class.pad_token_id].tolist())]
        assert labels[labels != -100].tolist() == list(each.response)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        wanted = batch["labels"][:, 1:]
        expected = torch.nn.functional.cross_entropy(logits[wanted != -100], wanted[wanted != -100])
        found = trainer.compute_loss(trainer.model, batch)
    assert torch.isclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("method", ["full", "icft"])
@pytest.mark.parametrize("padding", ["<|endoftext|>", "<|never added|>"], ids=["the end of text", "without a row"])
def test_the_end_of_text_is_learned_whatever_pads(start: Path, tmp_path: Path, padding: str, method: str) -> None:
    model = Path(shutil.copytree(start, tmp_path / "model"))
    for file, changes in (
        ("tokenizer_config.json", {"pad_token": padding, "eos_token": "<|endoftext|>"}),
        ("config.json", {"pad_token_id": 128009}),
        ("generation_config.json", {"pad_token_id": -1}),
    ):
        (model / file).write_text(json.dumps({**json.loads((model / file).read_text()), **changes}))
    run = make_run(model, tmp_path / "run", **METHODS[method])
    end = 0

    def ended(examples: tuple[Labelled, ...]) -> tuple[Labelled, ...]:
        return tuple(dataclasses.replace(each, response=(*each.response, end)) for each in examples)

    trainer = make_trainer(dataclasses.replace(run, examples=ended(run.examples), general=ended(run.general)))
    assert trainer.processing_class.pad_token_id == trainer.processing_class.eos_token_id == end
    for batch in trainer.get_train_dataloader():
        kept = batch["labels"] != -100
        assert all(labels[chosen][-1] == end for labels, chosen in zip(batch["labels"], kept, strict=True))
        assert torch.equal(batch["input_ids"][kept], batch["labels"][kept])
        assert torch.isfinite(trainer.compute_loss(trainer.model, batch))


def test_an_example_that_trl_would_drop_stops_the_run(start: Path, tmp_path: Path) -> None:
    """trl's own default cuts rows at max_length and drops what has no response left."""
    from datasets import Dataset
    from trl import SFTTrainer

    run = make_run(start, tmp_path / "run")
    rows = [
        {"input_ids": [*e.prompt, *e.response], "completion_mask": [0] * len(e.prompt) + [1] * len(e.response)}
        for e in run.examples
    ]
    settings = arguments(run)
    settings.max_length = 14
    cut = SFTTrainer(
        str(start),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=make_trainer(run).processing_class,
    )
    assert len(cut.train_dataset) < len(run.examples), "the trap is still there"
    with pytest.raises(ExamplesChanged, match="10 examples were given, but"):
        check_examples(cut.train_dataset["labels"], run.examples)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_a_whole_model_and_its_result(start: Path, tmp_path: Path, method: str) -> None:
    run = make_run(start, tmp_path / "run", steps=7, save=3, **METHODS[method])
    train(run)
    result = json.loads((run.folder / "RESULT.json").read_text())
    assert len(result["losses"]) == 7, "as many optimiser steps as the run says"
    before, after = (difficulties(load(folder), run.examples, 0) for folder in (start, run.folder / "model"))
    assert sum(after) < sum(before), "it knows what it learned"
    assert {p.name for p in run.folder.iterdir()} == {"RESULT.json", "model"}, "no checkpoint stays behind"
    shapes = {name: header.shape for name, header in read_headers("tuned", run.folder / "model").items()}
    assert shapes == {name: header.shape for name, header in read_headers("start", start).items()}, "merged in"
    old, new = (load_file(folder / "model.safetensors") for folder in (start, run.folder / "model"))
    changed = {name for name in new if not torch.equal(old[name], new[name])}
    assert changed and (method == "full" or all("proj" in name for name in changed)), "all linear layers but the head"
    written = (run.folder / "RESULT.json").stat().st_mtime_ns
    train(run)
    assert (run.folder / "RESULT.json").stat().st_mtime_ns == written, "a finished run is not repeated"


def test_only_the_newest_complete_checkpoint_counts(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) == (None, 0.0)
    for step in (5, 10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step != 20:  # killed while it was written
            (tmp_path / f"checkpoint-{step}" / COMPLETE).write_text('{"seconds": 2.5}')
    assert last_checkpoint(tmp_path) == (tmp_path / "checkpoint-10", 2.5)


def mark_first_loss(run: Run) -> None:
    """In the checkpoint that the run is resumed from."""
    state = (last_checkpoint(run.files.checkpoints)[0] or run.files.checkpoints) / "trainer_state.json"
    told = json.loads(state.read_text())
    told["log_history"][0]["loss"] = -1
    state.write_text(json.dumps(told))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", pytest.param("icft", marks=pytest.mark.prove)])
def test_killed_and_resumed_it_ends_at_the_same_weights(start: Path, tmp_path: Path, method: str) -> None:
    whole, killed = (
        make_run(start, tmp_path / name, steps=40, save=10, **METHODS[method]) for name in ("whole", "killed")
    )
    train(whole)
    (tmp_path / "run.pickle").write_bytes(pickle.dumps(killed))
    code = f"import pickle; from tasks.finetuning.train import train; train(pickle.load(open({str(tmp_path / 'run.pickle')!r}, 'rb')))"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while last_checkpoint(killed.files.checkpoints)[0] is None and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed.folder / "RESULT.json").exists(), "killed before its end"
    mark_first_loss(killed)
    train(killed)
    results = [json.loads((run.folder / "RESULT.json").read_text()) for run in (whole, killed)]
    assert results[1]["losses"] == [-1, *results[0]["losses"][1:]], "it did not begin anew"
    weights = [(run.folder / "model" / "model.safetensors").read_bytes() for run in (whole, killed)]
    assert weights[0] == weights[1]
