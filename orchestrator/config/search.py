"""The keys of a sweep's `search:` section: where to look beyond the grid, for how long, and what must hold.

Checked here alone, without optuna: `tune.space` makes recipes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from orchestrator.config.methods import MergeMethod, merge_method, ratio_words
from orchestrator.config.types import Strict
from orchestrator.core.errors import hint

Module = Literal["attention", "mlp", "norms", "embeddings"]


class Span(Strict):
    """A number to search for."""

    low: float
    """The least value."""
    high: float
    """The greatest value."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"`low < high` must hold, but got (low={self.low}, high={self.high})")
        return self


class Range(Span):
    """A number to search for, or several: one a knot over the depth of the model, and one a part of its layers."""

    knots: int = Field(default=1, ge=1, le=16)
    """Values over the depth, first layer to last, interpolated between (mergekit's gradient)."""
    modules: list[Module] = []
    """Parts of a layer that get values of their own; all other tensors share one more (mergekit's filters)."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.modules)) < len(self.modules):
            raise ValueError(f"modules takes each part once, but got {self.modules}")
        return self


def _ratio(value: Range | None) -> Range | None:
    if value is not None and not 0 <= value.low < value.high <= 1:
        raise ValueError(f"a mixing ratio lies in [0, 1], but got low={value.low}, high={value.high}")
    return value


Ratio = Annotated[Range | None, AfterValidator(_ratio)]


class Space(Strict):
    """One merge method and the ranges of its parameters. The keys are those of `recipes`, with `{low, high}` where a
    number is searched for; a plain value stays as it is."""

    method: str
    """As in `recipes`."""
    alpha: Ratio = None
    """linear: the second parent's share."""
    t: Ratio = None
    """slerp: position between the first parent (0) and the second (1)."""
    between: list[str] | None = Field(default=None, min_length=2, max_length=2)
    """The two parents that alpha or t run between; default: the first two."""
    base_model: str | None = None
    """As in `recipes`."""
    models: dict[str, dict[str, Range | Any]] = {}
    """Parent name → mergekit's per-model parameters."""
    parameters: dict[str, Range | Any] = {}
    """mergekit's parameters of the whole merge."""

    @model_validator(mode="after")
    def _one_form(self) -> Space:
        method = merge_method(self.method)
        key = method.check_ratio({"alpha": self.alpha, "t": self.t})
        if key and (self.models or self.base_model):
            extra = "models" if self.models else "base_model"
            raise ValueError(f"give either {key} (with between, if you like) or {extra}, not both")
        if not key and not self.models:
            raise ValueError(f"method {self.method!r} needs models; only {ratio_words()} go without")
        if method.needs_base and not key and self.base_model is None:
            raise ValueError(
                f"method {self.method!r} needs base_model: the parent that the others are measured against"
            )
        for name, given in self.models.items():
            _check_parameters(f"models.{name}", given, method, method.each)
        _check_parameters("parameters", self.parameters, method, method.parameters_beside(ratio=key is not None))
        if not (key or any(isinstance(value, Range) for value in self._values())):
            raise ValueError("there is nothing to search for here: give a parameter {low, high}")
        return self

    def _values(self) -> list[Any]:
        return [*self.parameters.values(), *(value for given in self.models.values() for value in given.values())]

    @property
    def ratio(self) -> Range | None:
        """The range of alpha or t, whichever is the method's; None where the entry names models."""
        return self.alpha or self.t


def _check_parameters(where: str, given: dict[str, Range | Any], method: MergeMethod, known: Sequence[str]) -> None:
    for key, value in given.items():
        if key not in known:
            raise ValueError(
                f"{where}.{key}: the method has no such parameter{hint(key, known)} (it has: {', '.join(known)})"
            )
        if isinstance(value, dict) and not set(value) <= {"value", "filter"}:
            raise ValueError(
                f"{where}.{key}: takes a value, {{low, high}} (with knots or modules) or mergekit's lists and "
                f"filters, but got {value}"
            )
        if key in method.unit and isinstance(value, Range):
            _ratio(value)


