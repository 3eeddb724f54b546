"""The keys of an entry of `recipes:`: one merge method and the grid of values to try."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.config.methods import MergeMethod, merge_method
from orchestrator.config.types import Strict
from orchestrator.core.errors import hint

MAX_GRID = 10_000
"""Maximum number of values of a span."""
MAX_POINTS = 1_000_000
"""Maximum number of combinations of one entry of `recipes:`."""


def _expand_span(value: Any) -> Any:
    """Expand `{start: 0, stop: 1, step: 0.1}` into a list, ends included; a list is returned as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value]
    if not isinstance(value, dict):
        return value
    if set(value) != {"start", "stop", "step"}:
        raise ValueError(f"a span has the keys start, stop and step, but got {sorted(map(str, value))}")
    start, stop, step = (value[key] for key in ("start", "stop", "step"))
    if any(isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x) for x in (start, stop, step)):
        raise ValueError(f"start, stop and step are finite numbers, but got {value}")
    if step <= 0 or stop < start:
        raise ValueError(f"`step > 0` and `start <= stop` must be true, but got {value}")
    count = math.floor((stop - start) / step + 1e-9) + 1
    if count > MAX_GRID:
        raise ValueError(f"this span has {count} values; at most {MAX_GRID} are taken: use a larger step")
    # Rounded, so that 0.1 + 0.2 in a span is the same recipe as 0.3 in a list.
    return [round(start + i * step, 10) for i in range(count)]


def _check_ratios(values: list[float]) -> list[float]:
    if not values:
        raise ValueError("the grid is empty; give at least one value between 0 and 1")
    for value in values:
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"a mixing ratio lies in [0, 1], but got {value}; 0 is the first parent, 1 the second")
    return values


def grid_values(value: Any) -> list[Any]:
    """List the values that a parameter of a recipe takes: those of `{grid: …}`, else the one value itself.

    Raises:
        ValueError: the grid is neither a list of values nor a span.
    """
    if not (isinstance(value, dict) and set(value) == {"grid"}):
        return [value]
    values = _expand_span(value["grid"])
    if not isinstance(values, list) or not values:
        raise ValueError(f"grid takes a list of values, or start, stop and step, but got {value['grid']!r}")
    return values


def _check_parameter(where: str, key: str, value: Any, method: MergeMethod, known: Sequence[str]) -> None:
    """Refuse a parameter that the method does not have (mergekit would ignore it), or with a wrong grid or value.

    Args:
        where: path of the key, for messages.
        known: the method's parameters that are allowed here.

    Raises:
        ValueError: the parameter is unknown, its grid is malformed, or a value that must lie in [0, 1] does not.
    """
    if key not in known:
        raise ValueError(
            f"{where}.{key}: the method has no such parameter{hint(key, known)} (it has: {', '.join(known)})"
        )
    if isinstance(value, dict) and set(value) != {"grid"} and not set(value) <= {"value", "filter"}:
        raise ValueError(
            f"{where}.{key}: takes a value, mergekit's lists and filters, or {{grid: […]}}, but got {value}"
        )
    try:
        values = grid_values(value)
    except ValueError as error:
        raise ValueError(f"{where}.{key}: {error}") from None
    for number in values:
        if key in method.unit and isinstance(number, int | float) and not 0 <= number <= 1:
            raise ValueError(f"{where}.{key}: this parameter lies in [0, 1], but got {number}")


Span = Annotated[list[float], BeforeValidator(_expand_span)]
Ratios = Annotated[Span, AfterValidator(_check_ratios)]


class RecipeGrid(Strict):
    """One merge method and the values to try.

    `{grid: [...]}` in place of a value tries each of the listed values; a plain list has mergekit's own meaning (a
    gradient over the layers).
    """

    method: str
    """`linear`, `slerp`, or any other merge method of mergekit."""
    alpha: Ratios | None = None
    """Ratios of `linear`: the second parent's share."""
    t: Ratios | None = None
    """Ratios of `slerp`: the position between the first parent (0) and the second (1)."""
    between: list[str] | None = Field(default=None, min_length=2, max_length=2)
    """The two parents that `alpha` or `t` interpolates between; required if there are more than two parents."""
    base_model: str | None = None
    """The base model, one of the parents; most methods require one."""
    models: dict[str, dict[str, Any]] | None = None
    """Parent name → mergekit's per-model parameters (weight, density, …)."""
    parameters: dict[str, Any] = {}
    """mergekit's parameters of the whole merge (normalize, int8_mask, lambda, …)."""

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
    def ratio(self) -> list[float] | None:
        """The values of `alpha` or `t`, whichever the method has; None where the entry has `models`."""
        return self.alpha if self.alpha is not None else self.t

    def _check_parameters(self, method: MergeMethod) -> None:
        if method.needs_base and self.ratio is None and self.base_model is None:
            raise ValueError(
                f"method {self.method!r} needs base_model: the parent that the others are measured against"
            )
        for name, parameters in (self.models or {}).items():
            for key, value in parameters.items():
                _check_parameter(f"models.{name}", key, value, method, method.each)
        beside = method.parameters_beside(ratio=self.ratio is not None)
        for key, value in self.parameters.items():
            _check_parameter("parameters", key, value, method, beside)
        every = [*self.parameters.values(), *(v for own in (self.models or {}).values() for v in own.values())]
        points = math.prod(len(grid_values(value)) for value in every)
        if points > MAX_POINTS:
            raise ValueError(
                f"these grids have {points} combinations; at most {MAX_POINTS} are taken: use fewer values"
            )
