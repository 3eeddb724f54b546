"""The keys of an entry of `objectives:` and `finetune.tasks:`: lm-eval tasks, and how they become one number."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from orchestrator.config.types import Metric, Strict


class TaskUse(Strict):
    """A task with settings of its own, in place of the objective's."""

    task: str
    """A task, group or tag of lm-eval, or of a folder in `include_path`."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Replaces the objective's `num_fewshot`."""
    limit: int | None = Field(default=None, ge=1)
    """Replaces the objective's `limit`."""
    metric: Metric = None
    """Replaces the objective's `metric`."""
    gen_kwargs: dict[str, Any] = {}
    """Laid over the objective's `gen_kwargs` in the same way."""


class Objective(Strict):
    """A suite of lm-eval tasks, and how their scores become one number."""

    tasks: list[str | TaskUse] = Field(min_length=1)
    """Tasks, groups or tags of lm-eval, the suites `medical` and `instruction`, generation tasks, or your own."""
    metric: Metric = None
    """Name of an lm-eval metric (`acc`, `exact_match,flexible-extract`); several are averaged. Default: each task's
    first metric (IFEval: prompt- and instance-level strict accuracy)."""
    average: Literal["tasks", "groups", "questions"] = "tasks"
    """`tasks`: the unweighted mean over the tasks. `groups`: the same, but a group of task files counts as one task (in
    `medical`, MMLU's six subjects). `questions`: every question counts the same."""
    split: Literal["search", "confirm"] | None = None
    """Evaluate only one side of the questions, so that another objective can use the other side. The sides are the
    benchmark's own validation and test split where it has both (MedQA, PubMedQA), else two halves by a hash of
    each question's text, so that a question that two tasks have is on one side."""
    expect: dict[str, int] = {}
    """Task → expected number of questions, for a data set that is known to differ from the published one."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Whether higher or lower scores are better."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Number of few-shot examples in a prompt; default: as in the task file."""
    limit: int | None = Field(default=None, ge=1)
    """Evaluate only this many documents of each task, the first ones; default: all."""
    gen_kwargs: dict[str, Any] = {}
    """Laid over the task's generation_kwargs (`max_gen_toks`, `temperature`, …), as with lm-eval's --gen_kwargs. vLLM's
    and transformers' spellings (`max_new_tokens`, `stop`, …) are the same settings; null takes one of the task file
    away."""
    apply_chat_template: bool = False
    """Wrap each prompt in the chat template that every recipe is served with."""
    chat_template_kwargs: dict[str, Any] = Field(
        default={}, validation_alias=AliasChoices("chat_template_kwargs", "chat_template_args")
    )
    """Arguments of the chat template, such as `{enable_thinking: false}`."""
    system_prompt: str | None = Field(
        default=None, min_length=1, validation_alias=AliasChoices("system_prompt", "system_instruction")
    )
    """A text before each task's own description: the system turn of the chat template, or the prompt's beginning."""
    think_end_token: str | int | None = None
    """The text, or the id of the token, that ends a reply's reasoning, such as `</think>`. What comes before it is cut
    off before a reply is scored, and a task's `until` ends only what comes after it, as in lm-eval."""
    front: bool = True
    """Whether it is an axis of the front; if false, it is only measured and reported."""

    @model_validator(mode="after")
    def _check_thinking(self) -> Self:
        if self.chat_template_kwargs and not self.apply_chat_template:
            raise ValueError("chat_template_kwargs has no effect without apply_chat_template: true; add it")
        if self.think_end_token == "":
            raise ValueError("think_end_token is empty; write the text that ends the reasoning, such as </think>")
        thinking = self.chat_template_kwargs.get("enable_thinking")
        if not isinstance(thinking, bool | None):
            raise ValueError(f"chat_template_kwargs.enable_thinking is {thinking!r}; write true or false")
        if thinking and self.think_end_token is None:
            raise ValueError(
                "chat_template_kwargs.enable_thinking needs think_end_token, the text that ends the reasoning, such as "
                "</think>; add it"
            )
        return self

    @property
    def sign(self) -> float:
        """The direction as a factor: +1.0 where higher is better, -1.0 where lower is; sign * score is maximised."""
        return 1.0 if self.direction == "maximize" else -1.0
