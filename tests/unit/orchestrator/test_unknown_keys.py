"""An unknown key is answered with the keys that may stand at that very place, at every place of our files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import yaml
from pydantic import AfterValidator, BaseModel, ValidationError, model_validator

from orchestrator.config.complaint import explain
from orchestrator.config.load import load_config, load_published
from orchestrator.config.published import Published
from orchestrator.config.sweep import SweepConfig
from orchestrator.config.types import Strict
from orchestrator.core.errors import UserError

TASKS = {"tasks": ["ifeval", {"task": "medqa_4options"}]}
EVERY: dict[str, Any] = {
    "parents": {"a": {"model": "org/a"}, "b": {"model": "org/b"}},
    "candidates": {"theirs": {"model": "org/theirs"}},
    "recipes": [{"method": "linear", "alpha": [0.5]}],
    "objectives": {"medical": {**TASKS, "split": "search"}},
    "generation": {
        "own": {"cards": {"file": "f", "prompt": "{{input}}"}},
        "metrics": {"bleu": "corpus"},
        "encoder": {"model": "org/e", "layer": 1},
    },
    "finetune": {
        "starts": ["baseline", {"best": "medical"}],
        "tasks": {"notes": {"tasks": [{"task": "cards"}], "split": "search"}},
        "method": ["full", "icft"],
        "baseline": {"start": "b", "file": "f"},
        "lora": {"rank": 8},
        "icft": {"general": "f"},
    },
    "workers": {"count": 1, "engine": {"max_num_seqs": 8}},
    "checkpoints": {"keep": True},
    "search": {
        "space": [
            {"method": "linear", "alpha": {"low": 0, "high": 1}},
            {"method": "slerp", "t": {"low": 0, "high": 1}},
        ],
        "finetune": {
            "task": "notes",
            "learning_rate": {"low": 1e-5, "high": 1e-3},
            "epochs": {"low": 1, "high": 3},
        },
        "budget": {"candidates": 9},
        "constraints": {"medical": {"parent": "a", "share": 0.9}},
        "racing": {"alpha": 0.1, "ranges": {"rouge1": {"low": 0, "high": 100}}},
    },
}
"""A valid sweep with something at every place that has keys of its own."""
FIGURES = {
    "source": "A paper",
    "rows": {"a": {"medical": 0.5}},
    "evaluation": {"num_fewshot": 0},
    "training": {"epochs": 15},
    "costs": {"merging": {"minutes": 40}},
}

Place = tuple[str | int, ...]
EACH = "*"
"""In a place: any name of a mapping, any index of a list."""


def places(kind: Any, place: Place = ()) -> Iterator[tuple[Place, type[BaseModel]]]:
    """Every place that a model describes; where anything may stand, no key is unknown."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield place, kind
        for name, field in kind.model_fields.items():
            yield from places(field.annotation, (*place, name))
    elif Any not in get_args(kind):
        for part in get_args(kind):
            yield from places(part, (*place, EACH) if get_origin(kind) in (dict, list) else place)


def written(value: Any, place: Place) -> Iterator[Place]:
    """Where a file has mappings at this place."""
    if not place:
        yield from [()] if isinstance(value, dict) else []
        return
    parts = dict(enumerate(value)) if isinstance(value, list) else value
    for key, part in parts.items():
        if place[0] in (EACH, key):
            yield from ((key, *rest) for rest in written(part, place[1:]))


def check(place: Place, model: type[BaseModel], content: Any, load: Callable[[Path], Any], folder: Path) -> None:
    """Plant a key that lacks a letter of a real one, and read the answer."""
    content, path = copy.deepcopy(content), folder / "file.yaml"
    found = next(written(content, place), None)
    assert found is not None, f"{place} is not in this test's file; add it there"
    here = content
    for part in found:
        here = here[part]
    key = max(model.model_fields, key=len)
    here[key[:-1]] = 1
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as raised:
        load(path)
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in (*found, key[:-1])).lstrip(".")
    known = ", ".join(model.model_fields)
    assert str(raised.value) == f"{path}: {where}: unknown key; did you mean {key!r}? (known here: {known})"


@pytest.mark.parametrize(("place", "model"), [pytest.param(*p, id=".".join(p[0])) for p in places(SweepConfig)])  # type: ignore[arg-type]
def test_keys_of_a_sweep(place: Place, model: type[BaseModel], tmp_path: Path) -> None:
    check(place, model, EVERY, load_config, tmp_path)


@pytest.mark.parametrize(("place", "model"), list(places(Published)))
def test_keys_of_published_figures(place: Place, model: type[BaseModel], tmp_path: Path) -> None:
    check(place, model, FIGURES, load_published, tmp_path)


def test_the_files_of_these_tests_are_valid(tmp_path: Path) -> None:
    for content, load in ((EVERY, load_config), (FIGURES, load_published)):
        (tmp_path / "file.yaml").write_text(yaml.safe_dump(content))
        load(tmp_path / "file.yaml")


class Near(Strict):
    low: float
    high: float


class Far(Strict):
    low: float
    distance: float = 1.0
    direction: str = "up"

    @model_validator(mode="after")
    def _as_it_is(self) -> Far:
        return self


class Many(Strict):
    either: Near | Far | None = None
    checked: Annotated[str | Annotated[Far, AfterValidator(lambda far: far)] | None, AfterValidator(lambda x: x)] = None
    several: Near | list[dict[str, str | Far]] = []


FAR, NEAR = "(known here: low, distance, direction)", "(known here: low, high)"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"either": {"low": 0.0, "distanc": 1.0}}, f"either.distanc: unknown key; did you mean 'distance'? {FAR}"),
        ({"either": {"low": 0.0, "high": 1.0, "hihg": 1.0}}, f"either.hihg: unknown key; did you mean 'high'? {NEAR}"),
        ({"either": {"low": 0.0, "direction": "up", "x": 1}}, f"either.x: unknown key {FAR}"),
        ({"either": {"high": 1.0}}, "either.low: this key is missing; add it"),
        ({"checked": {"low": 0.0, "lo": 1.0}}, f"checked.lo: unknown key; did you mean 'low'? {FAR}"),
        ({"several": [{"Far": {"low": 0.0, "str": 1}}]}, f"several[0].Far.str: unknown key {FAR}"),
        (
            {"several": [{"a": 5}]},
            "several[0].a: takes text or keys (low, distance, direction), but got 5; quote it: '5'",
        ),
    ],
)
def test_of_several_models_the_likeliest_is_meant(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Many.model_validate(data)
    assert explain(raised.value, Many, data) == said
