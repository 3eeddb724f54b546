"""A wrong sweep file is refused before anything starts: exit code 2, one message with the key, the value and the
way out, and no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main

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
    "wrong type": ({"seed": "zero"}, "seed: input should be a valid integer, but got 'zero'"),
    "number as text": (grid(method="linear", alpha=["0.5"]), "recipes[0].alpha[0]: input should be a valid number"),
    "negative limit": (objective(limit=-1), "objectives.clinical.limit: input should be greater than or equal to 1, but got -1"),
    "unknown dtype": ({"dtype": "fp8"}, "dtype: input should be 'float32', 'bfloat16' or 'float16', but got 'fp8'"),
    "ratio above one": (grid(method="linear", alpha=[0.5, 1.2]), "recipes[0].alpha: a mixing ratio lies in [0, 1], but got 1.2"),
    "span outside": (
        grid(method="slerp", t={"start": -0.1, "stop": 1, "step": 0.1}),
        "recipes[0].t: a mixing ratio lies in [0, 1], but got -0.1",
    ),
    "span backwards": (
        grid(method="slerp", t={"start": 1, "stop": 0, "step": 0.1}),
        "recipes[0].t: `step > 0` and `start <= stop` must hold, but got",
    ),
    "span without step": (grid(method="slerp", t={"start": 0, "stop": 1}), "a span has the keys start, stop and step"),
    "empty grid": (grid(method="linear", alpha=[]), "recipes[0].alpha: the grid is empty"),
    "density outside": (
        grid(method="ties", base_model="a", models={"b": {"density": {"grid": [0.5, 1.5]}}}),
        "recipes[0]: models.b.density: this parameter lies in [0, 1], but got 1.5",
    ),
    "unknown method": (
        grid(method="slurp", t=[0.5]),
        "recipes[0]: mergekit has no merge method 'slurp'; did you mean 'slerp'?",
    ),
    "alpha for slerp": (grid(method="slerp", alpha=[0.5]), "alpha belongs to method linear, but the method here is 'slerp'"),
    "no parameters": (grid(method="linear"), "method 'linear' needs alpha (a list of ratios) or models"),
    "unknown parameter": (
        grid(method="ties", base_model="a", models={"b": {"densty": {"grid": [0.1, 0.2]}}}),
        "recipes[0]: models.b.densty: the method has no such parameter; did you mean 'density'?",
    ),
    "misspelt grid": (
        grid(method="ties", base_model="a", models={"b": {"density": {"gird": [0.1, 0.2]}}}),
        "models.b.density: takes a value, mergekit's lists and filters, or {grid: […]}, but got {'gird': [0.1, 0.2]}",
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
        "finetune.examples[0]: input should be a valid integer, but got 'most'",
    ),
    "a name that is none": ({"objectives": {"a b": {"tasks": ["demo_formulary"]}}}, "objectives.a b: 'a b' is no name"),
    "reserved name": ({"objectives": {"on_front": {"tasks": ["demo_formulary"]}}}, "objectives.on_front: the leaderboard has"),
    "metric twice": (objective(metric=["acc", "acc"]), "metric takes one name or a list of different ones"),
    "misspelt task key": (
        objective(tasks=[{"tsk": "demo_formulary"}]),
        "objectives.clinical.tasks[0].task: this key is missing; add it",
    ),
    "unknown gen_kwargs": (
        {"objectives": {"x": {"tasks": ["demo_instructions"], "limit": 2, "gen_kwargs": {"min_p": 0.1}}}},
        "gen_kwargs: min_p = 0.1 is not supported",
    ),
    "too many shots": (objective(num_fewshot=3), "fixes num_fewshot at 0, but 3 is asked for"),
    "unknown parent in a recipe": (
        grid(method="linear", alpha=[0.5], between=["a", "instruct"]),
        "recipes[0] names 'instruct', which is not in parents: a, b",
    ),
    "unknown tokenizer parent": ({"tokenizer": "c"}, "tokenizer names 'c', which is not in parents: a, b"),
    "no axis for the front": (objective(front=False), "objectives: every one has front: false"),
    "unknown task": (
        objective(tasks=["demo_formulery"]),
        "objectives.clinical.tasks[0]: lm-eval knows no task, group or tag 'demo_formulery'; did you mean 'demo_formulary'?",
    ),
    "unknown metric": (
        objective(metric="accuracy"),
        "objectives.clinical.tasks[0]: has no metric 'accuracy' (it has: acc)",
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


def refused(path: Path, capsys: pytest.CaptureFixture[str], expected: str) -> None:
    assert main(["plan", str(path)]) == 2
    message = capsys.readouterr().err
    assert expected in " ".join(message.split())
    assert "Traceback" not in message
    assert message.count("mergefront: error:") == 1


@pytest.mark.parametrize("name", WRONG)
def test_wrong_key(name: str, sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    changes, expected = WRONG[name]
    refused(sweep(**changes), capsys, expected)


def test_wrong_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(tmp_path / "none.yaml", capsys, "none.yaml: cannot be read (No such file or directory)")
    (tmp_path / "list.yaml").write_text("- a\n- b\n")
    refused(
        tmp_path / "list.yaml", capsys, "list.yaml: holds list, not keys; a sweep has parents, recipes and objectives"
    )
    (tmp_path / "twice.yaml").write_text("parents: {a: {model: x}, b: {model: y}, b: {model: z}}\n")
    refused(tmp_path / "twice.yaml", capsys, "the key 'b' stands twice")
    (tmp_path / "broken.yaml").write_text("parents: {a: [}\n")
    refused(tmp_path / "broken.yaml", capsys, "broken.yaml: is not valid YAML")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / "binary.yaml", capsys, "binary.yaml: is not UTF-8 text")


@pytest.fixture
def second(parents: dict[str, Path], tmp_path: Path) -> Callable[[Callable[[Path], None]], dict[str, Any]]:
    """The sweep's parents with a spoilt copy of the second."""

    def spoil(change: Callable[[Path], None]) -> dict[str, Any]:
        folder = tmp_path / "spoilt"
        shutil.copytree(parents["b"], folder)
        change(folder)
        return {"a": {"model": str(parents["a"])}, "b": {"model": str(folder)}}

    return spoil


