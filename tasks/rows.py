"""Rows of training: examples as tokens, with the prompt left out of the loss, none cut and none dropped; and how hard a
model finds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from tasks.curriculum import TERMS, Example, Row, Stage, Term

IGNORED = -100
MEASURED_AT_ONCE = 8
"""Examples that go through the model in one forward pass."""
Tokens = dict[str, list[int]]
"""One example: `input_ids`, and `labels` that leave the prompt out."""


@dataclass(frozen=True)
class Data:
    """The examples as tokens."""

    pad: int
    examples: list[Tokens]
    """What is to be learned."""
    weights: list[float]
    """Of the examples: how much the loss of each counts, in [0, 1]."""
    general: list[Tokens]
    """Instructions whose answers are to stay likely."""

    @classmethod
    def encode(cls, examples: Sequence[Example], general: Sequence[Example], tokenizer: Any) -> Data:
        return cls(
            pad_of(tokenizer),
            [encode(example, tokenizer) for example in examples],
            [example.weight for example in examples],
            [encode(example, tokenizer) for example in general],
        )

    def rows(self, stages: Sequence[Stage]) -> Dataset:
        """The rows of all batches in order, one after the other. Every text is there once, whatever its number of rows,
        and nowhere but in memory."""
        kinds: list[tuple[Term, list[Tokens], list[float]]] = [
            ("task", self.examples, self.weights),
            ("fine_tune", self.examples, self.weights),
            ("consistency", self.general, [1.0] * len(self.general)),
        ]
        place: dict[Row, int] = {}
        rows: list[dict[str, Any]] = []
        for term, tokens, weights in kinds:
            for index, (each, weight) in enumerate(zip(tokens, weights, strict=True)):
                place[Row(term, index)] = len(rows)
                rows.append({**each, "weight": weight, "term": TERMS.index(term)})
        order = [place[row] for stage in stages for batch in stage.batches for row in batch]
        return Dataset.from_list(rows).select(order, keep_in_memory=True)


def pad_of(tokenizer: Any) -> int:
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def encode(example: Example, tokenizer: Any) -> Tokens:
    """Prompt, completion and end token."""
    read = encode_prompt(example.prompt, tokenizer)
    written = tokenizer(example.completion, add_special_tokens=False)["input_ids"]
    return learn(read, [*written, tokenizer.eos_token_id])


def learn(prompt: Sequence[int], completion: Sequence[int]) -> Tokens:
    """
    Args:
        completion: with the token that ends it.
    """
    return {"input_ids": [*prompt, *completion], "labels": [IGNORED] * len(prompt) + [*completion]}


def encode_prompt(prompt: str, tokenizer: Any) -> list[int]:
    """As a user's turn where the tokenizer has a chat template, as it is otherwise."""
    text, special = prompt, True
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": prompt}]
        text, special = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True), False
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


@dataclass
class Collator(DataCollatorForLanguageModeling):  # type: ignore[misc]
    """trl's, with the columns `weight` (float32) and `term` (int64, an index into TERMS), each of shape (rows,)."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        own = {name: torch.tensor([example[name] for example in examples]) for name in ("weight", "term")}
        return {**super().torch_call(examples), **own}


def difficulties(model: Any, examples: Sequence[Tokens], pad: int) -> list[float]:
    """The model's mean loss a token of each completion, end token included, in nats.

    Raises:
        ValueError: one is not finite: the model is broken.
    """
    return _means(model, examples, pad, lambda losses: losses)


def confidences(model: Any, examples: Sequence[Tokens], pad: int) -> list[float]:
    """The mean probability of each completion's tokens, in [0, 1]; raises as `difficulties`."""
    return _means(model, examples, pad, lambda losses: (-losses).exp())


def _means(
    model: Any, examples: Sequence[Tokens], pad: int, value: Callable[[torch.Tensor], torch.Tensor]
) -> list[float]:
    """Of a value of each learned token's loss, over each example."""
    collate = DataCollatorForLanguageModeling(pad)
    found = [math.nan] * len(examples)
    by_length = sorted(range(len(found)), key=lambda index: len(examples[index]["input_ids"]))
    model.eval()
    for begin in range(0, len(found), MEASURED_AT_ONCE):
        chosen = by_length[begin : begin + MEASURED_AT_ONCE]
        tokens = {name: each.to(model.device) for name, each in collate([examples[i] for i in chosen]).items()}
        labels = tokens.pop("labels")[:, 1:]
        learned = labels != IGNORED
        with torch.no_grad():
            logits = model(**tokens, use_cache=False).logits[:, :-1].float()
            losses = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
            means = (value(losses) * learned).sum(1) / learned.sum(1)
        for index, mean in zip(chosen, means.tolist(), strict=True):
            found[index] = mean
    if not all(map(math.isfinite, found)):
        raise ValueError("the model's loss is not finite on some example; its weights are broken")
    return found


def load(folder: Path) -> Any:
    """A model to train: in bf16 on a GPU, else in float32 (bf16 is several times slower on CPUs)."""
    gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if gpu else torch.float32)
    return model.to("cuda" if gpu else "cpu")


def save(tuned: Any, tokenizer: Any, start: Path, folder: Path) -> None:
    """A model with an adapter, as one checkpoint in the dtype of the one that it started from. The adapter is added in
    float32."""
    dtype = AutoConfig.from_pretrained(start).dtype
    tuned.float().merge_and_unload().to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
