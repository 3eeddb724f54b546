"""Checking one merge before anything is read: its models, its parameters, and how they go together.

What mergekit would refuse only in the middle of a merge is refused here, and so is what it passes over without a word.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.config.methods import PARAMETERS, MergeMethod
from orchestrator.config.settings import KeyProblem, covers, filters, resolved
from orchestrator.core.errors import hint
from orchestrator.core.text import count, listed

PLACES = 33
"""Depths at which numbers that depend on one another are compared."""
COMBINATIONS = 10_000
"""Combinations of gridded values that are looked at together."""
DENSITY, EPSILON = 1.0, 0.15
"""mergekit's defaults."""
Models = Mapping[str, Mapping[str, Any]]
Values = Callable[[Any], Sequence[Any]]


def check_merge(
    method: MergeMethod,
    base: str | None,
    models: Models,
    whole: Mapping[str, Any],
    known: Sequence[str],
    values: Values,
) -> None:
    """Check a merge of named models.

    Args:
        base: name of the base_model.
        models: name → its parameters, as the file has them.
        whole: parameters of the whole merge.
        known: those that may be set there.
        values: for a value of the file, the values in mergekit's form that it stands for.

    Raises:
        KeyProblem: a parameter is unknown, missing or wrong, or the method does not take these models.
    """
    check_parameters("parameters", method, whole, known, values)
    for name, own in models.items():
        check_parameters(f"models.{name}", method, own, method.each, values)
    _check_number(method, base, models)
    inputs = merged(method, base, models)
    for key in method.required:
        _check_required(method, key, models, whole, inputs, values)
    if {"density", "epsilon"} <= set(method.each):
        for name in inputs:
            _check_margin(method, name, [models.get(name, {}), whole], values)


def check_sum(method: MergeMethod, base: str | None, models: Models, whole: Mapping[str, Any], values: Values) -> None:
    """Check that the weights do not sum to 0 where they count as shares of their sum; `check_merge` found them.

    Raises:
        KeyProblem: they do, in one of the combinations.
    """
    flags = values(whole.get(method.shares_flag, True)) if method.shares_flag else [True]
    if not method.shares or all(flag is False for flag in flags):
        return
    inputs = merged(method, base, models)
    for *own, shared in _combinations([*(models.get(name, {}) for name in inputs), whole], ["weight"], values):
        for tensor, depth in _places([*own, shared]):
            weights = [resolved([each, shared], "weight", tensor, depth) for each in own]
            if abs(sum(weights)) < 1e-12:
                each = listed(f"{name} {weight:g}" for name, weight in zip(inputs, weights, strict=True))
                way = f", or set parameters: {{{method.shares_flag}: false}}" if method.shares_flag else ""
                raise KeyProblem(
                    "models", f"the weights {each} sum to 0, and {method.name} divides by their sum; change one{way}"
                )


def merged(method: MergeMethod, base: str | None, names: Collection[str]) -> list[str]:
    """List the models that are merged: without the base_model, unless the method makes no difference."""
    if method.base == "ignored":
        return list(dict.fromkeys([*names, *([base] if base else [])]))
    return [name for name in names if name != base]


def check_parameters(
    where: str, method: MergeMethod, given: Mapping[str, Any], known: Sequence[str], values: Values
) -> None:
    """Check that the method has the parameters and may have their values, whatever the models.

    Args:
        where: path of the mapping, for messages.
        known: the method's parameters that are allowed there.

    Raises:
        KeyProblem: a parameter is unknown (mergekit would ignore it), or a value is none that it may have.
    """
    for key, value in given.items():
        if key not in known:
            there = "parameters" if key in method.whole else "models.<name>" if key in method.each else None
            has = f"it has: {', '.join(known)}" if known else "it has none here"
            way = f"; it belongs under {there}" if there and there != where else hint(key, known)
            raise KeyProblem(f"{where}.{key}", f"the method has no such parameter{way} ({has})")
        try:
            for setting in values(value):
                PARAMETERS[key].check(setting)
        except ValueError as error:
            raise KeyProblem(f"{where}.{key}", error) from None


def _check_number(method: MergeMethod, base: str | None, names: Collection[str]) -> None:
    aware, found = method.base != "ignored", merged(method, base, names)
    if method.least <= len(found) <= (method.most or math.inf):
        return
    limit = "exactly" if method.least == method.most else "at least"
    wanted = f"{limit} {count(method.least, 'model')}{' besides base_model' if aware else ''}"
    got = f"{len(found)} ({listed(found)})" if found else f"only base_model ({base})" if names else "none"
    also = " (base_model is merged too)" if not aware and base and base not in names else ""
    raise KeyProblem("models", f"{method.name} takes {wanted}, but got {got}{also}; add or remove models")


def _check_required(
    method: MergeMethod, key: str, models: Models, whole: Mapping[str, Any], inputs: list[str], values: Values
) -> None:
    """Check that every tensor of every model gets a value of a parameter without a default."""

    def given(settings: Mapping[str, Any]) -> bool:
        return key in settings and all(covers(setting) for setting in values(settings[key]))

    if given(whole):
        return
    per_model = key in method.each
    places = {f"models.{name}": models.get(name, {}) for name in inputs} if per_model else {"parameters": whole}
    for where, settings in places.items():
        if key in settings and not given(settings):
            raise KeyProblem(
                f"{where}.{key}",
                "tensors that no filter fits get no value; end the list with {value: …}, without a filter",
            )
        if key not in settings:
            everywhere = f", or under parameters for all models: {{{key}: …}}" if per_model else ""
            raise KeyProblem(where, f"{method.name} needs a {key}; give it here{everywhere}")


def _check_margin(method: MergeMethod, name: str, scopes: list[Mapping[str, Any]], values: Values) -> None:
    """Check that DELLA's probabilities, density plus and minus epsilon, lie between 0 and 1 where it drops anything."""
    for found in _combinations(scopes, ["density", "epsilon"], values):
        for tensor, depth in _places(found):
            density = resolved(found, "density", tensor, depth, DENSITY)
            epsilon = resolved(found, "epsilon", tensor, depth, EPSILON)
            if 0 < density < 1 and not (density - epsilon > 0 and density + epsilon < 1):
                raise KeyProblem(
                    f"models.{name}",
                    f"{method.name} keeps weights with probabilities from density - epsilon to density + epsilon, "
                    f"which lie between 0 and 1, but got density {density:g} and epsilon {epsilon:g}; lower epsilon",
                )


def _combinations(
    scopes: Sequence[Mapping[str, Any]], keys: Sequence[str], values: Values
) -> Iterator[list[dict[str, Any]]]:
    """Yield the scopes with only these keys and one of the values of each, for every combination of values."""
    places = [(index, key) for index, scope in enumerate(scopes) for key in keys if key in scope]
    choices = (values(scopes[index][key]) for index, key in places)
    for chosen in itertools.islice(itertools.product(*choices), COMBINATIONS):
        found: list[dict[str, Any]] = [{} for _ in scopes]
        for (index, key), value in zip(places, chosen, strict=True):
            found[index][key] = value
        yield found


def _places(scopes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    """Yield tensor names and depths that between them meet every filter, and every gradient at many depths."""
    settings = [setting for scope in scopes for setting in scope.values()]
    names = dict.fromkeys(["", *(name for setting in settings for name in filters(setting))])
    graded = any(isinstance(setting, list | dict) for setting in settings)
    depths = [place / (PLACES - 1) for place in range(PLACES)] if graded else [0.0]
    return itertools.product(names, depths)
