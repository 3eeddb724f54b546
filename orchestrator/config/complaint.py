"""Validation errors of pydantic as one sentence: the key's path, what is wrong, the value, the way out.

The location of an error mixes the user's keys with pydantic's names for the alternatives of a union. Following the
types along the location separates the two, and leads to the model whose keys are allowed there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config.mergekit_form import GOES
from orchestrator.config.methods import PARAMETERS
from orchestrator.config.settings import KINDS, KeyProblem, number_hint
from orchestrator.core.errors import hint

KEY = "[key]"
"""What pydantic appends to a location where the key of a mapping is itself invalid."""
LOOKED_AT = 200
"""Errors among which the most helpful one is looked for."""
SHOWN = 200
"""Characters of a wrong value that are shown."""
WORDS = {**KINDS, str: "text"}
"""Plain type → what a value of it is called."""


@dataclass(frozen=True)
class Place:
    """Where an error is, in the user's words."""

    error: ErrorDetails
    parts: list[int | str]
    """The part of its location that the user wrote."""
    owner: Any
    """The type that the last key belongs to."""
    kind: Any
    """The type that the value should have."""
    likely: bool
    """Whether it is about the alternatives of unions that the values resemble most."""

    @property
    def where(self) -> str:
        """The path of the key, such as `recipes[0].method`; of a key that is none, the path of what it is in."""
        of_the_key = self.parts[-1:] == [KEY] and not self.is_unknown
        left_out = 2 if self.is_key else int(of_the_key or self.error["type"] == "invalid_key")
        return _joined(self.parts[: len(self.parts) - left_out])

    @property
    def is_key(self) -> bool:
        """Whether it is about the key of a mapping itself, and not about its value."""
        return self.parts[-1:] == [KEY] and self.error["type"].endswith("_type")

    @property
    def is_unknown(self) -> bool:
        """Whether it is about a key that nobody knows."""
        return self.error["type"] == "extra_forbidden"

    @property
    def rank(self) -> tuple[bool, int]:
        """What is written and unknown helps most, what is missing least: it may be what was written wrongly."""
        return not self.likely, {"extra_forbidden": 0, "missing": 2}.get(self.error["type"], 1)


def explain(error: ValidationError, model: type[BaseModel], data: dict[Any, Any]) -> str:
    """Describe what is wrong with a file in one sentence, by the error that helps most.

    Args:
        model: the model that refused the file.
        data: the content of the file.
    """
    errors = error.errors(include_url=False)
    places = [_locate(each, model, data) for each in itertools.islice(errors, LOOKED_AT)]
    first = min(places, key=lambda place: place.rank)
    kind, value, message = first.error["type"], first.error["input"], first.error["msg"]
    if first.is_unknown:
        return f"{first.where}: {_unknown(first, places)}"
    if kind == "missing":
        return f"{first.where}: this key is missing; add it"
    if kind == "value_error":
        cause = first.error["ctx"]["error"]
        if isinstance(cause, KeyProblem):
            return f"{_joined([*first.parts, cause.key])}: {cause.message}"
        return f"{first.where}: {cause}".removeprefix(": ")
    if first.is_key or kind == "invalid_key":
        return (
            f"{first.where}: {value!r} is no key; quote it if it is a name (yes, no, on and off are true and false), "
            "and write a decimal number with a point, such as 0.5"
        ).removeprefix(": ")
    if kind in ("too_short", "too_long"):
        bound = "at least {min_length}" if kind == "too_short" else "at most {max_length}"
        return f"{first.where}: takes {bound.format(**first.error['ctx'])} entries, but got {_shown(value)}"
    if kind.endswith("_type") or kind in ("int_from_float", "literal_error", "model_attributes_type"):
        return f"{first.where}: {_wrong_type(first, value)}"
    more = len(errors) - 1
    said = f"{message[0].lower()}{message[1:]}, but got {value!r}"
    return f"{first.where}: {said}" + (f" (and {more} more)" if more else "")


def _unknown(place: Place, places: Sequence[Place]) -> str:
    """Say which key is meant by an unknown one: the nearest, or the only one that is missing beside it."""
    assert _is_model(place.owner), "nothing else forbids keys"
    key, known = str(place.parts[-1]), list(place.owner.model_fields)
    if key in GOES and place.parts[0] in (key, "recipes"):
        return GOES[key]
    if key in PARAMETERS and "parameters" in known:
        return f"is a parameter of the merge method; write parameters: {{{key}: …}}, or write it with one of models"
    missing = (each for each in places if each.likely and each.error["type"] == "missing")
    beside = [each for each in missing if each.parts[:-1] == place.parts[:-1]]
    near = hint(key, known)
    if not near and len(beside) == 1:
        near = f"; did you mean {str(beside[0].parts[-1])!r}, which is missing?"
    return f"unknown key{near} (known here: {', '.join(known)})"


