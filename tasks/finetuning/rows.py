"""Rows of training: texts as tokens, in the order of ICFT's schedule; and how hard a model finds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tasks.finetuning.curriculum import TERMS, BatchRow, CurriculumStage, Term
from tasks.finetuning.examples import IGNORED, Labelled

MEASURED_AT_ONCE = 8
"""Examples that go through the model in one forward pass."""


@dataclass(frozen=True)
class WeightedExample:
    """One example to train on, as texts."""

    prompt: str
    completion: str
    weight: float = 1.0
    """As `Labelled.weight`."""


def scheduled(examples: Sequence[Labelled], general: Sequence[Labelled], stages: Sequence[CurriculumStage]) -> Dataset:
    """Put the rows of all batches in order, one after the other.

    They have `input_ids`, `labels`, `weight` and `term` (an index into TERMS). Every text is there once, whatever its
    number of rows, and nowhere but in memory.
    """
    kinds: list[tuple[Term, Sequence[Labelled]]] = [
        ("task", examples),
        ("fine_tune", examples),
        ("consistency", general),
    ]
    place: dict[BatchRow, int] = {}
    rows: list[dict[str, Any]] = []
    for term, members in kinds:
        for index, each in enumerate(members):
            place[BatchRow(term, index)] = len(rows)
            rows.append({**tokens(each), "weight": each.weight, "term": TERMS.index(term)})
    order = [place[row] for stage in stages for batch in stage.batches for row in batch]
    return Dataset.from_list(rows).select(order, keep_in_memory=True)


def tokens(example: Labelled) -> dict[str, list[int]]:
    """Make a row's `input_ids`, and its `labels`, which leave the prompt out."""
    labels = [IGNORED] * len(example.prompt) + [*example.response]
    return {"input_ids": [*example.prompt, *example.response], "labels": labels}


def pad_of(tokenizer: Any) -> int:
    """Choose the id that rows are padded with: the tokenizer's own, or its end token's."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def encode(example: WeightedExample, tokenizer: Any) -> Labelled:
    """Encode prompt, completion and end token, none cut."""
    written = tokenizer(example.completion, add_special_tokens=False)["input_ids"]
    return Labelled(encode_prompt(example.prompt, tokenizer), (*written, tokenizer.eos_token_id), weight=example.weight)


def encode_prompt(prompt: str, tokenizer: Any) -> tuple[int, ...]:
    """Encode a prompt as a user's turn where the tokenizer has a chat template, and as it is otherwise."""
    text, special = prompt, True
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": prompt}]
        text, special = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True), False
    return tuple(tokenizer(text, add_special_tokens=special)["input_ids"])


@dataclass
class Collator(DataCollatorForLanguageModeling):  # type: ignore[misc]
    """trl's collator, with two more columns of shape (rows,): `weight`, float32, and `term`, an index into TERMS."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of rows; each column a tensor."""
        own = {name: torch.tensor([example[name] for example in examples]) for name in ("weight", "term")}
        return {**super().torch_call(examples), **own}


def difficulties(model: Any, examples: Sequence[Labelled], pad: int) -> list[float]:
    """Measure the model's mean loss a token of each completion, end token included, in nats.

    Raises:
        ValueError: one is not finite: the model is broken.
    """
    return _means(model, examples, pad, lambda losses: losses)


def confidences(model: Any, examples: Sequence[Labelled], pad: int) -> list[float]:
    """Measure the mean probability of each completion's tokens, in [0, 1]; raises as `difficulties`."""
    return _means(model, examples, pad, lambda losses: (-losses).exp())


def _means(
    model: Any, examples: Sequence[Labelled], pad: int, value: Callable[[torch.Tensor], torch.Tensor]
) -> list[float]:
    """The mean over each example of a value of its completion's losses."""
    collate = DataCollatorForLanguageModeling(pad)
    found = [math.nan] * len(examples)
    rows = [tokens(each) for each in examples]
    by_length = sorted(range(len(found)), key=lambda index: len(rows[index]["input_ids"]))
    model.eval()
    for begin in range(0, len(found), MEASURED_AT_ONCE):
        chosen = by_length[begin : begin + MEASURED_AT_ONCE]
        batch = {name: each.to(model.device) for name, each in collate([rows[i] for i in chosen]).items()}
        labels = batch.pop("labels")[:, 1:]
        learned = labels != IGNORED
        with torch.no_grad():
            logits = model(**batch, use_cache=False).logits[:, :-1].float()
            losses = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
            means = (value(losses) * learned).sum(1) / learned.sum(1)
        for index, mean in zip(chosen, means.tolist(), strict=True):
            found[index] = mean
    if not all(map(math.isfinite, found)):
        raise ValueError("the model's loss is not finite on some example; its weights are broken")
    return found


def load(folder: Path) -> Any:
    """Load a model for inference: in bf16 on a GPU, else in float32 (bf16 is several times slower on CPUs)."""
    gpu = torch.cuda.is_available()
    return open_model(folder, torch.bfloat16 if gpu else torch.float32).to("cuda" if gpu else "cpu")


def open_model(folder: Path, dtype: torch.dtype) -> Any:
    """Load a model on the CPU, without a padding token that its vocabulary lacks.

    Such an id is left over from another model; transformers loads no embedding with it, and saves none with a negative
    one.
    """
    config = AutoConfig.from_pretrained(folder)
    text = config.get_text_config()
    _drop_stray_padding(text, text.vocab_size)
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=dtype)
    _drop_stray_padding(model.generation_config, text.vocab_size)
    return model


def _drop_stray_padding(config: Any, rows: int) -> None:
    if config.pad_token_id not in range(rows):
        config.pad_token_id = None


def open_tokenizer(folder: Path, rows: int) -> Any:
    """Open a tokenizer for a model of so many rows; it pads with the end of text where it has no padding token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id not in range(rows):
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
