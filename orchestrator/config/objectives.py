"""The keys of an entry of `objectives:` and `finetune.tasks:`: lm-eval tasks, and how they become one number."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from orchestrator.config.types import Metric, Strict


class TaskUse(Strict):
    task: str
    """A task, group or tag of lm-eval, or of a folder in include_path."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """In place of the objective's."""
    limit: int | None = Field(default=None, ge=1)
    """In place of the objective's."""
    metric: Metric = None
    """In place of the objective's."""
    gen_kwargs: dict[str, Any] = {}
    """Laid over the objective's."""


class Objective(Strict):
    """A suite of lm-eval tasks and how it becomes one number."""

    tasks: list[str | TaskUse] = Field(min_length=1)
    """Tasks, groups or tags of lm-eval, the suites `medical` and `instruction`, generation tasks, or your own."""
    metric: Metric = None
    """lm-eval's metric name (`acc`, `exact_match,flexible-extract`); several are averaged; default: each
    task's first metric (IFEval: prompt- and instance-level strict accuracy)."""
    average: Literal["tasks", "groups", "questions"] = "tasks"
    """Unweighted mean over the tasks; the same with a group of task files counting as one (of `medical`, MMLU's six
    subjects); or every question counting the same."""
    split: Literal["search", "confirm"] | None = None
    """Evaluate one side of the questions only, so that another objective can use the other: the benchmark's own
    validation and test split where it has both (MedQA, PubMedQA), else two halves by the hash of each question."""
    expect: dict[str, int] = {}
    """Task → its number of questions, where the data set is known to differ from the published one."""
    direction: Literal["maximize", "minimize"] = "maximize"
    """Whether more or less is better."""
    num_fewshot: int | None = Field(default=None, ge=0)
    """Default: the task file's own."""
    limit: int | None = Field(default=None, ge=1)
    """The first so many documents of each task; default: all."""
    gen_kwargs: dict[str, Any] = {}
    """Laid over the task's generation_kwargs (max_gen_toks, temperature, …), as lm-eval's --gen_kwargs."""
    apply_chat_template: bool = False
    """Put each prompt into the chat template that the sweep is served with."""
    front: bool = True
    """False: measured and reported, but no axis of the front."""

    @property
    def sign(self) -> float:
        """The direction as a factor: +1.0 where more is better, -1.0 where less is; sign * score is maximised."""
        return 1.0 if self.direction == "maximize" else -1.0
