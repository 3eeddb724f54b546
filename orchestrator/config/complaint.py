"""pydantic's complaint about a YAML file, as one sentence: the key's path, what is wrong, the value, the way out.

A complaint's location mixes what the user wrote with pydantic's names for the alternatives of a union. Walking the
types along it tells one from the other, and leads to the model whose keys may stand there.
"""

from __future__ import annotations

from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.core.errors import hint

KEY = "[key]"
"""What pydantic puts behind a mapping's key where the key itself is wrong."""


def explain(error: ValidationError, model: type[BaseModel], data: dict[Any, Any]) -> str:
    """Say what is wrong with a file, by the complaint that helps most.

    Args:
        data: what `model` has refused.
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
    """The first complaint; where alternatives are refused, the first about the one that the user is likeliest to mean.

    Returns:
        The complaint, the part of its location that the user wrote, and the type that holds the last of it.
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
    """What may stand at a place; more than one only where pydantic names which in a location (of `X | None` not)."""
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) not in (Union, UnionType):
        return [kind]
    found = [each for each in get_args(kind) if each is not NoneType]
    return found if len(found) > 1 else _alternatives(found[0])


def _name(kind: Any) -> str:
    """What a location calls an alternative, validators included; asked of a list, for of a model alone pydantic gives
    the class's name."""
    return TypeAdapter(list[kind]).validator.title.removeprefix("list[").removesuffix("]")


def _inner(kind: Any, part: int | str) -> Any:
    """The type of what stands at a key or an index; Any where nothing is known of it."""
    if _is_model(kind):
        return kind.model_fields[str(part)].annotation if part in kind.model_fields else Any
    return get_args(kind)[-1] if get_origin(kind) in (dict, list) else Any


def _value_at(value: Any, part: int | str) -> Any:
    """What the user wrote there; None where a validator made more of it (a list of a single value)."""
    try:
        return value[part]
    except (TypeError, KeyError, IndexError):
        return None


def _likeness(value: Any, kind: Any) -> tuple[int, int, int]:
    """How much a value looks like one of this kind: its form, and of its keys how many a model has, and nearly has."""
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
