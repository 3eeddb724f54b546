"""The keys of `generation:`: data sets, the user's own tasks, and BERTScore's encoder."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from orchestrator.config.types import Location, Name, Strict


class Encoder(Strict):
    """The encoder whose embeddings BERTScore compares."""

    model: Location = Field(min_length=1)
    """Hub id, folder or address, as a parent's `model`."""
    revision: str | None = None
    """Commit, tag or branch on the hub, as a parent's `revision`."""
    layer: int = Field(ge=1)
    """The layer whose output is compared; bert-score recommends 17 for roberta-large, 40 for deberta-xlarge-mnli."""


class OwnTask(Strict):
    """The user's own generation task."""

    file: str = Field(min_length=1)
    """The test examples: JSON Lines (or one JSON array, CSV or Parquet), an object per example."""
    prompt: str
    """Prompt template, with {{input}} in the place of the input."""
    input: str = "input"
    """Name of the field with the input."""
    reference: str = "reference"
    """Name of the field with the reference text, or a list of them, which answers are compared with."""
    train: str | None = None
    """A file with the same fields: the training examples for `finetune`."""
    weight: str | None = None
    """Name of the field with the weight of a training example, from 0 to 1: the confidence in a label that no person
    gave (weak supervision). Without the field a row weighs 1. The methods `icft` and `lora_replay` take weights."""
    truncate: Literal["left", "right"] = "right"
    """The side at which the input is truncated where the prompt is too long."""

    @model_validator(mode="after")
    def _has_two_fields(self) -> OwnTask:
        if not re.search(r"\{\{\s*input\s*\}\}", self.prompt):
            raise ValueError("prompt has no {{input}}; write it where the input goes")
        if self.input == self.reference:
            raise ValueError(f"input and reference are both {self.input!r}; name the field of each")
        if self.weight and not self.train:
            raise ValueError("weight is a field of the training examples, but train is missing; name their file")
        return self


COMPOSITE, OPTED_OUT = "composite", "composite_without_bertscore"
"""The unweighted mean of six metrics, and of five: another name, so that they are not confused."""


class TextMetrics(Strict):
    """Which BLEU and which ROUGE the composite takes; whatever it takes, both BLEUs and both ROUGE-Ls are reported."""

    bleu: Literal["sentence", "corpus"] = "sentence"
    """`sentence`: the mean over the texts of each one's BLEU. `corpus`: that of all texts taken together."""
    rouge: Literal["rougeL", "rougeLsum"] = "rougeL"
    """`rougeL`: a text is one sequence of words. `rougeLsum`: line by line, as rouge-score takes a line for a
    sentence."""
    stemming: bool = False
    """Compare Porter stems in place of words in every ROUGE."""

    @property
    def words(self) -> str:
        """The choice in words: `sentence BLEU, ROUGE-L, no stemming`."""
        rouge = {"rougeL": "ROUGE-L", "rougeLsum": "ROUGE-Lsum"}[self.rouge]
        return f"{self.bleu} BLEU, {rouge}, {'stemming' if self.stemming else 'no stemming'}"


PAPER_SEQUENCES = 16
"""Default of `max_num_seqs` in sweeps with generation tasks."""


class Generation(Strict):
    """Data and settings of the generation tasks that `objectives` names."""

    data: dict[str, str] = {}
    """Clinical task (clinical_mts_dialog, …) → folder with the files of its data set, as published."""
    own: dict[Name, OwnTask] = {}
    """Name of the task in `objectives` → a generation task of your own."""
    metrics: TextMetrics = TextMetrics()
    """The variants of the metrics that `composite` is made of. Metrics are computed from stored answers: another choice
    needs no new ones."""
    encoder: Encoder | None = None
    """The encoder of BERTScore; the metrics `bertscore` and `composite` require it."""
