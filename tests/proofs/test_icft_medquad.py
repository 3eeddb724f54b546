"""ICFT beside plain SFT and LoRA, on MedQuAD with 64 labelled examples: `make prove`, or

    pytest -m prove -s tests/proofs/test_icft_medquad.py

Every way sees as many rows. What the demo's instruct parent is asked besides, and no training showed: to follow
instructions that it learned before.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from examples.medquad.pairs import (
    QuestionAnswer,
    choose,
    generation_error,
    label_by_overlap,
    preferences,
    question_answering,
    read_medquad,
    responses,
    shorten,
)
from examples.medquad.weak_labels import write
from orchestrator.config.finetune import Finetune, Method
from orchestrator.config.generation import OPTED_OUT, TextMetrics
from orchestrator.recipes.recipe import Recipe, Source
from orchestrator.recipes.tuning import Tuning, settings
from tasks.demo import instructions
from tasks.finetuning.examples import digest
from tasks.finetuning.rows import WeightedExample, difficulties, encode, load, pad_of
from tasks.finetuning.run import Run
from tasks.finetuning.train import train
from tasks.generation.metrics import composite_of, distinct, measure
from tests.helpers.paths import DATA, INSTRUCT

FIVE = composite_of(OPTED_OUT, TextMetrics())
MEDQUAD = DATA / "medquad"
LABELLED, ASKED, WORDS = 64, 60, 16
STEPS = 40
FINETUNE = Finetune.model_validate(
    {
        "starts": ["instruct"],
        "tasks": {"medquad": {"tasks": ["medquad"]}},
        "method": ["full", "lora", "icft"],
        "icft": {"general": "the demo's", "long_memory": 128},
    }
)
RATES: dict[Method, float] = {"full": 5e-4, "lora": 2e-3, "icft": 2e-3}

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not MEDQUAD.is_dir(), reason="needs the data sets in MERGEFRONT_DATA"),
]


def tune(
    method: Method, examples: tuple[WeightedExample, ...], kept: tuple[WeightedExample, ...], folder: Path
) -> float:
    """One run, as a sweep makes it; its seconds of training."""
    tokenizer = AutoTokenizer.from_pretrained(INSTRUCT)
    learned, general = (tuple(encode(each, tokenizer) for each in texts) for texts in (examples, kept))
    given = {**settings(FINETUNE, STEPS, method, digest(general)), "learning_rate": RATES[method]}
    start = Recipe("passthrough", ((Source("demo", "instruct", str(INSTRUCT)), {}),), None, {}, "bfloat16")
    tuning = Tuning(start, digest(learned), method, 0, given, "medquad", "instruct", len(learned), "all")
    run = Run(tuning, INSTRUCT, folder, INSTRUCT, learned, "bfloat16", 50, False, general if method == "icft" else ())
    train(run)
    return float(json.loads((folder / "RESULT.json").read_text())["seconds"])


def general(start: int, end: int) -> tuple[WeightedExample, ...]:
    """Instructions as the demo's parent learned them; none is asked."""
    return tuple(WeightedExample(prompt, reply) for prompt, reply in instructions.training_texts(end)[start:end])


def labelled(pairs: list[QuestionAnswer]) -> tuple[WeightedExample, ...]:
    """Half of them questions with answers, half preferences."""
    half = len(pairs) // 2
    chosen = preferences(pairs[half:], pairs, seed=1)
    return (*responses(pairs[:half]), *(pair.choice.example for pair in chosen))


def judge(
    folder: Path, asked: list[QuestionAnswer], pool: list[QuestionAnswer], shown: tuple[WeightedExample, ...]
) -> dict[str, Any]:
    """One row of the table."""
    from lm_eval.tasks.ifeval.utils import process_results

    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(INSTRUCT)
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
        measure(w.text, p.answer, "", None, ("bleu", "meteor", "rouge")) for w, p in zip(written, asked, strict=True)
    ]
    row["response"] = sum(each[name] for each in values for name in FIVE) / len(FIVE) / len(values)
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
    data = read_medquad(MEDQUAD)
    pool, asked = shorten(data.train[:600], WORDS), shorten(data.test[:ASKED], WORDS)
    shown, kept = labelled(pool[:LABELLED]), general(0, 64)
    weak = tuple(map(label_by_overlap, preferences(pool[100 : 100 + LABELLED], pool, seed=2)))
    table = {"start": judge(INSTRUCT, asked, pool, shown)}
    ways: dict[str, tuple[Method, tuple[WeightedExample, ...]]] = {
        "full SFT": ("full", shown),
        "LoRA": ("lora", shown),
        "ICFT": ("icft", shown),
        "ICFT, 64 more by a rule": ("icft", (*shown, *weak)),
    }
    seconds = {}
    for name, (method, examples) in ways.items():
        seconds[name] = tune(method, examples, kept, tmp_path / name)
        table[name] = judge(tmp_path / name / "model", asked, pool, shown)
    for name, row in table.items():
        print(f"\n{name} ({seconds.get(name, 0):.0f} s)")
        for key, value in row.items():
            print(f"  {key:18} {value if isinstance(value, dict) else round(value, 3)}")
    for name in ways:
        assert table[name]["loss shown"] < table["start"]["loss shown"], "it learned what it was shown"
    drift = {name: table[name]["loss general"] - table["start"]["loss general"] for name in ("LoRA", "ICFT")}
    assert drift["ICFT"] < drift["LoRA"], "consistency keeps what the starting model could say"
