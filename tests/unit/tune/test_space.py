"""A point of the space is a recipe that mergekit takes, and the grid's recipes are points of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from optuna.trial import TrialState

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Source
from tune.space import SearchSpace
from tune.study import TrialResult, add_finished, choose_sampler, finish, load_study, open_study

SPACES: list[dict[str, Any]] = [
    {"method": "linear", "alpha": {"low": 0, "high": 1, "knots": 3}},
    {"method": "slerp", "t": {"low": 0, "high": 1, "modules": ["attention", "embeddings"], "knots": 2}},
    {"method": "slerp", "t": {"low": 0.2, "high": 0.8}},
    {
        "method": "dare_ties",
        "base_model": "base",
        "models": {"a": {"weight": {"low": 0, "high": 2}, "density": {"low": 0.1, "high": 1}}, "b": {"weight": 0.5}},
        "parameters": {"lambda": {"low": 0.5, "high": 1.5, "modules": ["mlp", "norms"]}},
    },
]


def make_space(spaces: list[dict[str, Any]], **search: Any) -> SearchSpace:
    names = ("a", "b", "base")
    config = SweepConfig.model_validate(
        {
            "parents": {name: {"model": f"org/{name}"} for name in names},
            "recipes": [
                {"method": "linear", "between": ["a", "b"], "alpha": [0.0, 0.3, 1.0]},
                {"method": "slerp", "between": ["a", "b"], "t": [0.5]},
            ],
            "objectives": {
                "x": {"tasks": ["t"], "split": "search"},
                "y": {"tasks": ["u"], "direction": "minimize", "split": "search"},
            },
            "search": {"space": spaces, "budget": {"candidates": 10}, **search},
        }
    )
    return SearchSpace(config, {name: Source(name, name, f"org/{name}") for name in names})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_every_point_is_a_recipe_that_mergekit_takes(seed: int) -> None:
    space = make_space(SPACES)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    params = space.suggest(study.ask())
    recipe = space.recipe(params)
    MergeConfiguration.model_validate(recipe.to_mergekit())
    assert space.recipe(params).id == recipe.id
    assert space.distributions(params).keys() == params.keys()
    assert (recipe.seed is None) == (recipe.method != "dare_ties")


def test_the_grid_and_its_parents_are_points_of_the_space() -> None:
    space = make_space(SPACES)
    recipes = expand(space.config, dict(space.sources))
    found = {recipe.label: space.params_of(recipe) for recipe in recipes}
    assert {label for label, params in found.items() if params is None} == {"parent name=base"}
    for recipe in recipes:
        params = space.params_of(recipe)
        assert params is None or space.recipe(params).id == recipe.id


def test_filters_and_depth() -> None:
    space = make_space(SPACES)
    params = {"method": "linear", "linear.alpha[0]": 0.1, "linear.alpha[1]": 0.2, "linear.alpha[2]": 0.3}
    first, second = space.recipe(params).models
    assert first[1] == {"weight": [0.9, 0.8, 0.7]} and second[1] == {"weight": [0.1, 0.2, 0.3]}
    names = [f"slerp.t.{module}[{knot}]" for module in ("attention", "embeddings", "other") for knot in (0, 1)]
    recipe = space.recipe({"method": "slerp", **dict(zip(names, (0.1, 0.2, 0.3, 0.3, 0.5, 0.6), strict=True))})
    assert recipe.parameters["t"] == [
        {"filter": "self_attn", "value": [0.1, 0.2]},
        {"filter": "embed_tokens", "value": 0.3},
        {"filter": "lm_head", "value": 0.3},
        {"value": [0.5, 0.6]},
    ]


@pytest.mark.parametrize(
    ("spaces", "search", "name"),
    [
        (SPACES, {}, "tpe"),
        (SPACES[:1], {}, "gp"),
        (SPACES[:1], {"sampler": "nsga2"}, "nsga2"),
        ([{"method": "slerp", "t": {"low": 0, "high": 1, "knots": 16, "modules": ["mlp"]}}], {}, "tpe"),
    ],
)
def test_the_sampler_fits_the_space_and_says_why(spaces: list[dict[str, Any]], search: Any, name: str) -> None:
    choice = choose_sampler(make_space(spaces, **search), 50, 2)
    assert choice.name == name and choice.why
    assert choose_sampler(make_space(SPACES[:1]), 5000, 4).name == "nsga3"


@pytest.mark.parametrize("spaces", [SPACES, SPACES[:1]])
def test_the_study_learns_from_what_was_there_and_can_be_looked_at(
    spaces: list[dict[str, Any]], tmp_path: Path
) -> None:
    space = make_space(spaces)
    choice = choose_sampler(space, 50, 2)
    study = open_study(tmp_path / "study.log", space.config.objectives, choice)
    for recipe in expand(space.config, dict(space.sources)):
        if (params := space.params_of(recipe)) is not None:
            result = TrialResult(RecipeStatus.SCORED, (0.5, 0.5), {"floor": -1.0})
            add_finished(study, space, params, result, choice.name)
    with_values = (RecipeStatus.SCORED, RecipeStatus.STOPPED_EARLY)
    for status in (*with_values, RecipeStatus.INVALID, RecipeStatus.FAILED):
        trial = study.ask()
        space.suggest(trial)
        values = (0.1, 0.2) if status in with_values else ()
        finish(study, trial, TrialResult(status, values, {"floor": 1.0}), choice.name)
    trials = load_study(tmp_path / "study.log").trials
    cannot_be = TrialState.PRUNED if choice.name == "tpe" else TrialState.FAIL
    states = [TrialState.COMPLETE] * 2 + [cannot_be, TrialState.FAIL]
    assert [trial.state for trial in trials[-4:]] == states
    assert trials[-2].constraints["infeasible"] > 0
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert all(trial.values == [0.5, 0.5] for trial in trials[:-4])
