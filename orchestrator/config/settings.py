"""The values that a parameter of a merge may have: mergekit's own forms, and the grids over them.

mergekit takes a number, a gradient (a list of numbers over the layers, first to last, interpolated in between) or
filters (a list of `{filter: part of a tensor's name, value: …}`, of which the first that fits counts). It passes over
what it does not know, and what it refuses it refuses in the middle of a merge; here it is refused with the sweep file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.errors import hint

MAX_GRID = 10_000
"""Maximum number of values of a span."""
KINDS = {float: "a number", int: "a whole number", bool: "true or false"}
FORMS = "a gradient over the layers (a list), or filters such as [{filter: mlp, value: 0.3}, {value: 0.5}]"


class KeyProblem(ValueError):
    """What is wrong with a key inside the value that is checked.

    Args:
        key: its path from there, such as `models.clinical.weight`.
    """

    def __init__(self, key: str, message: object) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = str(message)


@dataclass(frozen=True)
class Parameter:
    """What a parameter of a merge method may be."""

    kind: type[float] | type[int] | type[bool] = float
    low: float = -math.inf
    high: float = math.inf

    def check(self, setting: Any) -> None:
        """Check a value in one of mergekit's forms.

        Raises:
            ValueError: it is none, a number in it has the wrong type or is out of bounds, or a filter is never reached.
        """
        entries = [setting] if isinstance(setting, dict) else setting
        if not isinstance(entries, list):
            self._check_one(setting)
        elif any(isinstance(entry, dict) for entry in entries):
            self._check_filters(entries)
        elif not entries:
            raise ValueError(f"an empty list is no gradient; give {KINDS[self.kind]}, or a list of at least one")
        else:
            for entry in entries:
                self._check_one(entry)

    def _check_one(self, value: Any) -> None:
        taken = {float: (float, int), int: (int,), bool: (bool,)}[self.kind]
        if type(value) not in taken:
            raise ValueError(f"takes {KINDS[self.kind]}, {FORMS}, but got {value!r}{number_hint(value)}")
        if not _is_finite(value):
            raise ValueError(f"takes a finite number, but got {value}")
        if not self.low <= value <= self.high:
            raise ValueError(f"this parameter {self.bounds}, but got {value}")

    @property
    def bounds(self) -> str:
        """The bounds in words: `lies in [0, 1]`."""
        return f"lies in [{self.low}, {self.high}]" if self.high < math.inf else f"is at least {self.low}"

    def _check_filters(self, entries: list[Any]) -> None:
        before: list[str] = []
        for entry in entries:
            if not isinstance(entry, dict) or not {"value"} <= set(entry) <= {"value", "filter"}:
                raise ValueError(
                    f"a filter is written {{filter: mlp, value: 0.3}}, a grid {{grid: […]}}, but got {entry!r}"
                )
            name, value = entry.get("filter"), entry["value"]
            if name is not None and (not isinstance(name, str) or not name):
                raise ValueError(f"a filter is part of a tensor's name, such as mlp, but got {name!r}")
            if any(isinstance(each, dict) for each in (value if isinstance(value, list) else [value])):
                raise ValueError(f"the value of a filter is {KINDS[self.kind]} or a list of them, but got {value!r}")
            wider = next((each for each in before if each in (name or "") or each == "*"), None)
            if wider is not None:
                raise ValueError(
                    f"the entry for {name or 'all other tensors'} is never reached, as the one for "
                    f"{'all tensors' if wider == '*' else wider!r} stands before it; change their order"
                )
            self.check(value)
            before.append(name or "*")


def number_hint(value: Any) -> str:
    """Say how the number is written that a value means: `; write 0.5, without quotes`; "" where it means none."""
    if isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    if not isinstance(value, str):
        return ""
    whole, _, part = value.strip().partition("/")
    try:
        number = float(whole.replace(",", ".")) / (float(part) if part else 1)
    except (ValueError, ZeroDivisionError):
        return ""
    return f"; write {number:.6g}, without quotes" if math.isfinite(number) else ""


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def covers(setting: Any) -> bool:
    """Whether every tensor gets a value; filters without a last `{value: …}` leave some to mergekit's default."""
    entries = [setting] if isinstance(setting, dict) else setting
    if not isinstance(entries, list) or not any(isinstance(entry, dict) for entry in entries):
        return True
    return any(isinstance(entry, dict) and entry.get("filter") in (None, "*") for entry in entries)