def _wrong_type(place: Place, value: Any) -> str:
    wanted = words_of(place.kind)
    if value is None:
        return f"has no value; write {wanted}, or take the key out"
    return f"takes {wanted}, but got {_shown(value)}{_way_out(place.kind, value)}"


def _way_out(kind: Any, value: Any) -> str:
    """Say how a value of the wrong type is written as the right one; empty where that is not clear."""
    wanted = _alternatives(kind)
    if len(repr(value)) > SHOWN:
        return ""
    if str in wanted and isinstance(value, int | float):
        return f"; quote it: {str(value)!r}" if type(value) is int else "; put what is written there in quotes"
    if int in wanted and isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    if {int, float} & set(wanted) and number_hint(value):
        return number_hint(value)
    for each in wanted:
        if get_origin(each) is Literal:
            return hint(value, get_args(each))
        if get_origin(each) is list and not isinstance(value, list | dict):
            return f"; write [{value}]"
        if _is_model(each) and not isinstance(value, dict):
            needed = [name for name, field in each.model_fields.items() if field.is_required()]
            return f"; write {{{needed[0]}: {value}}}" if len(needed) == 1 and not isinstance(value, list) else ""
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def words_of(kind: Any) -> str:
    """Describe the values of a type: `a list of text`, `the keys model, revision and lora`."""
    found = dict.fromkeys(_words_of_one(each) for each in _alternatives(kind))
    return " or ".join(found)


def _words_of_one(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words_of(inner[0])
    if origin is Literal:
        return " or ".join(", ".join(map(repr, inner)).rsplit(", ", 1))
    if origin is list:
        return "a list" if inner[0] is Any else f"a list of {_several(inner[0])}"
    if origin is dict:
        return f"names with values, such as {_example(kind)}"
    if _is_model(kind):
        return f"keys ({', '.join(kind.model_fields)})"
    return WORDS.get(kind, "any value")


def _example(kind: Any) -> str:
    """Show the form of a value: `{NAME: {model: …}}`."""
    kind = _alternatives(kind)[0]
    if get_origin(kind) is dict:
        return f"{{NAME: {_example(get_args(kind)[1])}}}"
    if _is_model(kind):
        return f"{{{', '.join(f'{name}: …' for name, field in kind.model_fields.items() if field.is_required())}}}"
    return "…"


def _several(kind: Any) -> str:
    """Describe the entries of a list."""
    return words_of(kind).replace("a number", "numbers").replace("a whole number", "whole numbers")


def _joined(parts: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")


def _locate(error: ErrorDetails, kind: Any, value: Any) -> Place:
    """Find what the user wrote of an error's location, by following the types along it."""
    parts: list[int | str] = []
    owner, likely, whole = kind, True, kind
    for part in error["loc"]:
        alternatives, whole = _alternatives(kind), kind
        if len(alternatives) > 1:
            names = {_name(each): each for each in alternatives}
            likeliest = max(alternatives, key=lambda each: _likeness(value, each))
            likely = likely and part == _name(likeliest)
            kind = names.get(str(part), likeliest)
        else:
            owner = alternatives[0]
            parts.append(part)
            kind, value = _inner(owner, part), _value_at(value, part)
            whole = kind
    return Place(error, parts, owner, whole, likely)


def _alternatives(kind: Any) -> list[Any]:
    """The types that a value may have; several only where pydantic names one in a location (so not for `X | None`)."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) not in (Union, UnionType):
        return [kind]
    found = [each for each in get_args(kind) if each is not NoneType]
    return found if len(found) > 1 else _alternatives(found[0])


def _name(kind: Any) -> str:
    """The name of an alternative in a location, validators included.

    It is read from the title of a list of it: for a model alone pydantic gives the name of the class.
    """
    return TypeAdapter(list[kind]).validator.title.removeprefix("list[").removesuffix("]")


def _inner(kind: Any, part: int | str) -> Any:
    """The type of the value at a key or an index; Any where it is unknown."""
    if _is_model(kind):
        return kind.model_fields[str(part)].annotation if part in kind.model_fields else Any
    return get_args(kind)[-1] if get_origin(kind) in (dict, list) else Any


def _value_at(value: Any, part: int | str) -> Any:
    """The user's value at a key or an index; None where a validator changed the structure (one value into a list)."""
    try:
        return value[part]
    except (TypeError, KeyError, IndexError):
        return None


def _likeness(value: Any, kind: Any) -> tuple[int, int, int]:
    """How much a value resembles a type: its form, and how many of its keys the model has, exactly and nearly."""
    alternatives = _alternatives(kind)
    if len(alternatives) > 1:
        return max(_likeness(value, each) for each in alternatives)
    kind = alternatives[0]
    if not _is_model(kind):
        return int(type(value) is (get_origin(kind) or kind)), 0, 0
    if not isinstance(value, dict):
        return 0, 0, 0
    known = list(kind.model_fields)
    return 1, len(value.keys() & known), sum(bool(get_close_matches(str(key), known, n=1)) for key in value)


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