class Tuned(Strict):
    """Each candidate is a merge that is fine-tuned, and how is searched for too; what is not said here is as `finetune`
    says. Its learning task joins the objectives. Tuned weights stay of those that were confirmed."""

    task: str
    """One of finetune.tasks."""
    method: Literal["full", "lora"] = "full"
    """What is trained: all weights, or a LoRA adapter."""
    learning_rate: Span | None = None
    """On a logarithmic scale."""
    epochs: Span | None = None
    """Passes over the examples."""
    rank: list[Annotated[int, Field(ge=1)]] = []
    """Of LoRA's adapters: the ones to choose from."""
    examples: list[Annotated[int, Field(ge=1)]] = []
    """The numbers to choose from; default: the largest budget of `finetune.examples`."""

    @model_validator(mode="after")
    def _sensible(self) -> Tuned:
        for key in ("learning_rate", "epochs"):
            span = getattr(self, key)
            if span is not None and span.low <= 0:
                raise ValueError(f"{key}.low must be above 0, but got {span.low}")
        if self.rank and self.method != "lora":
            raise ValueError(f"rank belongs to method: lora, but method is {self.method}")
        if not (self.learning_rate or self.epochs or self.rank or self.examples):
            raise ValueError("there is nothing to search for here: give learning_rate, epochs, rank or examples")
        return self


class Floor(Strict):
    """An objective must reach a share of what a parent reaches (where less is better: not exceed it)."""

    parent: str
    """The parent that is compared with."""
    share: float = Field(gt=0)
    """Of what it scores: 0.95 demands 95 %."""


class Budget(Strict):
    """The search stops at whichever comes first."""

    candidates: int | None = Field(default=None, ge=1)
    """Recipes that the search proposes, beyond the grid and the parents."""
    questions: int | None = Field(default=None, ge=1)
    """Answers given to proposed recipes."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """Time of all workers together (a worker without a GPU counts as one)."""

    @model_validator(mode="after")
    def _some(self) -> Budget:
        if self.candidates is None and self.questions is None and self.gpu_hours is None:
            raise ValueError("give candidates, questions or gpu_hours, so that the search knows where to end")
        return self

    def at_most(self, rung: int, known: int) -> int:
        """Candidates that there can be.

        Args:
            rung: the questions of the first one, which every candidate is asked.
            known: recipes that are there before; the guess is ten times as many where only time ends the search.
        """
        limits = [self.candidates, self.questions and -(-self.questions // rung)]
        return min((limit for limit in limits if limit), default=10 * known)


class Racing(Strict):
    """After how many questions a candidate may be stopped, and with which error; see `tune.racing`."""

    rungs: list[float] = [0.15, 0.3, 0.45, 0.6, 0.8, 1.0]
    """Shares of each task's documents after which a candidate may be dropped."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """The probability that a race drops any recipe that belongs on the front."""

    @model_validator(mode="after")
    def _rising(self) -> Racing:
        if self.rungs != sorted(set(self.rungs)) or not self.rungs or self.rungs[0] <= 0 or self.rungs[-1] != 1:
            raise ValueError(f"rungs rise from above 0 to 1.0, but got {self.rungs}")
        return self


class Search(Strict):
    space: list[Space] = Field(min_length=1)
    """Where to search: merge methods with the ranges of their parameters."""
    finetune: Tuned | None = None
    """A joint search: over merges and over how they are fine-tuned."""
    budget: Budget
    """When the search ends."""
    constraints: dict[str, Floor] = {}
    """Objective → what it must at least reach."""
    racing: Racing = Racing()
    """How candidates race."""
    sampler: Literal["tpe", "gp", "nsga2", "nsga3"] | None = None
    """Optuna's; default: chosen by the space, with the reason in the report."""
    seed: int = Field(default=0, ge=0)
    """Of the sampler, and of the order of the questions."""
