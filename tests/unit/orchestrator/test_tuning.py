"""A run of fine-tuning: its identity, and its steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.recipes.tuning import Tuning, settings
from tests.helpers.boards import finetune, recipe

ICFT: dict[str, object] = {"method": ["lora", "icft"], "icft": {"general": "x"}}


def tuning(**changes: Any) -> Tuning:
    given = settings(finetune(), 100, "full")
    return dataclasses.replace(Tuning(recipe("a"), "data", "full", 0, given, "notes", "a", 8, "8"), **changes)


def test_every_field_of_a_run_is_classed_and_as_intended() -> None:
    fields = dataclasses.fields(Tuning)
    assert all("identity" in field.metadata for field in fields), "identity() or provenance()?"
    hashed = {field.name for field in fields if field.metadata["identity"]}
    assert hashed == {"start", "data", "method", "seed", "settings"}


def test_a_run_is_told_from_another_by_what_changes_its_weights_and_by_nothing_else() -> None:
    assert tuning(task="x", start_label="b", examples=9, budget="all").id == tuning().id
    others = [
        tuning(start=recipe("b")),
        tuning(data="other"),
        tuning(method="lora"),
        tuning(seed=1),
        tuning(settings=settings(finetune(), 101, "full")),
        tuning(settings=settings(finetune(lora={"rank": 8}), 100, "lora")),
    ]
    assert len({tuning().id, *(other.id for other in others)}) == 7
    icft = finetune(**ICFT)
    ways = [
        settings(icft, 100, "lora"),
        settings(icft, 100, "icft", "general"),
        settings(icft, 100, "icft", "other"),
        settings(finetune(method="icft", icft={"general": "x", "consistency": 0.5}), 100, "icft", "general"),
    ]
    assert len({tuning(settings=way).id for way in ways}) == 4
    elsewhere = finetune(method="icft", examples=[8, 64], icft={"general": "y", "examples": 64})
    assert settings(elsewhere, 100, "icft", "general") == ways[1], "the file's content counts, not where it lies"
    assert "difficulty" not in ways[1]["icft"], "ids from before it was a setting stay"
    rare = finetune(method=["icft", "lora_replay"], icft={"general": "x", "difficulty": "rarity"})
    assert settings(rare, 100, "icft", "general")["icft"]["difficulty"] == "rarity"
    replay = settings(rare, 100, "lora_replay", "general")
    assert replay == ways[1], "without a curriculum no difficulty counts; its method tells it apart"
    assert tuning(method="lora_replay", settings=replay).id != tuning(method="icft", settings=ways[1]).id
    same = settings(finetune(save_steps=7, gradient_checkpointing=False, keep=False, cpus=2), 100, "full")
    assert tuning(settings=same).id == tuning().id


def test_what_comes_of_a_run_is_a_recipe_wherever_it_lies() -> None:
    here, there = (tuning().recipe(Path(place), "float32") for place in ("/here", "/there"))
    assert here.id == there.id != tuning(seed=1).recipe(Path("/here"), "float32").id
    assert here.label == "full start=a task=notes examples=8 seed=0"


@given(st.integers(1, 5000), st.integers(1, 8), st.integers(1, 8), st.floats(0.5, 20))
def test_a_run_has_the_steps_of_its_epochs_and_never_fewer_than_the_least(
    count: int, batch: int, accumulation: int, epochs: float
) -> None:
    given = finetune(batch_size=batch, accumulation=accumulation, epochs=epochs)
    few, everything = given.steps(count, count, "full"), given.steps(count, "all", "full")
    assert few >= 100 and everything >= 200
    assert min(few, everything) * batch * accumulation >= epochs * count - batch * accumulation
    assert finetune(min_steps=7, epochs=1).steps(1, "all", "full") == 7
    icft = finetune(min_steps=1, epochs=1, **ICFT)
    assert [icft.steps(64, 64, method) for method in ("lora", "icft")] == [4, 9], "22 in a stage, 8 of them a step"
