"""The keys of `finetune:`: what is trained, from where, on how much, and how.

The defaults are the settings of arXiv 2604.01538 (see ASSUMPTIONS.md for the learning rate); all starting points get
the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from orchestrator.config.objectives import Objective
from orchestrator.config.types import Name, Strict
from orchestrator.core.errors import hint

Method = Literal["full", "lora", "icft"]
ExampleBudget = int | Literal["all"]
FEW_SHOT_STEPS, STEPS = 100, 200
"""The paper's least numbers of optimiser steps, for a number of examples and for all of them."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Rule(Strict):
    """Starting points chosen among the scored merges."""

    best: str | None = None
    """The highest in this objective (the lowest, where less is better)."""
    nearest: Literal["ideal"] | None = None
    """The merge nearest the ideal point: each objective's best, every axis scaled to [0, 1] over the merges."""
    per: Literal["method"] | None = None
    """One of each merge method instead of one in all."""
    floor: dict[str, float] = {}
    """Objective → the worst value that is let through."""

    @model_validator(mode="after")
    def _one(self) -> Rule:
        if (self.best is None) == (self.nearest is None):
            raise ValueError("a rule has either best: <objective> or nearest: ideal")
        return self

    @property
    def words(self) -> str:
        what = f"best in {self.best}" if self.best else "nearest the ideal point"
        floors = "".join(f", {name} no worse than {value:g}" for name, value in self.floor.items())
        return what + (" per method" if self.per else "") + floors


class Baseline(Strict):
    """A parent fine-tuned on an instruction set, as the paper's GatorTronLlama_SFT: a starting point by the name
    `baseline`."""

    start: str
    """A parent, or any recipe, by its name."""
    file: str
    """JSON Lines in UltraMedical's format: `conversations`, a list of turns `{from: human | gpt, value: …}`."""
    epochs: float = Field(default=3, gt=0)
    """Passes over the file."""
    learning_rate: float = Field(default=2e-5, gt=0)
    """The first step's; it falls linearly to 0."""
    max_length: int = Field(default=8192, ge=16)
    """Tokens of a conversation; a longer one loses its beginning."""


class Lora(Strict):
    """peft's LoraConfig, over all linear layers; merged into the weights when the run is saved."""

    rank: int = Field(default=16, ge=1)
    """Of the adapter's matrices."""
    alpha: int = Field(default=32, ge=1)
    """The adapter is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that a training step leaves out."""


class Icft(Strict):
    """Incremental curriculum-based fine-tuning (arXiv 2502.00832), by an adapter as `lora` says; what its words mean is
    in tasks/finetuning/icft.py."""

    general: str
    """JSON Lines as the baseline's: general instructions, whose answers are to stay likely."""
    examples: Annotated[list[ExampleBudget], BeforeValidator(_listed)] | None = None
    """Those of the sweep's budgets that are trained in this way; default: all."""
    stages: int = Field(default=3, ge=1)
    """Parts of the curriculum, from easy to hard."""
    recent_rows: int = Field(default=1, ge=0)
    """Rows of a forward pass from the short-term memory …"""
    earlier_rows: int = Field(default=1, ge=0)
    """… and from the long-term memory; the others, and what an empty memory cannot give, are the present stage's."""
    long_memory: int = Field(default=512, ge=1)
    """Places in the long-term memory."""
    task: float = Field(default=1.0, ge=0)
    """The weight of each term in the loss."""
    fine_tune: float = Field(default=1.0, ge=0)
    """Likewise, of replayed examples."""
    consistency: float = Field(default=1.0, ge=0)
    """Likewise, of the general instructions."""

    def least_steps(self, examples: int, batch_size: int, accumulation: int) -> int:
        """Optimiser steps, shared evenly by the stages, that show every example once."""
        stages = min(self.stages, examples)
        shown = accumulation * (batch_size - self.recent_rows - self.earlier_rows)
        return stages * math.ceil(math.ceil(examples / stages) / shown)


