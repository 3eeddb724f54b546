"""The keys of a sweep's `search:` section: where to look beyond the grid, for how long, under which constraints.

The section is checked here, without optuna; `tune.space` turns it into recipes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from orchestrator.config.merges import check_merge, check_parameters
from orchestrator.config.methods import merge_method, ratio_words
from orchestrator.config.types import Strict

Module = Literal["attention", "mlp", "norms", "embeddings"]


class Bounds(Strict):
    """A range in which a number is searched for."""

    low: float
    """The smallest value."""
    high: float
    """The largest value."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"`low < high` must be true, but got (low={self.low}, high={self.high})")
        return self


class Range(Bounds):
    """A range in which a number is searched for, or several: one per knot over the depth, and per part of a layer."""

    knots: int = Field(default=1, ge=1, le=16)
    """Number of values over the depth, first layer to last, interpolated in between (mergekit's gradient)."""
    modules: list[Module] = []
    """Parts of a layer that have values of their own; all other tensors share one more (mergekit's filters)."""

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
    """One merge method and the ranges of its parameters.

    The keys are those of `recipes`, with `{low, high}` where a number is searched for; a plain value is used as it is.
    """

    method: str
    """Merge method, as in `recipes`."""
    alpha: Ratio = None
    """Ratio of `linear`: the second parent's share."""
    t: Ratio = None
    """Ratio of `slerp`: the position between the first parent (0) and the second (1)."""
    between: list[str] | None = Field(default=None, min_length=2, max_length=2)
    """The two parents that `alpha` or `t` interpolates between; default: the first two."""
    base_model: str | None = None
    """The base model, one of the parents, as in `recipes`."""
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
            raise ValueError(f"method {self.method!r} needs models; only {ratio_words()} can do without")
        if method.needs_base and not key and self.base_model is None:
            raise ValueError(
                f"method {self.method!r} needs base_model: the parent that the others are measured against"
            )
        known = method.parameters_beside(ratio=key is not None)
        if key:
            check_parameters("parameters", method, self.parameters, known, _ends)
        else:
            check_merge(method, self.base_model, self.models, self.parameters, known, _ends)
        if not (key or any(isinstance(value, Range) for value in self._values())):
            raise ValueError("there is nothing to search for here: give a parameter {low, high}")
        return self

    def _values(self) -> list[Any]:
        return [*self.parameters.values(), *(value for given in self.models.values() for value in given.values())]

    @property
    def ratio(self) -> Range | None:
        """The range of `alpha` or `t`, whichever the method has; None where the entry has `models`."""
        return self.alpha or self.t


def _ends(value: Range | Any) -> list[Any]:
    """The values that bound what a search may try: the ends of a range, else the value itself.

    Raises:
        ValueError: it is meant as a range and is none, or it is a grid.
    """
    if isinstance(value, dict) and not {"value"} <= set(value):
        raise ValueError(
            f"a range is written {{low: 0.1, high: 0.9}}, of two finite numbers (with knots or modules), but got "
            f"{value}"
        )
    return [value.low, value.high] if isinstance(value, Range) else [value]


