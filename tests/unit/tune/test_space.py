"""A point of the space is a recipe that mergekit takes, and the grid's recipes are points of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.config import MergeConfiguration
from optuna.trial import TrialState

from orchestrator.config.recipes import RecipeGrid
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Source, recipe_from_json, recipe_to_json
from tune.space import SearchSpace
from tune.standings import Standing, read_candidates
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
    recipe = space.merge(params)
    MergeConfiguration.model_validate(recipe.to_mergekit())
    assert space.merge(params).id == recipe.id
    assert space.distributions(params).keys() == params.keys()
    assert (recipe.seed is None) == (recipe.method != "dare_ties")


def test_the_grid_and_its_parents_are_points_of_the_space() -> None:
    space = make_space(SPACES)
    recipes = expand(space.config, dict(space.sources))
    found = {recipe.label: space.params_of_merge(recipe) for recipe in recipes}
    assert {label for label, params in found.items() if params is None} == {"parent name=base"}
    for recipe in recipes:
        params = space.params_of_merge(recipe)
        assert params is None or space.merge(params).id == recipe.id


@pytest.mark.parametrize(
    "entry",
    [
        {"method": "slerp", "base_model": "b", "models": {"a": {}, "b": {}}, "parameters": {"t": 0.4}},
        {"method": "linear", "between": ["a", "b"], "alpha": [0.4], "parameters": {"normalize": False}},
        {"method": "linear", "models": {"a": {"weight": 0.9}, "b": {"weight": 0.4}}},
        {"method": "slerp", "between": ["a", "b"], "t": [[0.2, 0.4]]},
    ],
)
def test_a_merge_of_another_meaning_is_no_point_of_the_space(entry: dict[str, Any]) -> None:
    space = make_space(SPACES)
    config = space.config.model_copy(update={"recipes": [RecipeGrid.model_validate(entry)]})
    assert space.params_of_merge(expand(config, dict(space.sources))[-1]) is None


def test_filters_and_depth() -> None:
    space = make_space(SPACES)
    params = {"method": "linear", "linear.alpha[0]": 0.1, "linear.alpha[1]": 0.2, "linear.alpha[2]": 0.3}
    first, second = space.merge(params).models
    assert first[1] == {"weight": [0.9, 0.8, 0.7]} and second[1] == {"weight": [0.1, 0.2, 0.3]}
    names = [f"slerp.t.{module}[{knot}]" for module in ("attention", "embeddings", "other") for knot in (0, 1)]
    recipe = space.merge({"method": "slerp", **dict(zip(names, (0.1, 0.2, 0.3, 0.3, 0.5, 0.6), strict=True))})
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
        if (params := space.params_of_merge(recipe)) is not None:
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


LINEAR = {"method": "linear", "alpha": {"low": 0, "high": 1}}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ([LINEAR], {"linear.alpha": 0.3}),
        ([LINEAR, SPACES[2]], {"method": "linear", "linear.alpha": 0.3}),
        ([SPACES[0]], {f"linear.alpha[{knot}]": 0.3 for knot in range(3)}),
        ([{**LINEAR, "alpha": {"low": 0.25, "high": 0.35}}], {"linear.alpha": 0.3}),
        ([{**LINEAR, "alpha": {"low": 0.4, "high": 0.6}}], None),
        ([{**LINEAR, "between": ["b", "a"]}], None),
        ([SPACES[2]], None),
        ([SPACES[3]], None),
    ],
)
def test_an_earlier_candidate_is_a_point_of_a_changed_space_or_is_not(
    now: list[dict[str, Any]], expected: dict[str, Any] | None, tmp_path: Path
) -> None:
    before = make_space([LINEAR])
    proposed = before.candidate({"linear.alpha": 0.3})
    Standing(proposed.merge, proposed, 0, RecipeStatus.SCORED, 2).save(tmp_path)
    space = make_space(now)
    (again,), left_out = read_candidates(sorted(tmp_path.iterdir()), space)
    assert not left_out and again.recipe.id == proposed.merge.id and again.recipe.label == "linear alpha=0.3"
    assert again.candidate and space.params_of(again.candidate) == expected
    if expected:
        study = open_study(tmp_path / "study.log", space.config.objectives, choose_sampler(space, 10, 2))
        add_finished(study, space, expected, TrialResult(RecipeStatus.SCORED, (0.5, 0.5)), "tpe")
        assert space.merge(expected).id == proposed.merge.id


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_stored_candidate_is_read_as_it_was_whatever_the_space_is_now(seed: int) -> None:
    space = make_space(SPACES)
    params = space.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask())
    merge = space.merge(params)
    stored = json.loads(json.dumps(recipe_to_json(merge)))
    again = recipe_from_json(stored, space.sources)
    assert again == merge and again is not None and again.points == merge.points
    others = {**space.sources, "a": Source("other weights", "a", "org/a")}
    gone = recipe_from_json(stored, others)
    assert (gone is None) == any(
        source.name == "a" for source in (*[s for s, _ in merge.models], merge.base_model) if source
    )


def test_a_candidate_over_changed_parents_is_proposed_again_or_left_out(tmp_path: Path) -> None:
    before = make_space([LINEAR])
    proposed = before.candidate({"linear.alpha": 0.3})
    Standing(proposed.merge, proposed, 0, RecipeStatus.SCORED, 2).save(tmp_path)
    files, changed = sorted(tmp_path.iterdir()), {"a": Source("other weights", "a", "org/a")}
    for spaces, count in (([LINEAR], 1), ([SPACES[2]], 0)):
        space = make_space(spaces)
        found, left_out = read_candidates(files, replace(space, sources={**space.sources, **changed}))
        assert (len(found), left_out) == (count, 1 - count)
        assert all(each.recipe.models[0][0].digest == "other weights" for each in found)
    note = json.loads(files[0].read_text())
    files[0].write_text(json.dumps({key: value for key, value in note.items() if key not in ("merge", "finetune")}))
    assert read_candidates(files, make_space([LINEAR]))[0][0].recipe.id == proposed.merge.id, (
        "as earlier versions wrote"
    )
    with pytest.raises(UserError, match=r"restore that search\.space"):
        read_candidates(files, make_space([SPACES[2]]))
