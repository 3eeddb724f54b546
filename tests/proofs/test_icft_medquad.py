"""ICFT beside plain SFT and LoRA, on MedQuAD with 64 labelled examples: `make prove`, or

    pytest -m prove -s tests/proofs/test_icft_medquad.py

Every way sees as many rows. What the demo's instruct parent is asked besides, and no training showed: to follow
instructions that it learned before.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks.curriculum import Example, IcftSettings, make_schedule
from tasks.demo import instructions
from tasks.medquad import (
    Answered,
    choose,
    generation_error,
    label_by_overlap,
    preferences,
    question_answering,
    read_medquad,
    responses,
    shorten,
)
from tests.conftest import DEMO

DATA = Path(os.environ["MERGEFRONT_DATA"]) / "medquad"
PARENT = DEMO / "parents" / "instruct"
LABELLED, ASKED, WORDS = 64, 60, 16
ICFT = IcftSettings(steps=40, long_memory=128, learning_rate=2e-3)
LORA = dataclasses.replace(ICFT, stages=1, task_rows=ICFT.rows, recent_rows=0, earlier_rows=0)
"""One stage and nothing replayed: trl's LoRA, to the last step (tests/tasks/test_icft.py)."""
FULL_RATE = 5e-4

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets in MERGEFRONT_DATA"),
]


def train_full(examples: tuple[Example, ...], out: Path) -> None:
    """Plain full-parameter SFT by trl."""
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    from tasks.rows import Data, load

    tokenizer = AutoTokenizer.from_pretrained(PARENT)
    data = Data.encode(examples, general(0, 1), tokenizer)
    rows = data.rows(make_schedule([0.0] * len(examples), 1, LORA, seed=0)).remove_columns(["weight", "term"])
    arguments = SFTConfig(
        output_dir=str(out), max_steps=LORA.steps, per_device_train_batch_size=LORA.rows,
        gradient_accumulation_steps=LORA.accumulate, learning_rate=FULL_RATE, lr_scheduler_type="linear",
        train_sampling_strategy="sequential", bf16=False, use_cpu=True, gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, logging_strategy="no", save_strategy="no",
        report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(model=load(PARENT), args=arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(str(out))


def general(start: int, end: int) -> tuple[Example, ...]:
    """Instructions as the demo's parent learned them; none is asked."""
    return tuple(Example(prompt, reply) for prompt, reply in instructions.training_texts(end)[start:end])


def labelled(pairs: list[Answered]) -> tuple[Example, ...]:
    """Half of them questions with answers, half preferences."""
    half = len(pairs) // 2
    chosen = preferences(pairs[half:], pairs, seed=1)
    return (*responses(pairs[:half]), *(pair.choice.example for pair in chosen))


def judge(folder: Path, asked: list[Answered], pool: list[Answered], shown: tuple[Example, ...]) -> dict[str, Any]:
    """One row of the table."""
    from lm_eval.tasks.ifeval.utils import process_results
    from transformers import AutoTokenizer

    from tasks.metrics import distinct, lexical
    from tasks.rows import difficulties, encode, load, pad_of
    from tasks.weak_labels import write

    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(PARENT)
    row: dict[str, Any] = {}
    for name, choices in (
        ("QA", question_answering(asked, pool, seed=0)),
        ("preference", [pair.choice for pair in preferences(asked, pool, seed=0)]),
    ):
        errors = [
            choice.errors[place] for choice, place in zip(choices, choose(model, tokenizer, choices), strict=True)
        ]
        row[name] = errors.count("") / len(errors)
        row[f"{name} errors"] = dict(Counter(filter(None, errors)))
    written = write(model, tokenizer, [pair.question for pair in asked], 80)
    values = [
        lexical(w.text, p.answer) if w.text.strip() else {"none": 0.0} for w, p in zip(written, asked, strict=True)
    ]
    row["response"] = sum(sum(each.values()) / len(each) for each in values) / len(values)
    row["response errors"] = dict(Counter(filter(None, map(generation_error, asked, written))))
    row["distinct-1"], row["distinct-2"] = (distinct([each.text for each in written], n) for n in (1, 2))
    documents = instructions.documents()
    followed = write(model, tokenizer, [each["prompt"] for each in documents], 100)
    strict = [
        process_results(dict(document), [answer.text])["prompt_level_strict_acc"]
        for document, answer in zip(documents, followed, strict=True)
    ]
    row["unseen"] = sum(strict) / len(strict)
    pad = pad_of(tokenizer)
    for name, examples in (("loss shown", shown), ("loss general", general(1000, 1064))):
        losses = difficulties(model, [encode(example, tokenizer) for example in examples], pad)
        row[name] = sum(losses) / len(losses)
    return row


@pytest.mark.timeout(3600)
def test_one_table_with_plain_sft_lora_and_icft(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from tasks.icft import train_icft
    from tasks.rows import Data

    data = read_medquad(DATA)
    pool, asked = shorten(data.train[:600], WORDS), shorten(data.test[:ASKED], WORDS)
    shown, kept = labelled(pool[:LABELLED]), general(0, 64)
    weak = tuple(map(label_by_overlap, preferences(pool[100 : 100 + LABELLED], pool, seed=2)))
    table = {"start": judge(PARENT, asked, pool, shown)}
    ways = {"LoRA": (shown, LORA), "ICFT": (shown, ICFT), "ICFT, 64 more by a rule": ((*shown, *weak), ICFT)}
    begun = time.monotonic()
    train_full(shown, tmp_path / "full")
    seconds = {"full SFT": time.monotonic() - begun}
    table["full SFT"] = judge(tmp_path / "full", asked, pool, shown)
    for name, (examples, settings) in ways.items():
        out = tmp_path / name
        encoded = Data.encode(examples, kept, AutoTokenizer.from_pretrained(PARENT))
        seconds[name] = train_icft(PARENT, PARENT, encoded, settings, out, seed=0)["seconds"]
        table[name] = judge(out, asked, pool, shown)
    for name, row in table.items():
        print(f"\n{name} ({seconds.get(name, 0):.0f} s)")
        for key, value in row.items():
            print(f"  {key:18} {value if isinstance(value, dict) else round(value, 3)}")
    for name in ("full SFT", *ways):
        assert table[name]["loss shown"] < table["start"]["loss shown"], "it learned what it was shown"
    drift = {name: table[name]["loss general"] - table["start"]["loss general"] for name in ("LoRA", "ICFT")}
    assert drift["ICFT"] < drift["LoRA"], "consistency keeps what the starting model could say"
