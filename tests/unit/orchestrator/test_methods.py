"""A merge method is one entry; what follows from it are the ids of recipes that were stored long ago."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from orchestrator.config.methods import METHODS
from orchestrator.config.search import Space
from orchestrator.config.sweep import SweepConfig
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Recipe, Source
from tasks.merging.elementwise import FORMS
from tune.space import SearchSpace

NAMES = ("clinical", "instruct", "base")
SOURCES = {name: Source(f"digest-{name}", name, f"/models/{name}") for name in NAMES}
PAIR = ["clinical", "instruct"]
TIES = {"clinical": {"weight": 1.0, "density": 0.5}, "instruct": {"weight": 0.5}}
SLERP = {"method": "slerp", "base_model": "clinical", "models": {"clinical": {}, "instruct": {}}}
NUSLERP = {"clinical": {"weight": 0.7}, "instruct": {"weight": {"grid": [0.3]}}}
GRIDS: dict[str, dict[str, Any]] = {
    "6e90b5aa00d5e93324c6": {"method": "linear", "alpha": [0.0], "between": PAIR},
    "15d173705ddb9fffecc2": {"method": "slerp", "t": [1.0], "between": PAIR},
    "1e88629815ef3429b8fe": {"method": "linear", "alpha": [0.3], "between": PAIR},
    "5c944977d3a3798ac7de": {"method": "linear", "alpha": [0.3], "between": PAIR, "parameters": {"normalize": False}},
    "095346d14c678803a6d4": {"method": "slerp", "t": [0.3], "between": PAIR},
    "66c58c924819f77f0703": {**SLERP, "parameters": {"t": [0.2, 0.8]}},
    "8d6ae62a7f7099fe0997": {"method": "nuslerp", "models": NUSLERP},
    "66c283738118f5d4a046": {"method": "ties", "base_model": "base", "models": TIES, "parameters": {"lambda": 0.9}},
    "43ed8be5b02313208d04": {
        "method": "dare_ties",
        "base_model": "base",
        "models": {"clinical": {"weight": 1.0, "density": 0.5}},
    },
}
"""Recipe id as version 0.1.0 made it → the entry of `recipes` that it comes from."""


def make_config(**more: Any) -> SweepConfig:
    parents = {name: {"model": f"/models/{name}"} for name in NAMES}
    return SweepConfig.model_validate(
        {"parents": parents, "objectives": {"c": {"tasks": ["x"], "split": "search"}}, "seed": 7, **more}
    )


def merges(grid: dict[str, Any]) -> list[Recipe]:
    """The recipes that have a point of the grid."""
    recipes = expand(make_config(recipes=[grid]), SOURCES)
    return [recipe for recipe in recipes if any(point.method == grid["method"] for point in recipe.points)]


@pytest.mark.parametrize("recipe_id", GRIDS)
def test_ids_are_those_of_old_results(recipe_id: str) -> None:
    assert [recipe.id for recipe in merges(GRIDS[recipe_id])] == [recipe_id]


def make_space(**entry: Any) -> SearchSpace:
    search = {"space": [entry], "budget": {"candidates": 10}}
    return SearchSpace(make_config(recipes=[GRIDS["1e88629815ef3429b8fe"]], search=search), SOURCES)


def test_ids_of_a_search_are_those_of_old_results() -> None:
    span = {"low": 0, "high": 1}
    linear = make_space(method="linear", alpha=span)
    assert linear.merge({"linear.alpha": 0.3}).id == "1e88629815ef3429b8fe"
    assert linear.merge({"linear.alpha": 1.0}).id == "15d173705ddb9fffecc2"
    depth = make_space(method="slerp", t={**span, "knots": 2})
    assert depth.merge({"slerp.t[0]": 0.3, "slerp.t[1]": 0.3}).id == "095346d14c678803a6d4"
    assert depth.merge({"slerp.t[0]": 0.2, "slerp.t[1]": 0.8}).id == "66c58c924819f77f0703"


def test_the_methods_with_an_elementwise_form_are_those_that_say_so() -> None:
    assert set(FORMS) == {name for name, method in METHODS.items() if method.elementwise}


def test_a_ratio_can_be_read_back() -> None:
    for method in METHODS.values():
        if method.ratio is not None:
            _, second, whole = method.ratio.settings([0.2, {"filter": "mlp", "value": 0.4}])
            assert method.ratio.read(second, whole) == [0.2, {"filter": "mlp", "value": 0.4}]
            assert {*second, *whole} <= set(method.parameters)


def test_other_parameters_are_gridded_beside_a_ratio() -> None:
    grid = {"method": "linear", "alpha": [0.3, 0.6], "between": PAIR, "parameters": {"normalize": {"grid": [True, False]}}}  # fmt: skip
    found = merges(grid)
    assert [recipe.parameters for recipe in found] == [{"normalize": True}, {"normalize": False}] * 2
    assert found[1].label == "linear between=clinical/instruct alpha=0.3 normalize=False"


def test_a_flag_is_no_number_to_search_for() -> None:
    with pytest.raises(ValidationError, match=r"parameters\.normalize: takes true or false"):
        make_space(method="linear", alpha=SPAN, parameters={"normalize": SPAN})


SPAN = {"low": 0, "high": 1}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no such method": ({"method": "slurp", "t": SPAN}, "no merge method 'slurp'; did you mean 'slerp'?"),
    "another's ratio": ({"method": "slerp", "alpha": SPAN}, "alpha belongs to method linear, but the method here is"),
    "ratio and models": ({"method": "slerp", "t": SPAN, "base_model": "base"}, "give either t (with between"),
    "neither": ({"method": "ties"}, "needs models; only alpha (linear) or t (slerp) can do without"),
    "ratio twice": ({"method": "slerp", "t": SPAN, "parameters": {"t": SPAN}}, "parameters.t: the method has no such"),
    "outside [0, 1]": (
        {"method": "ties", "base_model": "base", "models": {"clinical": {"density": {"low": 0.5, "high": 2}}}},
        "lies in [0, 1]",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_space_is_refused_with_a_way_out(case: str) -> None:
    entry, message = WRONG[case]
    with pytest.raises(ValidationError) as caught:
        Space.model_validate(entry)
    assert message in str(caught.value)