def edit(file: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return apply


def cut_short(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate((folder / "model.safetensors").stat().st_size - 100)


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def renumber(tokenizer: dict[str, Any]) -> None:
    tokens = list(tokenizer["model"]["vocab"])[-2:]
    ids = tokenizer["model"]["vocab"]
    ids[tokens[0]], ids[tokens[1]] = ids[tokens[1]], ids[tokens[0]]


SPOILT = {
    "other architecture": (
        edit("config.json", lambda c: c.update(architectures=["Qwen2ForCausalLM"])),
        "parents.b.model: architectures is ['Qwen2ForCausalLM'], but ['LlamaForCausalLM'] in parents.a",
    ),
    "other size": (
        edit("config.json", lambda c: c.update(hidden_size=128)),
        "parents.b.model: hidden_size is 128, but 64 in parents.a; merging needs parents of one architecture",
    ),
    "other vocabulary size": (
        edit("config.json", lambda c: c.update(vocab_size=7)),
        "parents.b.model: vocab_size is 7, but",
    ),
    "other vocabulary": (
        edit("tokenizer.json", renumber),
        "parents.b.model: its tokenizer's vocabulary differs from that of parents.a",
    ),
    "other RoPE": (
        edit("config.json", lambda c: c["rope_parameters"].update(rope_theta=500_000.0)),
        "parents.b.model: rope_theta is 500000.0, but 10000.0 in parents.a",
    ),
    "no safetensors": (as_pickle, "holds no *.safetensors file; only safetensors are read"),
    "cut off weights": (cut_short, "model.safetensors is damaged or cut off"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json does not exist; give a folder as"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_parent(name: str, second: Any, sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    change, expected = SPOILT[name]
    refused(sweep(parents=second(change)), capsys, expected)


def test_missing_parent(
    sweep: Callable[..., Path], parents: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    here = {"model": str(parents["a"])}
    refused(sweep(parents={"a": here}), capsys, "parents: ")
    refused(sweep(parents={"a": here, "b": {"model": "./gone"}}), capsys, "gone does not exist; correct the path")
    refused(
        sweep(parents={"a": here, "b": {"model": str(parents["b"]), "revision": "main"}}),
        capsys,
        "is a folder, and revision 'main' is for hub ids; remove it",
    )
    refused(
        sweep(parents={"a": here, "b": {"model": "some-org/not-there"}}),
        capsys,
        "parents.b.model: 'some-org/not-there' is no folder here, and the hub does not give it",
    )
    refused(
        sweep(parents={"a": here, "b": {"model": str(parents["b"]), "lora": "./gone"}}),
        capsys,
        "parents.b.lora: the folder",
    )


def test_a_results_folder_in_use(
    sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from orchestrator.results.lock import locked

    with locked(tmp_path / "out"):
        assert main(["run", str(sweep()), "--out", str(tmp_path / "out")]) == 2
    assert "another run is at work there" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no sweep (no sweep.json)" in capsys.readouterr().err
