"""The keys of a file of published figures (`report --beside`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from orchestrator.config.finetune import Method
from orchestrator.config.types import Strict

Values = dict[str, float]
Examples = Annotated[int, Field(ge=0)] | Literal["all"]
"""A number of training examples; 0 is without fine-tuning."""


class Evaluation(Strict):
    """How published scores were evaluated.

    A key is `null` where the source does not say it; what has no key is not compared.
    """

    tasks: dict[str, list[str]] | None = None
    """Name of an objective there → lm-eval's names of its tasks."""
    num_fewshot: int | None = None
    """Number of few-shot examples in a prompt."""
    apply_chat_template: bool | None = None
    """Whether prompts were wrapped in the chat template."""
    average: Literal["tasks", "groups", "questions"] | None = None
    """How an objective's tasks were averaged; see the key of this name in `objectives`."""
    metric: str | None = None
    """The metric of each task."""
    composite: str | None = None
    """What a composite takes, such as `sentence BLEU, ROUGE-L, no stemming`."""
    encoder: str | None = None
    """BERTScore's encoder."""
    temperature: float | None = None
    """Sampling temperature of generated texts."""
    top_p: float | None = None
    """Nucleus of the sampling."""
    repetition_penalty: float | None = None
    """Penalty on repeated tokens."""
    max_gen_toks: int | None = None
    """Most tokens of a generated text."""


class Training(Evaluation):
    """How published scores of fine-tuned models were made: the training, and the evaluation after it."""

    method: Method | None = None
    """What was trained."""
    epochs: float | None = None
    """Number of passes over the examples."""
    min_steps: dict[Literal["all", "few"], int] | None = None
    """Minimum number of optimiser steps with all training examples (`all`) and with a number of them (`few`)."""
    learning_rate: float | str | None = None
    """Learning rate, or what is known of it in words."""
    batch: int | None = None
    """Examples per optimiser step."""
    max_length: int | None = None
    """Tokens of prompt and response together."""
    truncation: str | None = None
    """What a row that is too long loses."""
    loss: str | None = None
    """The tokens that the loss is on."""
    seeds: int | None = None
    """Number of runs behind a score."""
    hardware: str | None = None
    """What one run was trained on, such as `1x H100`."""


class Cost(Strict):
    """What something took."""

    minutes: float = Field(gt=0)
    """Wall-clock minutes."""
    hardware: str | None = None
    """The hardware it ran on, such as `1x H100`."""
    checkpoints: int = Field(default=1, ge=1)
    """Number of models that were made in this time."""
    labelled_examples: int = Field(default=0, ge=0)
    """Number of labelled examples that it takes."""


class Published(Strict):
    """Figures that others have published, which the report compares with a run's."""

    source: str = Field(min_length=1)
    """Where they were published: a paper, its table."""
    names: dict[str, str] = {}
    """Name of a model, an objective or a task there → its name in the sweep; names that are missing are the same in
    both. A model is a recipe (as for `compare`), a starting point of fine-tuning, or the merge method of one."""
    rows: dict[str, Values] = {}
    """Name of a model → name of an objective → its value in the sweep's units (an accuracy lies in [0, 1]), without
    fine-tuning."""
    evaluation: Evaluation = Evaluation()
    """How `rows` were evaluated."""
    finetuned: dict[str, dict[str, dict[str, dict[Examples, float]]]] = {}
    """Place in the source, such as `Table 2` → name of a model → name of a task → number of training examples (0
    without fine-tuning, or `all`) → score."""
    training: Training = Training()
    """How the scores of `finetuned` were made."""
    costs: dict[Literal["merging", "baseline"], Cost] = {}
    """What merging took, and what the instruction-tuned baseline."""

    @model_validator(mode="after")
    def _some(self) -> Published:
        if not (self.rows or self.finetuned or self.costs):
            raise ValueError("there are no figures: give rows, finetuned or costs")
        return self