def filters(setting: Any) -> Iterator[str]:
    """Yield the parts of tensor names that a value in mergekit's form asks for."""
    for entry in setting if isinstance(setting, list) else [setting]:
        if isinstance(entry, dict) and entry.get("filter") not in (None, "*"):
            yield entry["filter"]


def value_at(setting: Any, tensor: str, depth: float) -> Any:
    """Return the value for a tensor as mergekit resolves it; None where no filter fits.

    Args:
        tensor: its name.
        depth: 0 in the first layer, 1 in the last.
    """
    if isinstance(setting, dict):
        setting = [setting]
    if not isinstance(setting, list):
        return setting
    if not isinstance(setting[0], dict):
        place = depth * (len(setting) - 1)
        left = int(place)
        right = min(left + 1, len(setting) - 1)
        return setting[left] + (place - left) * (setting[right] - setting[left])
    fits = (entry for entry in setting if entry.get("filter") in (None, "*") or entry["filter"] in tensor)
    return next((value_at(entry["value"], tensor, depth) for entry in fits), None)


def resolved(settings: Iterable[Mapping[str, Any]], name: str, tensor: str, depth: float, default: Any = None) -> Any:
    """Return a parameter's value for a tensor: of the first settings that have one for it, else the default."""
    found = (value_at(each[name], tensor, depth) for each in settings if name in each)
    return next((value for value in found if value is not None), default)


def expand_span(value: Any) -> Any:
    """Expand `{start: 0, stop: 1, step: 0.1}` into a list, ends included; anything else is returned as it is.

    Raises:
        ValueError: the span has other keys, no end, or more than `MAX_GRID` values.
    """
    if not isinstance(value, dict):
        return value
    keys = ("start", "stop", "step")
    if set(value) != set(keys):
        wrong = next((key for key in value if key not in keys), "")
        raise ValueError(
            f"a span has the keys start, stop and step, but got {sorted(map(str, value))}{hint(wrong, keys)}"
        )
    start, stop, step = (value[key] for key in keys)
    for each in (start, stop, step):
        if type(each) not in (int, float) or not _is_finite(each):
            raise ValueError(f"start, stop and step are finite numbers, but got {value}{number_hint(each)}")
    if step <= 0 or stop < start:
        raise ValueError(f"`step > 0` and `start <= stop` must be true, but got {value}")
    count = math.floor((stop - start) / step + 1e-9) + 1
    if count > MAX_GRID:
        raise ValueError(f"this span has {count} values; at most {MAX_GRID} are taken: use a larger step")
    # Rounded, so that 0.1 + 0.2 in a span is the same recipe as 0.3 in a list.
    return [round(start + i * step, 10) for i in range(count)]


def is_grid(value: Any) -> bool:
    """Whether a value is written `{grid: …}`."""
    return isinstance(value, dict) and set(value) == {"grid"}


def grid_values(value: Any) -> list[Any]:
    """List the values that a parameter of a recipe takes: those of `{grid: …}`, else the one value itself.

    Raises:
        ValueError: the grid is neither a list of values nor a span.
    """
    if not is_grid(value):
        return [value]
    values = expand_span(value["grid"])
    if type(values) in (int, float):
        return [values]
    if not isinstance(values, list) or not values:
        raise ValueError(f"grid takes a list of values, or start, stop and step, but got {value['grid']!r}")
    return values
