"""Weak supervision: completions that a model generates itself, weighted by its confidence in them.

(A rule's labels are `examples.medquad.pairs.label_by_overlap`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from trl.trainer.utils import pad

from tasks.finetuning.examples import Labelled
from tasks.finetuning.rows import MEASURED_AT_ONCE, WeightedExample, confidences, encode_prompt, pad_of


@dataclass(frozen=True)
class Written:
    """A text that a model generated."""

    text: str
    finished: bool
    """It ended its turn within the allowed tokens."""
    confidence: float
    """The mean probability of its tokens, end token included, in [0, 1]."""


def label_by_model(model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int) -> list[WeightedExample]:
    """Label prompts with the model's own greedy completions, in their order, weighted by confidence.

    An unfinished completion weighs nothing: it would teach the model to stop in mid-sentence.
    """
    written = write(model, tokenizer, prompts, max_new_tokens)
    return [
        WeightedExample(prompt, answer.text, answer.confidence if answer.finished else 0.0)
        for prompt, answer in zip(prompts, written, strict=True)
    ]


def write(model: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int) -> list[Written]:
    """Generate greedily, in the order of the prompts."""
    encoded = [encode_prompt(prompt, tokenizer) for prompt in prompts]
    by_length = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
    answers: dict[int, list[int]] = {}
    for begin in range(0, len(by_length), MEASURED_AT_ONCE):
        chosen = by_length[begin : begin + MEASURED_AT_ONCE]
        answers.update(
            zip(chosen, _continue(model, tokenizer, [encoded[i] for i in chosen], max_new_tokens), strict=True)
        )
    ordered = [answers[index] for index in range(len(encoded))]
    rows = [Labelled(prompt, tuple(answer)) for prompt, answer in zip(encoded, ordered, strict=True)]
    sure = confidences(model, rows, pad_of(tokenizer))
    return [
        Written(tokenizer.decode(answer, skip_special_tokens=True), answer[-1] == tokenizer.eos_token_id, confidence)
        for answer, confidence in zip(ordered, sure, strict=True)
    ]


def _continue(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
    """New tokens, up to the end token and with it."""
    rows = [torch.tensor(prompt) for prompt in prompts]
    made = model.generate(
        input_ids=pad(rows, padding_value=pad_of(tokenizer), padding_side="left").to(model.device),
        attention_mask=pad([torch.ones_like(row) for row in rows], padding_value=0, padding_side="left").to(
            model.device
        ),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad_of(tokenizer),
    )[:, max(map(len, prompts)) :]
    found = []
    for row in made.tolist():
        end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else len(row)
        found.append(row[:end])
    return found
