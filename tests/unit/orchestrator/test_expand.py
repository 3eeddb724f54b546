"""Grids become recipes; the same weights become one; mergekit takes every file that is written."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.sweep import SweepConfig
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Recipe, Source

PARENTS = {name: {"model": f"/models/{name}"} for name in ("clinical", "instruct", "base")}

SOURCES = {name: Source(f"digest-{name}", name, f"/models/{name}") for name in (*PARENTS, "friend")}


def recipes(*grids: dict[str, Any], parents: int = 2, **top: Any) -> list[Recipe]:
    config = SweepConfig.model_validate(
        {
            "parents": dict(list(PARENTS.items())[:parents]),
            "recipes": list(grids),
            "objectives": {"clinical": {"tasks": ["x"]}},
            **top,
        }
    )
    return expand(config, SOURCES)


TENTHS = {"start": 0, "stop": 1, "step": 0.1}


def test_the_papers_two_grids_are_twenty_recipes() -> None:
    found = recipes({"method": "linear", "alpha": TENTHS}, {"method": "slerp", "t": TENTHS})
    assert len(found) == 20
    assert [point.label for point in found[0].points] == ["parent name=clinical", "linear alpha=0.0", "slerp t=0.0"]
    assert [point.label for point in found[1].points] == ["parent name=instruct", "linear alpha=1.0", "slerp t=1.0"]
    assert sum(len(recipe.points) for recipe in found) == 24


@given(st.lists(st.floats(0, 1).map(lambda x: round(x, 3)), min_size=1, max_size=20))
def test_no_weights_are_evaluated_twice(alphas: list[float]) -> None:
    found = recipes({"method": "linear", "alpha": alphas}, {"method": "linear", "alpha": alphas[:1]})
    assert len({recipe.id for recipe in found}) == len(found) == 2 + len(set(alphas) - {0.0, 1.0})


@given(st.floats(0.001, 0.999))
def test_linear_weights_sum_to_one_and_run_from_the_first_parent(alpha: float) -> None:
    recipe = recipes({"method": "linear", "alpha": [alpha]})[2]
    first, second = (parameters["weight"] for _, parameters in recipe.models)
    assert second == alpha
    assert first + second == pytest.approx(1, abs=1e-9)


def test_with_three_parents_a_point_says_which_two_it_lies_between() -> None:
    pairs = [["clinical", "instruct"], ["clinical", "base"]]
    found = recipes(*({"method": "linear", "alpha": [0.5], "between": pair} for pair in pairs), parents=3)
    assert [r.label for r in found[3:]] == [f"linear between={'/'.join(pair)} alpha=0.5" for pair in pairs]


def test_a_span_meets_a_list() -> None:
    listed = recipes({"method": "linear", "alpha": [0.0, 0.1, 0.2, 0.3]})
    spanned = recipes({"method": "linear", "alpha": {"start": 0, "stop": 0.3, "step": 0.1}})
    assert [recipe.id for recipe in listed] == [recipe.id for recipe in spanned]


def test_any_method_with_gridded_parameters() -> None:
    found = recipes(
        {
            "method": "dare_ties",
            "base_model": "base",
            "models": {
                "clinical": {"weight": {"grid": [0.3, 0.5]}, "density": {"grid": TENTHS}},
                "instruct": {"weight": 0.5, "density": [0.2, 0.8]},
            },
            "parameters": {"normalize": True},
        },
        parents=3,
        seed=7,
    )[3:]
    assert len(found) == 22
    assert found[0].seed == 7
    assert found[0].points[0].method == "dare_ties"
    # A plain list is mergekit's gradient over the layers, not a grid.
    assert all(recipe.models[1][1]["density"] == [0.2, 0.8] for recipe in found)
    assert "from seed 7" in found[0].to_yaml()


def test_candidates_take_part_as_they_are() -> None:
    found = recipes(candidates={"friend": {"model": "/models/friend"}})
    assert [recipe.points[0].method for recipe in found] == ["parent", "parent", "candidate"]
    assert found[2].method == "passthrough"


def test_mergekit_accepts_every_yaml() -> None:
    from mergekit.config import MergeConfiguration

    found = recipes(
        {"method": "linear", "alpha": [0.25], "between": ["clinical", "instruct"]},
        {"method": "slerp", "t": [0.25], "between": ["clinical", "instruct"]},
        {"method": "ties", "base_model": "base", "models": {"clinical": {"weight": 1.0, "density": 0.5}}},
        parents=3,
    )
    for recipe in found:
        parsed = MergeConfiguration.model_validate(yaml.safe_load(recipe.to_yaml()))
        assert parsed.merge_method == recipe.method


def test_mergekits_forms_are_recipes_with_readable_labels() -> None:
    filters = [{"filter": "self_attn", "value": [0, 1]}, {"filter": "mlp", "value": 0.3}, {"value": 0.5}]
    short = recipes({"method": "slerp", "t": [[0, 1], 0.5]}, {"method": "slerp", "t": filters})[2:]
    assert [recipe.label for recipe in short] == [
        "slerp t=[0, 1]",
        "slerp t=0.5",
        "slerp t=self_attn [0, 1], mlp 0.3, else 0.5",
    ]
    general = {"method": "slerp", "base_model": "clinical", "models": {"clinical": {}, "instruct": {}}}
    (same,) = recipes({**general, "parameters": {"t": filters}})[2:]
    assert (same.id, same.label) == (short[2].id, short[2].label)
    (linear,) = recipes({"method": "linear", "alpha": filters})[2:]
    assert linear.models[0][1]["weight"] == [
        {"filter": "self_attn", "value": [1, 0]},
        {"filter": "mlp", "value": 0.7},
        {"value": 0.5},
    ]
    assert len(recipes({"method": "slerp", "t": filters}, {**general, "parameters": {"t": filters}})) == 3
