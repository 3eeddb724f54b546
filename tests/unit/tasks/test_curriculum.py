"""Stages, memories and batches of ICFT: laws that hold for every size and seed."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.finetune import Icft
from tasks.finetuning.curriculum import CurriculumStage, IcftSettings, Reservoir, make_schedule, without_curriculum
from tasks.finetuning.difficulty import measure_difficulty
from tasks.finetuning.examples import Labelled

DIFFICULTIES = st.lists(st.floats(0, 20), min_size=1, max_size=40)


def asked(**changes: int) -> IcftSettings:
    rows = {"task_rows": 2, "recent_rows": 1, "earlier_rows": 1}
    return IcftSettings(**{"steps": 60, "accumulation": 2, "stages": 3, "long_memory": 512, **rows, **changes})


def schedule(difficulty: list[float], general: int, parts: int, places: int, seed: int) -> list[CurriculumStage]:
    return make_schedule(difficulty, general, asked(stages=parts, long_memory=places), seed)


@given(DIFFICULTIES, st.integers(1, 20), st.integers(1, 6), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_stages_go_from_easy_to_hard_and_hold_every_example_once(
    difficulty: list[float], general: int, parts: int, places: int, seed: int
) -> None:
    stages = schedule(difficulty, general, parts, places, seed)
    order = [index for stage in stages for index in stage.examples]
    assert sorted(order) == list(range(len(difficulty)))
    assert [difficulty[index] for index in order] == sorted(difficulty)
    sizes = [len(stage.examples) for stage in stages]
    assert len(sizes) == min(parts, len(difficulty)) and max(sizes) - min(sizes) <= 1


@given(DIFFICULTIES, st.integers(1, 20), st.integers(1, 6), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_memories_hold_what_was_learned_before_and_nothing_of_a_later_stage(
    difficulty: list[float], general: int, parts: int, places: int, seed: int
) -> None:
    stages = schedule(difficulty, general, parts, places, seed)
    for number, stage in enumerate(stages):
        before = [index for done in stages[: max(0, number - 1)] for index in done.examples]
        assert stage.recent == (stages[number - 1].examples if number else ())
        assert set(stage.earlier) <= set(before)
        assert set(stage.general) <= set(range(general))
        held = [*stage.earlier, *(f"general {index}" for index in stage.general)]
        assert len(held) == len(set(held)) == min(places, len(before) + general)


@given(DIFFICULTIES, st.integers(1, 20), st.integers(1, 6), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_batches_take_their_rows_from_the_stage_and_its_memories(
    difficulty: list[float], general: int, parts: int, places: int, seed: int
) -> None:
    stages = schedule(difficulty, general, parts, places, seed)
    assert sum(len(stage.batches) for stage in stages) == 60 * 2
    for stage in stages:
        for batch in stage.batches:
            count = Counter(row.term for row in batch)
            assert len(batch) == 4
            # One of the long-term memory: an instruction, or an example of an earlier stage.
            assert count["task"] == (2 if stage.recent else 3)
        shown: dict[str, set[int]] = {term: set() for term in ("task", "fine_tune", "consistency")}
        for row in (row for batch in stage.batches for row in batch):
            shown[row.term].add(row.example)
        assert shown["task"] == set(stage.examples), "every example is trained on"
        assert shown["fine_tune"] <= {*stage.recent, *stage.earlier}
        assert shown["consistency"] <= set(stage.general)
    assert stages == schedule(difficulty, general, parts, places, seed)


@given(DIFFICULTIES, st.integers(1, 20), st.integers(1, 6), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_without_its_curriculum_only_the_order_of_the_examples_differs(
    difficulty: list[float], general: int, parts: int, places: int, seed: int
) -> None:
    stages = schedule(difficulty, general, parts, places, seed)
    (plain,) = without_curriculum(stages, seed)
    batches = [batch for stage in stages for batch in stage.batches]
    assert [[row.term for row in batch] for batch in plain.batches] == [[row.term for row in b] for b in batches]
    for ours, theirs in zip(plain.batches, batches, strict=True):
        assert [row for row in ours if row.term == "consistency"] == [
            row for row in theirs if row.term == "consistency"
        ]
    shown = Counter(row.example for batch in plain.batches for row in batch if row.term != "consistency")
    assert set(shown) == set(range(len(difficulty))) and max(shown.values()) - min(shown.values()) <= 1
    other = [value * 2 for value in reversed(difficulty)]
    assert without_curriculum(schedule(other, general, parts, places, seed), seed) == [plain], "whatever is hard"


def test_length_and_rarity_need_no_model() -> None:
    examples = [Labelled((9,), response) for response in ((1, 1, 2), (1, 2), (3, 2))]
    assert measure_difficulty("length", examples, None, 0) == [3, 2, 2]
    rarity = measure_difficulty("rarity", examples, None, 0)
    assert rarity[2] > rarity[1], "3 is rarer than 1"
    assert rarity[1] == pytest.approx(2 * np.log(7 / 3))


def test_examples_of_a_stage_are_shown_equally_often() -> None:
    (stage,) = make_schedule([1.0] * 10, 4, asked(steps=10, stages=1, accumulation=4), seed=0)
    shown = Counter(row.example for batch in stage.batches for row in batch if row.term == "task")
    assert sum(shown.values()) == 10 * 4 * 3 and set(shown.values()) == {12}


def test_another_seed_shuffles_otherwise() -> None:
    assert schedule([1.0] * 20, 8, 2, 4, seed=0) != schedule([1.0] * 20, 8, 2, 4, seed=1)


@given(st.integers(0, 50), st.integers(1, 20), st.integers(0, 9999))
def test_reservoir_is_full_when_it_can_be(items: int, places: int, seed: int) -> None:
    memory: Reservoir[int] = Reservoir(places, Random(seed))
    for item in range(items):
        memory.add(item)
    assert len(set(memory.items)) == len(memory.items) == min(places, items)
    assert set(memory.items) <= set(range(items))


def test_reservoir_is_uniform() -> None:
    kept: Counter[int] = Counter()
    rng = Random(0)
    for _ in range(4000):
        memory: Reservoir[int] = Reservoir(5, rng)
        for item in range(20):
            memory.add(item)
        kept.update(memory.items)
    # Each is kept with probability 1/4: 1000 times, and a standard deviation of 27.
    assert all(abs(kept[item] - 1000) < 5 * 27 for item in range(20))


@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_the_least_steps_show_every_example_and_fewer_would_not(
    examples: int, stages: int, present: int, memory: int, accumulation: int
) -> None:
    icft = Icft(general="x", stages=stages, recent_rows=memory, earlier_rows=memory)
    steps = icft.least_steps(examples, present + 2 * memory, accumulation)
    rows = {"task_rows": present, "recent_rows": memory, "earlier_rows": memory, "accumulation": accumulation}
    difficulty = [float(index) for index in range(examples)]
    made = make_schedule(difficulty, 1, asked(steps=steps, stages=stages, **rows), 0)
    shown = {row.example for stage in made for batch in stage.batches for row in batch if row.term == "task"}
    assert shown == set(range(examples))
    assert sum(len(stage.batches) for stage in made) == steps * accumulation
    with pytest.raises(AssertionError, match="the steps show every example"):
        make_schedule(difficulty, 1, asked(steps=steps - 1, stages=stages, **rows), 0)
