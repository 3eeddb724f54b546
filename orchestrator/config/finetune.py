"""The keys of `finetune:`: what is trained, from where, on how much, and how.

The defaults are the settings of arXiv 2604.01538 (see ASSUMPTIONS.md for the learning rate); all starting points get
the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.config.objectives import Objective
from orchestrator.config.types import Name, Strict
from orchestrator.core.errors import hint

Method = Literal["full", "lora", "lora_replay", "icft"]
TRAINING_METHODS: tuple[Method, ...] = get_args(Method)
REPLAYING: tuple[Method, ...] = ("lora_replay", "icft")
"""Methods whose batches have general instructions beside the examples."""
ICFT_NAME = "ICFT-style (from the abstract)"
"""ICFT as it is shown: its paper was not available, and its abstract names parts without formulas."""
METHOD_NAMES: dict[Method, str] = {**{method: method for method in TRAINING_METHODS}, "icft": ICFT_NAME}
"""Method → its name in reports and plans."""
Difficulty = Literal["loss", "length", "rarity"]
ExampleBudget = int | Literal["all"]
FEW_SHOT_STEPS, STEPS = 100, 200
"""The paper's minimum numbers of optimiser steps, for a number of examples and for all of them."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Rule(Strict):
    """A rule that chooses starting points among the scored merges: either `best` or `nearest`."""

    best: str | None = None
    """The merge with the best score in this objective (the lowest score for `direction: minimize`)."""
    nearest: Literal["ideal"] | None = None
    """The merge nearest to the ideal point, which has the best score of each objective; every axis is scaled to [0, 1]
    over the merges."""
    per: Literal["method"] | None = None
    """Choose one merge for each merge method instead of one overall."""
    floor: dict[str, float] = {}
    """Objective → the worst score that a chosen merge may have."""

    @model_validator(mode="after")
    def _one(self) -> Rule:
        if (self.best is None) == (self.nearest is None):
            raise ValueError("a rule has either best: <objective> or nearest: ideal")
        return self

    @property
    def words(self) -> str:
        """The rule in words, such as `best in medical per method`."""
        what = f"best in {self.best}" if self.best else "nearest the ideal point"
        floors = "".join(f", {name} no worse than {value:g}" for name, value in self.floor.items())
        return what + (" per method" if self.per else "") + floors


