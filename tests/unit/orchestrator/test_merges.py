"""What mergekit would refuse in the middle of a merge, or pass over, is refused with the sweep file; the rest is taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from mergekit.merge_methods.base import MISSING, BasePolicy, ParameterScope
from mergekit.merge_methods.registry import registered_methods
from mergekit.parameter_resolver import resolve_parameters
from pydantic import ValidationError

from orchestrator.config.methods import METHODS, PARAMETERS
from orchestrator.config.recipes import RecipeGrid
from orchestrator.config.search import Space
from orchestrator.config.settings import KeyProblem, value_at

SPECS = {method.spec.name: method.spec for method in registered_methods()}
ONLY_OURS = {"linear", "karcher", "multislerp"}
"""Methods that mergekit lets run over one model, which comes out as it went in."""


def entry(method: str, number: int, **changes: Any) -> dict[str, Any]:
    """The smallest entry of a method over so many models besides its base_model."""
    known = METHODS[method]
    whole = {key: 0.5 for key in known.required if key in known.whole}
    each = {key: 0.5 for key in known.required if key in known.each}
    base = {"base_model": "base"} if known.needs_base else {}
    return {
        "method": method,
        **base,
        "models": {f"m{i}": dict(each) for i in range(number)},
        "parameters": whole,
        **changes,
    }


def refused(given: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        RecipeGrid.model_validate(given)
    (error,) = caught.value.errors()
    cause = error["ctx"]["error"]
    return f"{cause.key}: {cause.message}" if isinstance(cause, KeyProblem) else str(cause)


@pytest.mark.parametrize("name", SPECS)
def test_the_table_is_mergekits(name: str) -> None:
    method, spec = METHODS[name], SPECS[name]
    assert list(method.whole) == [parameter.name for parameter in spec.shared_parameters]
    assert list(method.each) == [parameter.name for parameter in spec.input_parameters]
    assert set(method.required) == {parameter.name for parameter in spec.parameters if parameter.required}
    assert method.base == spec.contract.base.value
    for parameter in spec.parameters:
        kind = parameter.value_type
        assert PARAMETERS[parameter.name].kind in (kind, *getattr(kind, "__args__", ())), parameter.name
        # The models that need a value: all of them, or all but the base.
        assert parameter.scope != ParameterScope.INPUT or spec.contract.base == BasePolicy.IGNORED
    defaults = {parameter.name: parameter.default for parameter in spec.parameters if parameter.default is not MISSING}
    assert defaults.get("density", 1.0) == 1.0
    assert name not in ("della", "della_linear") or defaults["epsilon"] == 0.15
    assert method.shares_flag is None or defaults[method.shares_flag] is True


def test_every_method_is_in_the_table() -> None:
    assert set(SPECS) == set(METHODS)


@pytest.mark.parametrize("models", range(5))
@pytest.mark.parametrize("name", SPECS)
def test_the_number_of_models_is_mergekits(name: str, models: int) -> None:
    given = entry(name, models)
    ids = [*given["models"], *(["base"] if "base_model" in given else [])]
    try:
        SPECS[name].contract.validate_ids(ids, given.get("base_model"))
        taken = models >= (2 if name in ONLY_OURS else 1)
    except ValueError:
        taken = False
    if taken:
        RecipeGrid.model_validate(given)
    else:
        assert f"{name} takes " in refused(given)


@pytest.mark.parametrize("name", SPECS)
def test_what_is_required_is_mergekits(name: str) -> None:
    method = METHODS[name]
    given = entry(name, method.least)

    def resolve(given: dict[str, Any]) -> None:
        names = {key: key for key in (*given["models"], *(["base"] if given.get("base_model") else []))}

        def sources(model: str | None) -> list[Mapping[str, Any]]:
            return [*([given["models"].get(model, {})] if model else []), given["parameters"]]

        resolve_parameters(
            SPECS[name], tensor_name="x", inputs=names, sources=sources, base_model=given.get("base_model")
        )

    resolve(RecipeGrid.model_validate(given).model_dump())
    for key in method.required:
        without = {**given, "models": {model: {} for model in given["models"]}, "parameters": {}}
        with pytest.raises(RuntimeError, match=f"Missing required parameter {key}"):
            resolve(without)
        where = "parameters" if key in method.whole else "models.m0"
        assert refused(without).startswith(f"{where}: {name} needs a {key}; give it here")
        resolve(RecipeGrid.model_validate({**without, "parameters": {key: 0.5}}).model_dump())


FILTERS = [{"filter": "mlp", "value": [0.2, 0.4]}, {"value": 0.5}]
TAKEN: dict[str, dict[str, Any]] = {
    "filters": entry("slerp", 1, parameters={"t": FILTERS}),
    "one filter for all": entry("slerp", 1, parameters={"t": {"value": 0.3}}),
    "a star": entry("slerp", 1, parameters={"t": [{"filter": "mlp", "value": 0}, {"filter": "*", "value": 1}]}),
    "filters with a default below": entry("ties", 1, models={"m0": {"weight": FILTERS[:1]}}, parameters={"weight": 1}),
    "density by filter, else mergekit's": entry("ties", 1, models={"m0": {"weight": 1, "density": FILTERS[:1]}}),
    "a grid of gradients": entry("slerp", 1, parameters={"t": {"grid": [[0, 1], [1, 0], FILTERS]}}),
    "t in the short form": {"method": "slerp", "t": FILTERS},
    "t in a grid of both": {"method": "slerp", "t": [0.5, [0, 1], FILTERS]},
    "negative weights": entry("task_arithmetic", 2, models={"m0": {"weight": 1}, "m1": {"weight": -0.5}}),
    "no sum to divide by": entry(
        "linear", 2, parameters={"normalize": False, "weight": 0}, models={"m0": {}, "m1": {}}
    ),
    "della within its margin": entry("della", 1, models={"m0": {"weight": 1, "density": 0.5, "epsilon": 0.4}}),
    "della without dropping": entry("della", 1, models={"m0": {"weight": 1, "density": [1, 1]}}),
    "flags by layer": entry("ties", 1, parameters={"normalize": {"grid": [True, False]}}),
    "a base for nuslerp": entry("nuslerp", 2, base_model="base"),
    "the base among the models": entry("ties", 1, models={"base": {}, "m0": {"weight": 1}}),
}


@pytest.mark.parametrize("case", TAKEN)
def test_mergekits_forms_are_taken(case: str) -> None:
    RecipeGrid.model_validate(TAKEN[case])


def weights(method: str, *values: Any, **changes: Any) -> dict[str, Any]:
    return entry(method, len(values), models={f"m{i}": {"weight": value} for i, value in enumerate(values)}, **changes)


def ties(**parameters: Any) -> dict[str, Any]:
    return entry("ties", 1, models={"m0": {"weight": 1, **parameters}})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a word": (weights("linear", "half", 0.5), "models.m0.weight: takes a number, a gradient over the layers"),
    "a comma": (weights("linear", "0,5", 0.5), "but got '0,5'; write 0.5, without quotes"),
    "a fraction": (weights("linear", 0.5, "1/2"), "models.m1.weight: takes a number"),
    "a quoted number": (weights("linear", "2e-5", 0.5), "but got '2e-5'; write 2e-05, without quotes"),
    "true": (weights("linear", True, 0.5), "models.m0.weight: takes a number"),
    "nothing": (weights("linear", None, 0.5), "models.m0.weight: takes a number"),
    "infinite": (weights("linear", float("inf"), 0.5), "models.m0.weight: takes a finite number, but got inf"),
    "none": (ties(density=float("nan")), "models.m0.density: takes a finite number, but got nan"),
    "too large to be one": (weights("linear", 10**400, 0.5), "models.m0.weight: takes a finite number"),
    "a word in a gradient": (weights("linear", [0, "x"], 0.5), "models.m0.weight: takes a number"),
    "an empty gradient": (weights("linear", [], 0.5), "models.m0.weight: an empty list is no gradient"),
    "lists in a gradient": (ties(density=[[0.1, 0.2]]), "models.m0.density: takes a number"),
    "gradient beyond one": (entry("slerp", 1, parameters={"t": [0, 0.5, 2]}), "parameters.t: this parameter lies in [0, 1], but got 2"),
    "filter beyond one": (entry("slerp", 1, parameters={"t": [{"filter": "mlp", "value": [0, 3]}, {"value": 0}]}), "but got 3"),
    "grid of gradients beyond one": (ties(density={"grid": [[0, 2]]}), "models.m0.density: this parameter lies in [0, 1]"),
    "short form beyond one": ({"method": "slerp", "t": [[0, 2]]}, "this parameter lies in [0, 1], but got 2"),
    "negative density": (ties(density=-0.1), "this parameter lies in [0, 1], but got -0.1"),
    "gamma": (entry("breadcrumbs", 1, models={"m0": {"weight": 1, "gamma": 1.2}}), "models.m0.gamma: this parameter lies in"),
    "negative tolerance": (entry("karcher", 2, parameters={"tol": -1}), "parameters.tol: this parameter is at least 0"),
    "a flag as a number": (entry("ties", 1, parameters={"normalize": 1}), "parameters.normalize: takes true or false"),
    "a flag as text": (entry("ties", 1, parameters={"int8_mask": "true"}), "parameters.int8_mask: takes true or false"),
    "half a step": (entry("karcher", 2, parameters={"max_iter": 2.5}), "parameters.max_iter: takes a whole number"),
    "numbers among filters": (ties(density=[0.5, {"value": 1}]), "a filter is written {filter: mlp, value: 0.3}"),
    "a filter without a value": (ties(density=[{"filter": "mlp"}]), "a filter is written {filter: mlp, value: 0.3}"),
    "a filter that is no text": (ties(density=[{"filter": 3, "value": 1}]), "part of a tensor's name, such as mlp, but got 3"),
    "filters in filters": (ties(density=[{"filter": "mlp", "value": FILTERS}]), "the value of a filter is a number or a list"),
    "never reached": (ties(density=[{"value": 1}, {"filter": "mlp", "value": 0}]), "the entry for mlp is never reached"),
    "hidden by a wider one": (
        ties(density=[{"filter": "mlp", "value": 1}, {"filter": "mlp.up", "value": 0}]),
        "the entry for mlp.up is never reached, as the one for 'mlp' stands before it",
    ),
    "no value for the rest": (entry("slerp", 1, parameters={"t": FILTERS[:1]}), "parameters.t: tensors that no filter fits"),
    "no weight for the rest": (weights("ties", FILTERS[:1]), "models.m0.weight: tensors that no filter fits get no value"),
    "no ratio for the rest": ({"method": "slerp", "t": FILTERS[:1]}, "tensors that no filter fits get no ratio"),
    "a parameter of the models": (entry("ties", 1, models={"m0": {"weight": 1, "lambda": 2}}), "it belongs under parameters"),
    "base only": (entry("ties", 0, models={"base": {"weight": 1}}), "models: ties takes at least 1 model besides base_model, but got only base_model (base)"),
    "slerp of three": (entry("slerp", 2), "models: slerp takes exactly 1 model besides base_model, but got 2 (m0 and m1)"),
    "stock of one": (entry("model_stock", 1), "models: model_stock takes at least 2 models besides base_model, but got 1 (m0)"),
    "a base that is merged too": (weights("linear", 0.5, 0.5, base_model="base"), "models.base: linear needs a weight"),
    "two copies": (entry("passthrough", 1, base_model="base"), "takes exactly 1 model, but got 2 (m0 and base) (base_model is merged too)"),
    "all zero": (weights("linear", 0, 0), "models: the weights m0 0 and m1 0 sum to 0, and linear divides by their sum"),
    "zero together": (weights("multislerp", 0.5, -0.5), "sum to 0, and multislerp divides by their sum"),
    "zero of two": (weights("nuslerp", 0.5, -0.5), "sum to 0, and nuslerp divides by their sum; change one"),
    "zero in a grid": (weights("linear", {"grid": [0, 1]}, {"grid": [0, 1]}), "the weights m0 0 and m1 0 sum to 0"),
    "zero in a layer": (weights("linear", [0, 1], [0, 1]), "the weights m0 0 and m1 0 sum to 0"),
    "zero behind a filter": (weights("linear", FILTERS, [{"filter": "mlp", "value": [-0.2, 0]}, {"value": 1}]), "sum to 0"),
    "della beyond its margin": (
        entry("della", 1, models={"m0": {"weight": 1, "density": 0.9, "epsilon": 0.2}}),
        "models.m0: della keeps weights with probabilities from density - epsilon to density + epsilon",
    ),
    "della's default margin": (entry("della_linear", 1, models={"m0": {"weight": 1, "density": 0.1}}), "got density 0.1 and epsilon 0.15"),
    "della beyond in a layer": (entry("della", 1, models={"m0": {"weight": 1, "density": [0.5, 0.95]}}), "lower epsilon"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_mergekit_would_trip_over_is_refused(case: str) -> None:
    given, message = REFUSED[case]
    assert message in refused(given)


@pytest.mark.parametrize("case", ["a word", "gradient beyond one", "stock of one", "base only", "all zero"])
def test_a_search_space_is_checked_alike(case: str) -> None:
    given, _ = REFUSED[case]
    models = {
        name: {**own, **({"weight": {"low": 0, "high": 1}} if "weight" in own else {})}
        for name, own in given["models"].items()
    }
    if case == "all zero":  # a corner that a search hardly proposes
        Space.model_validate({**given, "models": models})
        return
    with pytest.raises(ValidationError):
        Space.model_validate(given)


@pytest.mark.parametrize("setting", [0.3, [0, 1], [0.1, 0.5, 0.2], FILTERS, FILTERS[:1], {"value": 0.3}])
def test_values_are_resolved_as_mergekit_does(setting: Any) -> None:
    from mergekit.config import ConditionalParameter, evaluate_setting

    def theirs(value: Any) -> Any:
        return (
            ConditionalParameter(**value)
            if isinstance(value, dict)
            else list(map(theirs, value))
            if isinstance(value, list)
            else value
        )

    for tensor in ("model.layers.0.mlp.up_proj.weight", "lm_head.weight"):
        for depth in (0, 0.25, 0.5, 0.7, 1):
            expected = evaluate_setting(tensor, theirs(setting), depth, validate=lambda value: value)
            assert value_at(setting, tensor, depth) == (expected if expected is None else pytest.approx(expected))
