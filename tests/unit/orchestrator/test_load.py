"""Sweep files are read, and a wrong one is refused before anything starts: exit code 2, one message with the key, the
value and the way out, and no traceback."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.load import load_config, load_published
from orchestrator.core.errors import UserError
from tests.helpers.commands import refused
from tests.helpers.paths import EXAMPLES

PUBLISHED = EXAMPLES / "paper_figures.yaml"


@pytest.mark.parametrize("file", sorted({*EXAMPLES.glob("*.yaml")} - {PUBLISHED}), ids=lambda file: file.name)
def test_every_example_is_a_sweep(file: Path) -> None:
    try:
        load_config(file)
    except UserError as error:
        # The example's data lies outside the project; that it is missing is all that may be wrong.
        assert "data_root: the folder" in str(error)


def test_a_sweep_file_is_resolved_against_its_own_folder(sweep: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    config = load_config(sweep(parents={"a": {"model": "mine"}, "b": {"model": "org/name"}}))
    assert config.parents["a"].model == str(tmp_path / "mine")
    assert config.parents["b"].model == "org/name"


@pytest.mark.parametrize("name", ["a*b", "[2]", "what?"])
def test_a_data_root_is_no_pattern(name: str, sweep: Callable[..., Path], tmp_path: Path) -> None:
    """datasets would read the data sets of other folders, too."""
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"data_root: datasets takes .* in .*{re.escape(name)} for a pattern; rename"):
        load_config(sweep(data_root=name))


def test_the_papers_sweep_is_both_phases_and_its_figures_have_its_names() -> None:
    config, published = load_config(EXAMPLES / "paper.yaml"), load_published(PUBLISHED)
    assert [len(grid.alpha or grid.t or []) for grid in config.recipes] == [11, 11]
    front = {name: (each.tasks, each.apply_chat_template) for name, each in config.objectives.items() if each.front}
    assert front == {"medical": (["medical"], False), "instruction": (["instruction"], False)}
    assert config.finetune is not None and config.generation is not None
    assert {task for each in config.finetune.tasks.values() for task in each.tasks} == set(config.generation.data)
    measured = {*config.objectives, *config.finetune.tasks}
    models = {*config.parents, "baseline", *(grid.method for grid in config.recipes), "slerp t=0.4", "slerp t=0.7"}
    assert set(published.names.values()) == {*measured - {"instruction_chat"}, *models}
    table = published.finetuned["Table 2"]
    assert {tuple(tasks) for tasks in table.values()} == {tuple(next(iter(table.values())))} and len(table) == 5
    every = {name for models in published.finetuned.values() for tasks in models.values() for name in tasks}
    assert {published.names[name] for name in every} == set(config.finetune.tasks)


LINEAR = {"method": "linear", "alpha": [0.5]}


def objective(**changes: Any) -> dict[str, Any]:
    return {"objectives": {"clinical": {"tasks": ["demo_formulary"], **changes}}}


def grid(**keys: Any) -> dict[str, Any]:
    return {"recipes": [keys]}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown top-level key": ({"recipe": []}, "recipe: unknown key; did you mean 'recipes'?"),
    "unknown nested key": (
        {"workers": {"engine": {"max_model_length": 512}}},
        "workers.engine.max_model_length: unknown key; did you mean 'max_model_len'?",
    ),
    "unknown key in a recipe": (grid(method="linear", alfa=[0.5]), "recipes[0].alfa: unknown key; did you mean 'alpha'?"),
    "missing key": ({"objectives": None}, "objectives: this key is missing; add it"),
    "wrong type": ({"seed": "zero"}, "seed: takes a whole number, but got 'zero'"),
    "number as text": (grid(method="linear", alpha=["0.5"]), "recipes[0].alpha: takes a number, a gradient over the layers"),
    "negative limit": (objective(limit=-1), "objectives.clinical.limit: input should be greater than or equal to 1, but got -1"),
    "unknown dtype": ({"dtype": "fp8"}, "dtype: takes 'float32', 'bfloat16' or 'float16', but got 'fp8'"),
    "ratio above one": (grid(method="linear", alpha=[0.5, 1.2]), "recipes[0].alpha: a mixing ratio lies in [0, 1], but got 1.2"),
    "span outside": (
        grid(method="slerp", t={"start": -0.1, "stop": 1, "step": 0.1}),
        "recipes[0].t: a mixing ratio lies in [0, 1], but got -0.1",
    ),
    "span backwards": (
        grid(method="slerp", t={"start": 1, "stop": 0, "step": 0.1}),
        "recipes[0].t: `step > 0` and `start <= stop` must be true, but got",
    ),
    "span without step": (grid(method="slerp", t={"start": 0, "stop": 1}), "a span has the keys start, stop and step"),
    "empty grid": (grid(method="linear", alpha=[]), "recipes[0].alpha: the grid is empty"),
    "density outside": (
        grid(method="ties", base_model="a", models={"b": {"weight": 1, "density": {"grid": [0.5, 1.5]}}}),
        "recipes[0].models.b.density: this parameter lies in [0, 1], but got 1.5",
    ),
    "unknown method": (
        grid(method="slurp", t=[0.5]),
        "recipes[0]: mergekit has no merge method 'slurp'; did you mean 'slerp'?",
    ),
    "alpha for slerp": (grid(method="slerp", alpha=[0.5]), "alpha belongs to method linear, but the method here is 'slerp'"),
    "no parameters": (grid(method="linear"), "method 'linear' needs alpha (a list of ratios) or models"),
    "unknown parameter": (
        grid(method="ties", base_model="a", models={"b": {"densty": {"grid": [0.1, 0.2]}}}),
        "recipes[0].models.b.densty: the method has no such parameter; did you mean 'density'?",
    ),
    "misspelt grid": (
        grid(method="ties", base_model="a", models={"b": {"density": {"gird": [0.1, 0.2]}}}),
        "recipes[0].models.b.density: a filter is written {filter: mlp, value: 0.3}, a grid {grid: […]}, but got {'gird': [0.1, 0.2]}",
    ),
    "no base model": (grid(method="ties", models={"b": {}}), "method 'ties' needs base_model"),
    "base model beside t": (
        grid(method="slerp", t=[0.2], base_model="b"),
        "give either t (with between, if you like) or base_model, not both",
    ),
    "between one": (grid(method="slerp", t=[0.2], between=["a", "a"]), "between takes two different parents"),
    "an objective by a name of pydantic's": (
        {"objectives": {"TaskUse": {"tasks": [{"task": "demo_formulary", "str": 1}]}}},
        "objectives.TaskUse.tasks[0].str: unknown key (known here: task, num_fewshot",
    ),
    "a budget that is none": (
        {"finetune": {"starts": ["a"], "tasks": {"x": {"tasks": ["demo_instructions"]}}, "examples": ["most"]}},
        "finetune.examples[0]: takes a whole number or 'all', but got 'most'",
    ),
    "no budget of a task's own": (
        {"finetune": {"starts": ["a"], "tasks": {"x": {"tasks": ["demo_instructions"], "examples": []}}}},
        "tasks.x.examples takes different values, at least one, but got []",
    ),
    "an impossible budget of a task's own": (
        {"finetune": {"starts": ["a"], "tasks": {"x": {"tasks": ["demo_instructions"], "examples": 0}}}},
        "tasks.x.examples are numbers of at least 1, or all, but got 0",
    ),
    "a name that is none": ({"objectives": {"a b": {"tasks": ["demo_formulary"]}}}, "objectives.a b: 'a b' is not a name"),
    "reserved name": ({"objectives": {"on_front": {"tasks": ["demo_formulary"]}}}, "objectives.on_front: the leaderboard has"),
    "metric twice": (objective(metric=["acc", "acc"]), "metric takes one name or a list of different ones"),
    "misspelt task key": (
        objective(tasks=[{"tsk": "demo_formulary"}]),
        "objectives.clinical.tasks[0].tsk: unknown key; did you mean 'task'?",
    ),
    "unknown gen_kwargs": (
        {"objectives": {"x": {"tasks": ["demo_instructions"], "limit": 2, "gen_kwargs": {"min_p": 0.1}}}},
        "gen_kwargs: min_p = 0.1 is not supported",
    ),
    "too many shots": (objective(num_fewshot=3), "fixes num_fewshot at 0, not 3; leave it out"),
    "unknown parent in a recipe": (
        grid(method="linear", alpha=[0.5], between=["a", "instruct"]),
        "recipes[0] names 'instruct', which is not in parents: a, b",
    ),
    "unknown tokenizer parent": ({"tokenizer": "c"}, "tokenizer names 'c', which is not in parents: a, b"),
    "no axis for the front": (objective(front=False), "objectives: every one has front: false"),
    "unknown metric": (
        objective(metric="accuracy"),
        "objectives.clinical.tasks[0]: has no metric 'accuracy' (it has: acc, ece, brier)",
    ),
    "wrong count": (
        objective(expect={"demo_formulary": 3}),
        "objectives.clinical.tasks[0]: demo_formulary has 192 questions, but the sweep expects 3: split test of its own data set",
    ),
    "count of no task": (
        objective(expect={"demo_formulry": 3}),
        "objectives.clinical.expect: 'demo_formulry' is no task of this objective; did you mean 'demo_formulary'?",
    ),
    "wrong direction": (objective(direction="minimize"), "acc is better when higher, but the objective's direction is minimize"),
    "no chat template": (objective(apply_chat_template=True), "objectives.clinical.apply_chat_template: the tokenizer of"),
    "template argument without a template": (
        objective(chat_template_kwargs={"enable_thinking": False}),
        "objectives.clinical: chat_template_kwargs has no effect without apply_chat_template: true; add it",
    ),
    "method's parameter beside it": (
        {"recipes": [{"method": "ties", "base_model": "clinical", "models": {"instruct": {}}, "int8_mask": True}]},
        "recipes[0].int8_mask: is a parameter of the merge method; write parameters: {int8_mask: …}",
    ),
    "reasoning without an end": (
        objective(apply_chat_template=True, chat_template_kwargs={"enable_thinking": True}),
        "objectives.clinical: chat_template_kwargs.enable_thinking needs think_end_token",
    ),
    "reasoning switched by a text": (
        objective(apply_chat_template=True, chat_template_kwargs={"enable_thinking": "false"}),
        "objectives.clinical: chat_template_kwargs.enable_thinking is 'false'; write true or false",
    ),
    "reasoning that ends with nothing": (objective(think_end_token=""), "objectives.clinical: think_end_token is empty"),
    "system prompt in two spellings": (
        objective(system_prompt="a", system_instruction="b"),
        "objectives.clinical.system_instruction: unknown key",
    ),
    "missing include_path": ({"include_path": ["nowhere"]}, "nowhere does not exist; correct the path or create it"),
    "missing data_root": ({"data_root": "nowhere"}, "nowhere does not exist; correct the path or create it"),
    "window too short": (
        {
            "workers": {"backend": "fake", "engine": {"max_model_len": 64}},
            "objectives": {"instruction": {"tasks": ["demo_instructions"], "limit": 2}},
        },
        "workers.engine.max_model_len: 64 leaves no room for a prompt before",
    ),
    "disk budget": (
        {"checkpoints": {"keep": True, "disk_gb": 1e-6}},
        "checkpoints.disk_gb: 4 kept checkpoints need 0.0 GB, but the budget is 1e-06 GB; raise it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_key(name: str, sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    changes, expected = WRONG[name]
    refused(sweep(**changes), capsys, expected)


def test_wrong_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(tmp_path / "none.yaml", capsys, "none.yaml: cannot be read (No such file or directory)")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    refused(
        tmp_path / "list.yaml",
        capsys,
        "list.yaml: contains list, not keys; a sweep has parents, recipes and objectives",
    )
    (tmp_path / "twice.yaml").write_text("parents: {a: {model: x}, b: {model: y}, b: {model: z}}\n")
    refused(tmp_path / "twice.yaml", capsys, "the key 'b' appears twice")
    (tmp_path / "broken.yaml").write_text("parents: {a: [}\n")
    refused(tmp_path / "broken.yaml", capsys, "broken.yaml: is not valid YAML")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "binary.yaml", capsys, "binary.yaml: is not UTF-8 text")


GUARD = {"tasks": ["ifeval"], "split": "search", "front": False}


@pytest.mark.parametrize(
    ("constraint", "guard", "said"),
    [
        ({"score": 0.02}, GUARD, None),
        ({"parent": "a", "share": 0.9}, GUARD, None),
        ({"score": 0.02}, {**GUARD, "split": None}, "objectives.safe.split: is None"),
        ({"score": 0.02, "parent": "a"}, GUARD, "write parent and share, or score alone"),
        ({"parent": "a"}, GUARD, "write parent and share, or score alone"),
        ({}, GUARD, "write parent and share, or score alone"),
        ({"parent": "c", "share": 0.9}, GUARD, "search.constraints.safe.parent names 'c'"),
    ],
)
def test_a_guard_is_an_objective_beside_the_front_with_a_limit(
    constraint: dict[str, Any], guard: dict[str, Any], said: str | None, tmp_path: Path
) -> None:
    content = {
        "parents": {"a": {"model": "org/a"}, "b": {"model": "org/b"}},
        "objectives": {"medical": {"tasks": ["medqa_4options"], "split": "search"}, "safe": guard},
        "search": {
            "space": [{"method": "linear", "alpha": {"low": 0, "high": 1}}],
            "budget": {"candidates": 3},
            "constraints": {"safe": constraint},
        },
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    if said is None:
        assert set(load_config(tmp_path / "sweep.yaml").held_out) == {"medical", "safe"}
    else:
        with pytest.raises(UserError, match=re.escape(said)):
            load_config(tmp_path / "sweep.yaml")