class Baseline(Strict):
    """A parent fine-tuned on an instruction set, such as the paper's GatorTronLlama_SFT.

    It is the starting point of the name `baseline`.
    """

    start: str
    """Name of the parent, or of any recipe, to fine-tune."""
    file: str
    """Conversations in UltraMedical's format: `conversations`, a list of turns `{from: human | gpt, value: …}`."""
    epochs: float = Field(default=3, gt=0)
    """Number of passes over the file."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """Learning rate of the first step; it decays linearly to 0."""
    max_length: int = Field(default=8192, ge=16)
    """Tokens of a conversation; a longer one is truncated at its beginning."""


class Lora(Strict):
    """A LoRA adapter (peft's LoraConfig) on all linear layers, merged into the weights when the run is saved."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapter's matrices (peft's `r`)."""
    alpha: int = Field(default=32, ge=1)
    """Scale of the adapter: its output is multiplied by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that an input of the adapter is dropped in a training step."""


class Icft(Strict):
    """ICFT-style (from the abstract): a curriculum and replay for the LoRA adapter that `lora` describes.

    The abstract of arXiv 2502.00832 names the parts of incremental curriculum-based fine-tuning without formulas; what
    was chosen is explained in tasks/finetuning/icft.py. The method `lora_replay`, its control, has the same batches
    with the same general instructions in them, but the examples in random order.
    """

    general: str
    """JSON Lines in the format of `baseline.file`: general instructions, the answers to which should stay as likely
    as before."""
    examples: Annotated[list[ExampleBudget], BeforeValidator(_listed)] | None = None
    """The budgets of `finetune.examples` that `icft` and `lora_replay` are trained with; default: all of them."""
    difficulty: Difficulty = "loss"
    """What orders the curriculum, from easy to hard: the starting model's mean `loss` a token of the response, its
    `length` in tokens, or the `rarity` of its tokens among all responses."""
    stages: int = Field(default=3, ge=1)
    """Number of parts of the curriculum, from easy to hard."""
    recent_rows: int = Field(default=1, ge=0)
    """Rows of each forward pass from the short-term memory, the examples of the stage before."""
    earlier_rows: int = Field(default=1, ge=0)
    """Rows of each forward pass from the long-term memory; all other rows, and those for which a memory is empty, are
    from the current stage."""
    long_memory: int = Field(default=512, ge=1)
    """Size of the long-term memory: examples of earlier stages and general instructions, together."""
    task: float = Field(default=1.0, ge=0)
    """Weight of the task loss: the examples of the current stage."""
    fine_tune: float = Field(default=1.0, ge=0)
    """Weight of the loss on replayed examples of earlier stages."""
    consistency: float = Field(default=1.0, ge=0)
    """Weight of the consistency loss on the general instructions."""

    def least_steps(self, examples: int, batch_size: int, accumulation: int) -> int:
        """Count the optimiser steps, shared evenly by the stages, that show every example once.

        Args:
            examples: number of training examples.
            batch_size: rows of a forward pass.
            accumulation: forward passes per optimiser step.
        """
        stages = min(self.stages, examples)
        shown = accumulation * (batch_size - self.recent_rows - self.earlier_rows)
        return stages * math.ceil(math.ceil(examples / stages) / shown)


class LearningTask(Objective):
    """An objective over one generation task, and the budgets that are trained on it."""

    examples: Annotated[list[ExampleBudget], BeforeValidator(_listed)] | None = None
    """Replaces the common `examples`."""


class Finetune(Strict):
    """Fine-tuning of chosen recipes on labelled examples: one run for each start, task, budget, seed and method."""

    starts: list[str | Rule] = Field(min_length=1)
    """Starting points: recipes by name (parent, id or label), `baseline`, or rules that choose among the merges."""
    tasks: dict[Name, LearningTask] = Field(min_length=1)
    """Name → an objective over one generation task. Runs train on its training split; it is evaluated for the starting
    points and for the models trained from them, not for other recipes."""
    examples: Annotated[list[ExampleBudget], BeforeValidator(_listed)] = ["all"]
    """Budgets: numbers of labelled examples to train on, or `all`; smaller budgets are subsets of larger ones. A number
    beyond a task's training examples is left out for that task, which `plan`, `run` and the report say."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0, 1, 2], min_length=1)
    """Random seeds; each draws other examples, in another order, the same for all starts. From one seed the report says
    nothing of another."""
    method: Annotated[list[Method], BeforeValidator(_listed)] = ["full"]
    """What is trained: all weights (`full`), a LoRA adapter (`lora`), one that is shown general instructions too
    (`lora_replay`), or one with a curriculum besides (`icft`: ICFT-style, from the abstract). Several methods are
    compared."""
    baseline: Baseline | None = None
    """One more starting point: a parent fine-tuned on an instruction set."""

    leave_out_test_questions: bool = False
    """Leave out training examples, those of `baseline.file` and `icft.general` included, that contain a question which
    the sweep is evaluated on. If false, they are named in the plan and the report."""

    epochs: float = Field(default=15, gt=0)
    """Number of passes over the examples; `min_steps` may make it more."""
    min_steps: int | None = Field(default=None, ge=1)
    """Minimum number of optimiser steps; default: 200 for all examples, 100 for a number of examples."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """Learning rate of the first step; it decays linearly to 0."""
    batch_size: int = Field(default=4, ge=1)
    """Examples in one forward pass of a device (transformers' `per_device_train_batch_size`)."""
    accumulation: int = Field(default=4, ge=1)
    """Forward passes per optimiser step, all GPUs of a run together."""
    max_length: int = Field(default=8192, ge=16)
    """Tokens of prompt and response together; the input of a longer prompt is truncated."""
    optimizer: Literal["adamw_torch", "adafactor"] = "adamw_torch"
    """The optimizer; `adafactor` keeps no full moments, so that it needs less memory."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass instead of keeping them: less memory, more time."""
    lora: Lora = Lora()
    """The adapter of the methods `lora`, `lora_replay` and `icft`."""
    icft: Icft | None = None
    """Settings of the methods `icft` and `lora_replay`, which require them."""

    gpus: int | None = Field(default=None, ge=0)
    """GPUs per run; several shard the model (FSDP). Default: 1, or 0 where the workers have no GPU."""
    cpus: int = Field(default=1, ge=1)
    """CPU cores per process of a run: one process per GPU, or one in all without GPUs."""
    save_steps: int = Field(default=50, ge=1)
    """Optimiser steps between checkpoints; only the latest checkpoint is kept."""
    keep: bool = True
    """Keep the fine-tuned weights after all questions are answered; if false, only the answers are kept."""

    @model_validator(mode="after")
    def _sensible(self) -> Finetune:
        own = {
            f"tasks.{name}.examples": task.examples for name, task in self.tasks.items() if task.examples is not None
        }
        of_icft = self.icft.examples if self.icft else None
        budgets = {"examples": self.examples, **own, **({} if of_icft is None else {"icft.examples": of_icft})}
        lists: dict[str, Sequence[object]] = {"seeds": self.seeds, "method": self.method, **budgets}
        for key, values in lists.items():
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{key} takes different values, at least one, but got {values}")
        for key, numbers in budgets.items():
            for budget in numbers:
                if budget != "all" and budget < 1:
                    raise ValueError(f"{key} are numbers of at least 1, or all, but got {budget}")
        for name, task in self.tasks.items():
            if len(task.tasks) != 1:
                raise ValueError(f"tasks.{name}.tasks: a fine-tuning task is one generation task, but got {task.tasks}")
        if self.gpus and self.accumulation % self.gpus:
            raise ValueError(
                f"gpus: {self.gpus} GPUs must divide accumulation, which is {self.accumulation}, so that the batch "
                "stays the same; lower batch_size and raise accumulation"
            )
        self._check_icft()
        if "baseline" in self.starts and self.baseline is None:
            raise ValueError("starts names 'baseline', but the key baseline is missing; say what it is trained on")
        if self.baseline is not None and "baseline" not in self.starts:
            raise ValueError("baseline is a starting point that starts does not name; add baseline there")
        return self

    def _check_icft(self) -> None:
        replaying = [method for method in self.method if method in REPLAYING]
        if replaying and self.icft is None:
            raise ValueError(
                f"method names {replaying[0]}, but the key icft is missing; write icft: {{general: <JSON Lines>}}"
            )
        if self.icft is None:
            return
        if not replaying:
            raise ValueError("icft is the settings of methods that method does not name; add icft or lora_replay there")
        memories = self.icft.recent_rows + self.icft.earlier_rows
        if memories >= self.batch_size:
            raise ValueError(
                f"icft: recent_rows and earlier_rows take {memories} rows of a batch_size of {self.batch_size}, and "
                "leave none for the present stage; lower them, or raise batch_size"
            )
        if (self.gpus or 0) > 1:
            raise ValueError(
                f"gpus: {replaying[0]} trains on one GPU, but got {self.gpus}; take 1, or leave it out of method"
            )
        known = list(dict.fromkeys(budget for task in self.tasks for budget in self.budgets(task)))
        for budget in self.icft.examples or []:
            if budget not in known:
                raise ValueError(f"icft.examples: {budget} is not among examples, {known}; add it there")

    def check(self, objectives: Collection[str]) -> None:
        """Check the section against the objectives of the sweep file.

        Args:
            objectives: their names.

        Raises:
            ValueError: a task has the name of an objective, or a rule names an objective that there is not.
        """
        for name in self.tasks:
            if name in objectives:
                raise ValueError(f"finetune.tasks.{name}: an objective has this name too; choose another")
        for index, rule in enumerate(self.starts):
            used = [] if isinstance(rule, str) else [*([rule.best] if rule.best else []), *rule.floor]
            for name in used:
                if name not in objectives:
                    raise ValueError(
                        f"finetune.starts[{index}] names {name!r}, which is not in objectives: "
                        f"{', '.join(objectives)}{hint(name, objectives)}"
                    )

    def gpus_of_a_run(self, workers: float) -> int:
        """Return the GPUs of each run: `gpus`, or where it is not set, 1 if the workers have GPUs and 0 if not.

        Args:
            workers: GPUs of each rank of a serving worker.
        """
        return int(workers > 0) if self.gpus is None else self.gpus

    def budgets(self, task: str, method: Method = "full") -> list[ExampleBudget]:
        """Return the budgets that a method is trained with on a task: the task's `examples`, or else the common ones.

        With `icft` and its control, only those that `icft.examples` names.
        """
        budgets = self.tasks[task].examples or self.examples
        own = self.icft.examples if self.icft and method in REPLAYING else None
        return budgets if own is None else [budget for budget in budgets if budget in own]

    def steps(self, examples: int, budget: ExampleBudget, method: Method) -> int:
        """Count the optimiser steps of a run: those of the epochs, but at least the minimum.

        With `icft` and `lora_replay` they are also enough to show every example once.

        Args:
            examples: number of training examples.
            budget: the entry of `examples` that the number comes from.
        """
        least = self.min_steps or (STEPS if budget == "all" else FEW_SHOT_STEPS)
        if self.icft and method in REPLAYING:
            least = max(least, self.icft.least_steps(examples, self.batch_size, self.accumulation))
        return max(least, math.ceil(self.epochs * math.ceil(examples / (self.batch_size * self.accumulation))))
