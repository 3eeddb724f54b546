"""A recipe pasted from a mergekit file is the recipe that the file means, or is refused with the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.load import load_config
from orchestrator.config.recipes import RecipeGrid
from orchestrator.core.errors import UserError

PARENTS = {
    "base": {"model": "org/base", "revision": "v1"},
    "clinical": {"model": "./clinical"},
    "instruct": {"model": "org/instruct", "lora": "./adapter"},
}
EACH = {"weight": 0.5, "density": 0.4}
FILTERS = [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"value": 0.5}]
Load = Callable[[dict[str, Any]], RecipeGrid]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(entry: dict[str, Any]) -> RecipeGrid:
        file = tmp_path / "sweep.yaml"
        sweep = {"parents": PARENTS, "recipes": [entry], "objectives": {"c": {"tasks": ["x"]}}}
        file.write_text(yaml.safe_dump(sweep))
        return load_config(file).recipes[0]

    return load


def source(model: str, layers: list[int], **parameters: Any) -> dict[str, Any]:
    return {"model": model, "layer_range": layers, **({"parameters": parameters} if parameters else {})}


def slerp(slices: Any, **more: Any) -> dict[str, Any]:
    return {"merge_method": "slerp", "base_model": "clinical", "slices": slices, "parameters": {"t": 0.5}, **more}


OURS = {"method": "ties", "base_model": "base", "models": {"clinical": EACH, "instruct": EACH}}
SLERP = {"method": "slerp", "base_model": "clinical", "models": {"clinical": {}, "base": {}}}
LISTED = [{"model": "clinical", "parameters": EACH}, {"model": "instruct", "parameters": EACH}]
PAIR = [source("./clinical", [0, 4]), source("org/base", [0, 4])]
PASTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "merge_method": ({"merge_method": "ties", **{k: v for k, v in OURS.items() if k != "method"}}, OURS),
    "models as a list": ({**OURS, "models": LISTED}, OURS),
    "models without parameters": (
        {**OURS, "models": ["clinical", {"model": "instruct", "parameters": None}], "parameters": {"weight": 1}},
        {**OURS, "models": {"clinical": {}, "instruct": {}}, "parameters": {"weight": 1}},
    ),
    "models by location": (
        {
            "merge_method": "ties",
            "base_model": "org/base@v1",
            "models": [
                {"model": "clinical/../clinical", "parameters": EACH},
                {"model": "org/instruct+adapter", "parameters": EACH},
            ],
            "parameters": None,
            "dtype": "bfloat16",
            "out_dtype": "bfloat16",
            "tokenizer_source": None,
        },
        OURS,
    ),
    "a location without its revision": ({**OURS, "base_model": "org/base"}, OURS),
    "a pair by location": (
        {"method": "slerp", "t": 0.3, "between": ["./clinical", "org/base"]},
        {"method": "slerp", "t": [0.3], "between": ["clinical", "base"]},
    ),
    "keys by location": ({**OURS, "models": {"./clinical": EACH, "instruct": EACH}}, OURS),
    "parameters below parameters": ({**OURS, "models": {name: {"parameters": EACH} for name in OURS["models"]}}, OURS),
    "models without values": (
        {**SLERP, "models": {"clinical": None, "base": None}, "parameters": {"t": 0.5}},
        {**SLERP, "parameters": {"t": 0.5}},
    ),
    "slices of whole models": (slerp([{"sources": PAIR}]), {**SLERP, "layers": 4, "parameters": {"t": 0.5}}),
    "a slice with a base and parameters": (
        slerp([{"sources": PAIR, "base_model": "org/base", "parameters": {"t": FILTERS}}]),
        {**SLERP, "base_model": "base", "layers": 4, "parameters": {"t": FILTERS}},
    ),
    "a slice's filters before the file's": (
        slerp([{"sources": PAIR, "parameters": {"t": FILTERS[:1]}}]),
        {**SLERP, "layers": 4, "parameters": {"t": [FILTERS[0], {"value": 0.5}]}},
    ),
}


@pytest.mark.parametrize("case", PASTED)
def test_a_pasted_recipe_is_ours(case: str, load: Load) -> None:
    pasted, ours = PASTED[case]
    assert load(pasted) == RecipeGrid.model_validate(ours)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "both names": ({**OURS, "merge_method": "ties"}, "recipes[0].merge_method: method is given too"),
    "a model twice": (
        {**OURS, "models": [*LISTED, {"model": "./clinical"}]},
        "recipes[0].models[2].model: 'clinical' is named twice",
    ),
    "no parent by that location": (
        {**OURS, "models": [{"model": "org/other@main+org/lora"}]},
        "recipes[0].models[0].model: 'org/other@main+org/lora' is no parent of this sweep; add it under parents, such as "
        "NAME: {model: org/other, revision: main, lora: org/lora}",
    ),
    "the model without its adapter": ({**OURS, "models": ["org/instruct"]}, "'org/instruct' is no parent of this sweep"),
    "no parent by that name": ({**OURS, "models": {"clinic": EACH}}, "names 'clinic', which is not in parents"),
    "no model": ({**OURS, "models": [{"parameters": EACH}]}, "recipes[0].models[0]: takes {model: …, parameters: {…}}"),
    "a model in pieces": ({**OURS, "models": [{"model": {"model": "x"}}]}, "models[0].model: takes the name of a parent"),
    "another dtype": ({**OURS, "dtype": "float16"}, "recipes[0].dtype: all recipes of a sweep have one dtype, which is"),
    "another out_dtype": ({**OURS, "out_dtype": "float16"}, "recipes[0].out_dtype: all recipes of a sweep"),
    "a tokenizer of its own": ({**OURS, "tokenizer_source": "union"}, "recipes[0].tokenizer_source: one tokenizer serves all recipes of a sweep; write tokenizer_source: union at the top"),
    "the same in the newer form": ({**OURS, "tokenizer": {"source": "org/base"}}, "recipes[0].tokenizer: one tokenizer serves"),
    "a template of its own": ({**OURS, "chat_template": "auto"}, "recipes[0].chat_template: one chat template"),
    "some layers": (slerp([{"sources": [source("clinical", [0, 2]), source("base", [2, 4])]}]), "merges whole models"),
    "from the second layer on": (slerp([{"sources": [source("clinical", [1, 4])]}]), "recipes[0].slices: a recipe merges"),
    "a frankenmerge": (slerp([{"sources": [PAIR[0]]}, {"sources": [PAIR[1]]}]), "name the result under `candidates:`"),
    "slices of another form": (slerp({"sources": PAIR}), "recipes[0].slices: a recipe merges whole models"),
    "an unknown key in a slice": (slerp([{"sources": PAIR, "residual_weight": 1}]), "slices[0].residual_weight: unknown key"),
    "parameters that are none": (slerp([{"sources": PAIR, "parameters": [0.5]}]), "recipes[0].slices: parameters are names with"),
    "slices and models": (slerp([{"sources": PAIR}], models=LISTED), "recipes[0].slices: models is given too"),
    "modules": ({"method": "slerp", "modules": {}}, "recipes[0].modules: a recipe merges whole models"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_means_nothing_in_a_sweep_is_refused(case: str, load: Load) -> None:
    entry, message = WRONG[case]
    with pytest.raises(UserError) as caught:
        load(entry)
    assert message in str(caught.value)


TOP: dict[str, tuple[dict[str, Any], str]] = {
    "a mergekit file alone": ({"merge_method": "ties", "models": LISTED}, "merge_method: belongs to a recipe; make the"),
    "another tokenizer below": ({"tokenizer_source": "base", "recipes": [{**SLERP, "tokenizer_source": "union"}]}, "write tokenizer_source: union at the top"),
    "one model under two names": (
        {"parents": {"a": {"model": "x"}, "b": {"model": "x"}}, "recipes": [{"method": "linear", "alpha": 0.5}]},
        "recipes[0] merges a and b, which are the same model (x)",
    ),
    "out_dtype": ({"out_dtype": "float16"}, "out_dtype: the weights of all recipes are written in the sweep's dtype"),
    "chat_template": ({"chat_template": "auto"}, "chat_template: one chat template serves all recipes"),
    "a recipe that is none": ({"recipes": ["linear"]}, "recipes[0]: takes keys (method, alpha, t, "),
    "one recipe, not a list": ({"recipes": {"method": "linear"}}, "recipes: takes a list of keys (method, alpha"),
    "parents as a list": ({"parents": ["a", "b"]}, "parents: takes names with values, such as {NAME: {model: …}}, but got"),
    "a parent as a name": ({"parents": {"a": "org/a", "b": "org/b"}}, "but got 'org/a'; write {model: org/a}"),
    "path for model": ({"parents": {"a": {"path": "x"}, "b": {"model": "y"}}}, "parents.a.path: unknown key; did you mean 'model', which is missing?"),
    "task for tasks": ({"objectives": {"c": {"task": "x"}}}, "objectives.c.task: unknown key; did you mean 'tasks'?"),
    "a revision that looks like a number": ({"parents": {"a": {"model": "x", "revision": 1234567}, "b": {"model": "y"}}}, "parents.a.revision: takes text, but got 1234567; quote it: '1234567'"),
    "a list where text is wanted": ({"tokenizer": ["a"]}, "tokenizer: takes text, but got ['a']"),
    "nothing": ({"objectives": {"c": None}}, "objectives.c: has no value; write keys (tasks, "),
    "yes in quotes": ({"checkpoints": {"keep": "yes"}}, "checkpoints.keep: takes true or false, but got 'yes'"),
    "a number in quotes": ({"seed": "3"}, "seed: takes a whole number, but got '3'; write 3, without quotes"),
    "a whole number with an exponent": ({"seed": 1e3}, "seed: takes a whole number, but got 1000.0; write 1000"),
    "a float for a name": ({"parents": {"a": {"model": "x", "revision": 1e5}, "b": {"model": "y"}}}, "takes text, but got 100000.0; put what is written there in quotes"),
    "a decimal comma in braces": ({"recipes": [{"method": "slerp", "t": 0, 5: None}]}, "recipes[0]: 5 is no key; quote it"),
    "one parent": ({"parents": {"a": {"model": "x"}}}, "parents: takes at least 2 entries, but got {'a'"),
    "no name for a dtype": ({"dtype": "bf16"}, "dtype: takes 'float32', 'bfloat16' or 'float16', but got 'bf16'; did you mean 'bfloat16'?"),
    "a number for parameters": ({"recipes": [{**OURS, "models": {"a": 0.5}}]}, "models.a: takes names with values, such as {NAME: …}, but got 0.5"),
    "a method in capitals": ({"recipes": [{**SLERP, "method": "SLERP"}]}, "no merge method 'SLERP'; did you mean 'slerp'?"),
    "half a seed": ({"seed": 0.5}, "seed: takes a whole number, but got 0.5"),
    "a task for a list": ({"objectives": {"c": {"tasks": "x"}}}, "objectives.c.tasks: takes a list of text or keys (task"),
    "a number for a name": ({"parents": {1: {"model": "x"}, 2: {"model": "y"}}}, "parents: 1 is no key; quote it if it is a name"),
}  # fmt: skip


def test_a_recipe_may_repeat_what_the_top_of_the_file_says(tmp_path: Path) -> None:
    top = {"dtype": "float32", "tokenizer_source": "base"}
    entry = {**SLERP, "parameters": {"t": 0.5}, "dtype": "float32", "tokenizer_source": "org/base"}
    sweep = {"parents": PARENTS, "recipes": [entry], "objectives": {"c": {"tasks": ["x"]}}, **top}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    assert load_config(tmp_path / "sweep.yaml").tokenizer_source == "base"


@pytest.mark.parametrize("case", TOP)
def test_a_wrong_key_or_type_is_answered_in_words(case: str, tmp_path: Path) -> None:
    changes, message = TOP[case]
    sweep = {"parents": {name: {"model": name} for name in "ab"}, "objectives": {"c": {"tasks": ["x"]}}, **changes}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "sweep.yaml")
    assert message in str(caught.value)
    assert "valid " not in str(caught.value)
