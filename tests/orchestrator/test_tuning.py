"""The second phase's plan: identities, starts by rule, steps, memory, and learning curves read backwards."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.finetune import Finetune
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.records import Profile, Serving
from orchestrator.recipes.recipe import Point, Recipe, Source
from orchestrator.recipes.tuning import Tuning, settings
from orchestrator.results.board import Board, Row, mark
from orchestrator.sizing.finetune_memory import need, refusal
from orchestrator.stages.finetune_starts import choose_starts
from orchestrator.stats.learning_curves import equivalents, mean_score, spread
from orchestrator.stats.scores import Score, TaskScore

TASKS = {"notes": {"tasks": ["clinical_mts_dialog"]}}
ICFT: dict[str, object] = {"method": ["lora", "icft"], "icft": {"general": "x"}}


def finetune(**changes: object) -> Finetune:
    return Finetune.model_validate({"starts": ["a"], "tasks": TASKS, **changes})


def recipe(name: str, method: str = "slerp") -> Recipe:
    return Recipe(
        method, ((Source(name, name, name), {}),), None, {}, "float32", points=(Point(method, (("t", name),)),)
    )


def tuning(**changes: object) -> Tuning:
    given = settings(finetune(), 100, "full")
    return dataclasses.replace(Tuning(recipe("a"), "data", "full", 0, given, "notes", "a", 8, "8"), **changes)  # type: ignore[arg-type]


# -------------------------------------------------------------------- identity
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
    same = settings(finetune(save_steps=7, gradient_checkpointing=False, keep=False, cpus=2), 100, "full")
    assert tuning(settings=same).id == tuning().id


def test_what_comes_of_a_run_is_a_recipe_wherever_it_lies() -> None:
    here, there = (tuning().recipe(Path(place), "float32") for place in ("/here", "/there"))
    assert here.id == there.id != tuning(seed=1).recipe(Path("/here"), "float32").id
    assert here.label == "full start=a task=notes examples=8 seed=0"


# -------------------------------------------------------------------- steps and memory
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


def test_full_fine_tuning_of_8b_does_not_fit_one_card_and_is_told_what_would() -> None:
    why = refusal(finetune(), "full", 8_000_000_000, 1, 80e9)
    assert why is not None
    assert "8.00 billion weights x 4 (weights) + 4 (gradients) + 8 (moments) bytes = 128.0 GB before activations" in why
    assert "finetune.gpus: 4 (FSDP over 4 cards)" in why and "method: lora" in why
    assert refusal(finetune(), "lora", 8_000_000_000, 1, 80e9) is None
    assert refusal(finetune(gpus=4), "full", 8_000_000_000, 4, 80e9) is None
    assert "adafactor" in str(refusal(finetune(), "full", 8_000_000_000, 1, 141e9))
    assert need(finetune(optimizer="adafactor"), "full", 10, 1).gpu_bytes == 80


# -------------------------------------------------------------------- starts
def board(values: dict[str, tuple[float, float]], *starts: object) -> Board:
    """Merges of methods by their first letter: `s` is slerp, `l` linear, `p` a parent."""
    config = SweepConfig.model_validate(
        {
            "parents": {"pa": {"model": "a"}, "pb": {"model": "b"}},
            "objectives": {"medical": {"tasks": ["x"]}, "loss": {"tasks": ["y"], "direction": "minimize"}},
            "finetune": {"starts": list(starts), "tasks": TASKS},
        }
    )
    rows = []
    for name, (medical, loss) in values.items():
        method = {"s": "slerp", "l": "linear", "p": "parent"}[name[0]]
        key = "name" if method == "parent" else "x"
        made = dataclasses.replace(recipe(name, method), points=(Point(method, ((key, name),)),))
        scores = {"medical": score(medical), "loss": score(loss)}
        rows.append(Row(made, "scored", scores, {}))
    serving = Serving("t", None, (), 8, "x", (), "pa", "")
    return Board(config, serving, Profile("fake", "float32", 1, "cpu"), (), tuple(mark(config, rows)), {})


def score(value: float, documents: int = 20, seed: int = 0) -> Score:
    influence = np.random.default_rng(seed).normal(0, 0.05, documents)
    influence -= influence.mean()
    return Score(value, (TaskScore("o", "t", {"m": value}, value, influence, influence + value),), (1.0,))


def chosen(found: Board) -> list[str]:
    return [
        start.label.removeprefix("slerp x=").removeprefix("linear x=")
        for start in choose_starts(found.config, found, None)
    ]


VALUES = {"pa": (0.9, 0.9), "pb": (0.1, 0.1), "s1": (0.8, 0.8), "s2": (0.6, 0.3), "l1": (0.7, 0.7), "l2": (0.5, 0.2)}


def test_rules_choose_among_the_merges() -> None:
    assert chosen(board(VALUES, {"best": "medical"})) == ["s1"]
    assert chosen(board(VALUES, {"best": "loss"})) == ["l2"], "less is better there"
    assert chosen(board(VALUES, {"best": "medical", "per": "method"})) == ["s1", "l1"]
    assert chosen(board(VALUES, {"best": "medical", "floor": {"loss": 0.5}})) == ["s2"]
    assert chosen(board(VALUES, {"nearest": "ideal"})) == ["s2"]
    assert chosen(board(VALUES, "pb", {"best": "medical"}, {"nearest": "ideal"}, {"best": "medical"})) == [
        "pb",
        "s1",
        "s2",
    ]


def test_a_rule_that_nothing_meets_and_a_name_that_is_none_are_refused() -> None:
    with pytest.raises(UserError, match="none of the 4 scored merges meets it"):
        chosen(board(VALUES, {"best": "medical", "floor": {"medical": 0.95}}))
    with pytest.raises(UserError, match=r"finetune.starts\[1\]: 'px' is no recipe"):
        chosen(board(VALUES, "pa", "px"))


# -------------------------------------------------------------------- curves
def test_a_curve_read_backwards_finds_its_own_budgets() -> None:
    curve = {8: [score(0.2)], 64: [score(0.5)], 512: [score(0.8)]}
    found = equivalents(curve, curve)
    assert [round(each.equal) for each in found] == [8, 64, 512]
    assert all(each.low == each.high == each.equal or math.isclose(each.low, each.equal) for each in found), "paired"


def test_what_lies_beyond_a_curve_is_said_to() -> None:
    one = {8: [score(0.1, seed=1)], 64: [score(0.35, seed=1)], 512: [score(0.95, seed=1)]}
    other = {8: [score(0.2)], 64: [score(0.5)], 512: [score(0.8)]}
    below, between, beyond = equivalents(one, other)
    assert below.equal == 0 and math.isinf(beyond.equal)
    assert between.equal == pytest.approx(8 * 8**0.5, rel=1e-6), "half way over the logarithm"
    assert between.low < between.equal < between.high


def test_means_over_seeds_keep_the_documents() -> None:
    scores = [score(0.2, seed=1), score(0.4, seed=2)]
    mean = mean_score(scores)
    assert mean.value == pytest.approx(0.3) and spread(scores) == pytest.approx(0.1414, abs=1e-4)
    assert mean.tasks[0].influence == pytest.approx((scores[0].tasks[0].influence + scores[1].tasks[0].influence) / 2)
    assert spread(scores[:1]) is None