class FinetuneSpace(Strict):
    """A joint search: each candidate is a merge that is fine-tuned, and the settings of fine-tuning are searched too.

    Settings that are not named here are as in `finetune`. The task becomes one more objective. The weights of the
    confirmed recipes are kept.
    """

    task: str
    """The task to fine-tune on, one of `finetune.tasks`."""
    method: Literal["full", "lora"] = "full"
    """What is trained: all weights, or a LoRA adapter."""
    learning_rate: Bounds | None = None
    """Range of the learning rate, sampled on a logarithmic scale."""
    epochs: Bounds | None = None
    """Range of the number of passes over the examples."""
    rank: list[Annotated[int, Field(ge=1)]] = []
    """Ranks of the LoRA adapter to choose from; only for `method: lora`."""
    examples: list[Annotated[int, Field(ge=1)]] = []
    """Numbers of training examples to choose from; default: the largest budget of `finetune.examples`."""

    @model_validator(mode="after")
    def _sensible(self) -> FinetuneSpace:
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
    """A constraint: an objective must reach a share of a parent's score, or a score.

    Where lower is better, it must not exceed the parent's score divided by the share, or the score.
    """

    parent: str | None = None
    """Name of the parent to compare with."""
    share: float | None = Field(default=None, gt=0)
    """Share of the parent's score: 0.95 requires 95 % of it."""
    score: float | None = None
    """The score to reach, in place of a parent and a share: 0.02 with `metric: empty` allows 2 % of empty texts."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.parent is None) != (self.share is None) or (self.parent is None) == (self.score is None):
            raise ValueError("write parent and share, or score alone, such as {parent: instruct, share: 0.95}")
        return self

    def words(self, objective: str, sign: float) -> str:
        """Return the constraint in words.

        Args:
            sign: the objective's, +1 where higher is better.
        """
        if self.score is not None:
            return f"{objective} {'at least' if sign > 0 else 'at most'} {self.score:g}"
        return f"{objective} at least {self.share:g} of {self.parent}"

    def factor(self, sign: float) -> float:
        """What the parent's score is multiplied with to be the limit; 0 where the limit is a score.

        Args:
            sign: the objective's, +1 where higher is better.
        """
        if self.share is None:
            return 0.0
        return self.share if sign > 0 else 1 / self.share


class SearchBudget(Strict):
    """The budget of a search, which ends at whichever limit is reached first."""

    candidates: int | None = Field(default=None, ge=1)
    """Number of recipes that the search proposes, beyond the grid and the parents."""
    questions: int | None = Field(default=None, ge=1)
    """Number of questions that proposed recipes answer, all together."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """GPU hours of all workers together (a worker without a GPU counts as one GPU)."""

    @model_validator(mode="after")
    def _some(self) -> SearchBudget:
        if self.candidates is None and self.questions is None and self.gpu_hours is None:
            raise ValueError("give candidates, questions or gpu_hours, so that the search knows where to end")
        return self

    def at_most(self, rung: int, known: int) -> int:
        """Return the largest number of candidates that the budget allows.

        Args:
            rung: number of questions of the first rung, which every candidate answers.
            known: number of recipes before the search; with only `gpu_hours`, the guess is ten times as many.
        """
        limits = [self.candidates, self.questions and -(-self.questions // rung)]
        return min((limit for limit in limits if limit), default=10 * known)


class Racing(Strict):
    """When a candidate may be stopped early, and with what error probability; see `tune.racing`."""

    rungs: list[float] = [0.15, 0.3, 0.45, 0.6, 0.8, 1.0]
    """Shares of the questions after which a candidate may be stopped early or deferred. Early ones have equal numbers
    of each task that weighs the same in its objective, whatever the tasks' sizes."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Bound on the probability that a race stops any recipe of the front early."""
    ranges: dict[str, Bounds] = {}
    """Metric → the least and the largest value that a document can have, for a metric of your own (`rouge1: {low: 0,
    high: 1}`). Without it, nothing bounds such a metric, and the race guarantees nothing."""

    @model_validator(mode="after")
    def _rising(self) -> Racing:
        if self.rungs != sorted(set(self.rungs)) or not self.rungs or self.rungs[0] <= 0 or self.rungs[-1] != 1:
            raise ValueError(f"rungs rise from above 0 to 1.0, but got {self.rungs}")
        return self


class Search(Strict):
    """The search beyond the grid: where, for how long, and under which constraints."""

    space: list[Space] = Field(min_length=1)
    """Where to search: merge methods with the ranges of their parameters."""
    finetune: FinetuneSpace | None = None
    """A joint search: over merges and over how they are fine-tuned."""
    budget: SearchBudget
    """Limits at which the search ends."""
    constraints: dict[str, Floor] = {}
    """Objective → the score that it must reach. One with `front: false` is a guard: no axis, but a condition."""
    racing: Racing = Racing()
    """When candidates are stopped early or deferred."""
    sampler: Literal["tpe", "gp", "nsga2", "nsga3"] | None = None
    """Optuna's sampler; default: chosen by the search space, with the reason in the report."""
    seed: int = Field(default=0, ge=0)
    """Random seed of the sampler and of the order of the questions."""
