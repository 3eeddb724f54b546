"""Validation errors of pydantic as one sentence: the key's path, what is wrong, the value, the way out.

The location of an error mixes the user's keys with pydantic's names for the alternatives of a union. Following the
types along the location separates the two, and leads to the model whose keys are allowed there.
"""

from __future__ import annotations

from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.core.errors import hint

KEY = "[key]"
"""What pydantic appends to a location where the key of a mapping is itself invalid."""


def explain(error: ValidationError, model: type[BaseModel], data: dict[Any, Any]) -> str:
    """Describe what is wrong with a file in one sentence, by the error that helps most.

    Args:
        model: the model that refused the file.
        data: the content of the file.
    """
    errors = error.errors(include_url=False)
    first, parts, owner = _locate(errors, model, data)
    kind, value, message = first["type"], first["input"], first["msg"]
    if parts[-1:] == [KEY] and kind != "extra_forbidden":
        parts = parts[:-1]
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")
    if kind == "extra_forbidden":
        assert _is_model(owner), "nothing else forbids keys"
        known = list(owner.model_fields)
        return f"{where}: unknown key{hint(str(parts[-1]), known)} (known here: {', '.join(known)})"
    if kind == "missing":
        return f"{where}: this key is missing; add it"
    if kind == "value_error":
        return f"{where}: {first['ctx']['error']}".removeprefix(": ")
    more = len(errors) - 1
    return f"{where}: {message[0].lower()}{message[1:]}, but got {value!r}" + (f" (and {more} more)" if more else "")


def _locate(errors: list[ErrorDetails], kind: Any, value: Any) -> tuple[ErrorDetails, list[int | str], Any]:
    """Find the error to report: the first; of a union, the first about the alternative that the value resembles most.

    Returns:
        The error, the part of its location that the user wrote, and the type that the last key belongs to.
    """
    parts: list[int | str] = []
    owner, depth = kind, 0
    while depth < len(errors[0]["loc"]):
        place, alternatives = errors[0]["loc"][: depth + 1], _alternatives(kind)
        if len(alternatives) > 1:
            kind = max(alternatives, key=lambda each: _likeness(value, each))
            place = (*place[:-1], _name(kind))
        else:
            owner, part = alternatives[0], place[-1]
            parts.append(part)
            kind, value = _inner(owner, part), _value_at(value, part)
        depth += 1
        errors = [each for each in errors if each["loc"][:depth] == place] or errors
    return errors[0], parts, owner


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
