"""The keys of an entry of `recipes:`: one merge method and the grid of values to try."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.config.merges import check_merge, check_parameters, check_sum
from orchestrator.config.methods import SHARE, MergeMethod, merge_method
from orchestrator.config.settings import covers, expand_span, filters, grid_values, is_grid, number_hint
from orchestrator.config.types import Strict

MAX_POINTS = 1_000_000
"""Maximum number of combinations of one entry of `recipes:`."""


def _expand_ratios(value: Any) -> Any:
    """Make the list of ratios: a number or filters are one, a span or a grid several, and so is a list."""
    if type(value) in (int, float) or (isinstance(value, dict) and "value" in value):
        return [value]
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        return [value]  # mergekit's filters, one value all together
    values = grid_values(value) if is_grid(value) else expand_span(value)
    if not isinstance(values, list):
        raise ValueError(
            f"takes a number between 0 and 1, a list of them, {{start, stop, step}}, or mergekit's filters, but got "
            f"{value!r}{number_hint(value)}"
        )
    return values


def _check_ratios(values: list[Any]) -> list[Any]:
    if not values:
        raise ValueError("the grid is empty; give at least one value between 0 and 1")
    for value in values:
        if type(value) in (int, float) and not 0 <= value <= 1:
            raise ValueError(f"a mixing ratio lies in [0, 1], but got {value}; 0 is the first parent, 1 the second")
        SHARE.check(value)
        if not covers(value):
            raise ValueError("tensors that no filter fits get no ratio; end the list with {value: …}, without a filter")
    return values


Ratios = Annotated[list[Any], BeforeValidator(_expand_ratios), AfterValidator(_check_ratios)]


class RecipeGrid(Strict):
    """One merge method and the values to try.

    `{grid: [...]}` in place of a value tries each of the listed values; a plain list has mergekit's own meaning (a
    gradient over the layers).
    """

    method: str
    """`linear`, `slerp`, or any other merge method of mergekit."""
    alpha: Ratios | None = None
    """Ratios of `linear`: the second parent's share. A list is a grid; an entry that is a list itself is a gradient
    over the layers, and a list of filters is one ratio."""
    t: Ratios | None = None
    """Ratios of `slerp`: the position between the first parent (0) and the second (1), in the same forms."""
    between: list[str] | None = Field(default=None, min_length=2, max_length=2)
    """The two parents that `alpha` or `t` interpolates between; required if there are more than two parents."""
    base_model: str | None = None
    """The base model, one of the parents; most methods require one."""
    models: dict[str, dict[str, Any]] | None = None
    """Parent name → mergekit's per-model parameters (weight, density, …)."""
    parameters: dict[str, Any] = {}
    """mergekit's parameters of the whole merge (normalize, int8_mask, lambda, …)."""

    layers: int | None = Field(default=None, ge=1)
    """Number of layers that mergekit's `slices` cover, which must be all; set where the entry was written with them."""

    @model_validator(mode="after")
    def _one_form(self) -> RecipeGrid:
        method = merge_method(self.method)
        ratio = method.check_ratio({"alpha": self.alpha, "t": self.t})
        if ratio and (self.models is not None or self.base_model is not None):
            extra = "models" if self.models is not None else "base_model"
            raise ValueError(f"give either {ratio} (with between, if you like) or {extra}, not both")
        if not ratio and self.models is None:
            way = f"{method.ratio.key} (a list of ratios) or models" if method.ratio else "models"
            raise ValueError(f"method {self.method!r} needs {way}: which parents, with which parameters")
        if self.models is not None and self.between is not None:
            raise ValueError("between belongs to alpha or t; models already names the parents; remove one of the two")
        if self.between is not None and self.between[0] == self.between[1]:
            raise ValueError(f"between takes two different parents, but got {self.between}")
        self._check_parameters(method)
        return self

    @property
    def ratio(self) -> list[Any] | None:
        """The values of `alpha` or `t`, whichever the method has; None where the entry has `models`."""
        return self.alpha if self.alpha is not None else self.t

    def filters(self) -> Iterator[tuple[str, str]]:
        """Yield the parts of tensor names that values ask for, each after the path of its key."""
        given = {"alpha": self.alpha or [], "t": self.t or []}
        given |= {f"parameters.{key}": grid_values(value) for key, value in self.parameters.items()}
        for name, own in (self.models or {}).items():
            given |= {f"models.{name}.{key}": grid_values(value) for key, value in own.items()}
        for key, settings in given.items():
            yield from ((key, name) for setting in settings for name in filters(setting))

    def _check_parameters(self, method: MergeMethod) -> None:
        if method.needs_base and self.ratio is None and self.base_model is None:
            raise ValueError(
                f"method {self.method!r} needs base_model: the parent that the others are measured against"
            )
        known = method.parameters_beside(ratio=self.ratio is not None)
        if self.models is None:
            check_parameters("parameters", method, self.parameters, known, grid_values)
        else:
            check_merge(method, self.base_model, self.models, self.parameters, known, grid_values)
            check_sum(method, self.base_model, self.models, self.parameters, grid_values)
        every = [*self.parameters.values(), *(v for own in (self.models or {}).values() for v in own.values())]
        points = math.prod(len(grid_values(value)) for value in every)
        if points > MAX_POINTS:
            raise ValueError(
                f"these grids have {points} combinations; at most {MAX_POINTS} are taken: use fewer values"
            )