class Finetune(Strict):
    starts: list[str | Rule] = Field(min_length=1)
    """Recipes by name (a parent, an id, a label), `baseline`, or rules that choose among the merges."""
    tasks: dict[Name, Objective] = Field(min_length=1)
    """Each an objective over one generation task: trained on its training split, and evaluated for the starting points
    and for what is trained from them, not for the other recipes."""
    examples: Annotated[list[ExampleBudget], BeforeValidator(_listed)] = ["all"]
    """Labelled examples; smaller budgets are subsets of larger ones."""
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    """Each draws other examples, in another order."""
    method: Annotated[list[Method], BeforeValidator(_listed)] = ["full"]
    """What is trained: all weights, a LoRA adapter, or one by ICFT's curriculum. Several are compared."""
    baseline: Baseline | None = None
    """One more starting point: a parent tuned on an instruction set."""

    epochs: float = Field(default=15, gt=0)
    """Passes over the examples; `min_steps` may make it more."""
    min_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps at least; default: 200, and 100 where `examples` is a number."""
    learning_rate: float = Field(default=5e-5, gt=0)
    """The first step's; it falls linearly to 0."""
    batch_size: int = Field(default=4, ge=1)
    """Of one forward pass."""
    accumulation: int = Field(default=4, ge=1)
    """Forward passes an optimiser step."""
    max_length: int = Field(default=8192, ge=16)
    """Tokens of prompt and response together; longer prompts lose a part of their input."""
    optimizer: Literal["adamw_torch", "adafactor"] = "adamw_torch"
    """`adafactor` keeps no full moments."""
    gradient_checkpointing: bool = True
    """Compute activations a second time instead of keeping them: less memory, more time."""
    lora: Lora = Lora()
    """The adapter of the methods `lora` and `icft`."""
    icft: Icft | None = None
    """Settings of the method `icft`, which needs them."""

    gpus: int | None = Field(default=None, ge=0)
    """GPUs a run; more than one shard it (FSDP). Default: 1, and 0 where the workers have none."""
    cpus: int = Field(default=1, ge=1)
    """Cores a run, or a GPU of it."""
    save_steps: int = Field(default=50, ge=1)
    """Optimiser steps between checkpoints; the one before is removed."""
    keep: bool = True
    """Keep the tuned weights once all questions are answered; else only the answers stay."""

    @model_validator(mode="after")
    def _sensible(self) -> Finetune:
        lists: dict[str, Sequence[object]] = {"examples": self.examples, "seeds": self.seeds, "method": self.method}
        for key, values in {**lists, "icft.examples": self.budgets("icft")}.items():
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{key} takes different values, at least one, but got {values}")
        for budget in self.examples:
            if budget != "all" and budget < 1:
                raise ValueError(f"examples are numbers from 1 on, or all, but got {budget}")
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
        if "icft" in self.method and self.icft is None:
            raise ValueError("method names icft, but the key icft is missing; write icft: {general: <JSON Lines>}")
        if self.icft is None:
            return
        if "icft" not in self.method:
            raise ValueError("icft is the settings of a method that method does not name; add icft there")
        memories = self.icft.recent_rows + self.icft.earlier_rows
        if memories >= self.batch_size:
            raise ValueError(
                f"icft: recent_rows and earlier_rows take {memories} rows of a batch_size of {self.batch_size}, and "
                "leave none for the present stage; lower them, or raise batch_size"
            )
        if (self.gpus or 0) > 1:
            raise ValueError(f"gpus: icft trains on one GPU, but got {self.gpus}; take 1, or leave icft out of method")
        for budget in self.icft.examples or []:
            if budget not in self.examples:
                raise ValueError(f"icft.examples: {budget} is not among examples, {self.examples}; add it there")

    def check(self, objectives: Collection[str]) -> None:
        """Against the rest of the sweep file."""
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
        """Args:
        workers: GPUs of a serving worker.
        """
        return int(workers > 0) if self.gpus is None else self.gpus

    def budgets(self, method: Method) -> list[ExampleBudget]:
        own = self.icft.examples if self.icft and method == "icft" else None
        return self.examples if own is None else own

    def steps(self, examples: int, budget: ExampleBudget, method: Method) -> int:
        """Optimiser steps of a run: as many as the epochs take, or the least; and with `icft`, as many as show every
        example."""
        least = self.min_steps or (STEPS if budget == "all" else FEW_SHOT_STEPS)
        if self.icft and method == "icft":
            least = max(least, self.icft.least_steps(examples, self.batch_size, self.accumulation))
        return max(least, math.ceil(self.epochs * math.ceil(examples / (self.batch_size * self.accumulation))))
