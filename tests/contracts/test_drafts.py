"""Texts that are written with drafts are those that are written without: whatever is drafted, and beside whatever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.records import Answer, Decoding, Question
from orchestrator.recipes.recipe import Point, Recipe, Source, between, single
from tasks.serving.drafts import MOST, TURN, TURNS, Pace
from tasks.serving.vllm_engine import VllmEngine

PROMPTS = [tuple(range(start, start + 20)) for start in range(20, 80, 5)]
GREEDY = Decoding(40, ())
TEXTS = [
    *(Question(prompt, decoding=GREEDY) for prompt in PROMPTS),
    Question(PROMPTS[0], decoding=replace(GREEDY, max_tokens=7)),
    *(Question(prompt, decoding=replace(GREEDY, repetition_penalty=1.2)) for prompt in PROMPTS[:4]),
    *(Question(prompt, decoding=replace(GREEDY, temperature=0.8, seed=seed)) for seed, prompt in enumerate(PROMPTS)),
]
CHOICES = [Question(PROMPTS[0], (token,)) for token in (30, 31, 32)]
CONTINUATIONS = [Question(PROMPTS[1], (40, 41, 42)), Question(PROMPTS[1], (43, 44))]


@pytest.fixture(scope="module")
def drafting(parents: dict[str, Path], start_engine: Callable[..., Any]) -> VllmEngine:
    """An engine with drafts in every step, in float32."""
    engine: VllmEngine = start_engine(parents["a"], "float32", drafts=True)
    return engine


@pytest.fixture(scope="module")
def half(parents: dict[str, Path]) -> Recipe:
    a, b = (Source(f"digest-{name}", name, str(folder)) for name, folder in parents.items())
    return between("linear", a, b, 0.5, {}, "float32")


@pytest.fixture(scope="module")
def written(vllm: VllmEngine, half: Recipe) -> list[Answer]:
    """What the merge writes without drafts."""
    vllm.load(half)
    return vllm.answer(TEXTS)


def test_texts_are_the_same_whatever_is_drafted(
    drafting: VllmEngine, vllm: VllmEngine, half: Recipe, written: list[Answer], parents: dict[str, Path]
) -> None:
    vllm.load(single(half.sources[0], "float32", Point("parent")))
    by_parent = {answer.question_id: [answer.text or ""] for answer in vllm.answer(TEXTS)}
    right = {answer.question_id: [answer.text or ""] for answer in written}
    wrong = {answer.question_id: ["", "no such thing", written[0].text or ""] for answer in written}
    drafting.load(half)
    steps = {}
    for name, expected in {"none": {}, "parent": by_parent, "right": right, "wrong": wrong}.items():
        assert drafting.answer(TEXTS, expected) == written, name
        drafted = drafting.drafted()
        assert drafted and drafted.steps > 0
        steps[name] = drafted.tokens / drafted.steps
    assert steps["right"] > 1.5 * steps["wrong"] >= 1.5, steps


def test_texts_that_end_at_a_word_end_there(drafting: VllmEngine, vllm: VllmEngine, half: Recipe) -> None:
    vllm.load(half)
    drafting.load(half)
    plain = vllm.answer(TEXTS[:6])
    ended = []
    for question, answer in zip(TEXTS, plain, strict=False):
        text = answer.text or ""
        stop = text[len(text) // 2 :][:2]
        ended.append(replace(question, decoding=replace(GREEDY, stop=(stop,))))
    expected = {question.id: [answer.text or ""] for question, answer in zip(ended, plain, strict=True)}
    assert drafting.answer(ended, expected) == vllm.answer(ended)


def test_choices_and_continuations_beside_texts_are_scored_as_ever(
    drafting: VllmEngine, vllm: VllmEngine, half: Recipe, written: list[Answer]
) -> None:
    expected = {answer.question_id: [answer.text or ""] for answer in written}
    vllm.load(half)
    drafting.load(half)
    mixed = [*CHOICES, *TEXTS, *CONTINUATIONS]
    mine, theirs = drafting.answer(mixed, expected), vllm.answer(mixed)
    for one, other in zip(mine, theirs, strict=True):
        assert (one.question_id, one.text, one.is_greedy) == (other.question_id, other.text, other.is_greedy)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


@pytest.mark.parametrize("helps", [True, False])
def test_the_faster_way_is_kept_for_each_size_of_a_batch(helps: bool) -> None:
    now = 0.0
    pace = Pace(lambda: now)
    on, ways = True, []
    for _ in range(4 * TURN * TURNS):
        now += 2.0 if on else 1.0
        ways.append(on)
        on = pace.step(8, (3 if helps else 1) * 8 if on else 8, begins=False)
    assert ways[:TURN] == [True] * TURN and ways[TURN + 1 : 2 * TURN] == [False] * (TURN - 1), "in turn"
    assert set(ways[-TURN:]) == {helps}
    assert pace.off_above == (None if helps else 4)
    assert pace.step(2, 2, begins=True), "another size is measured anew"


def test_steps_that_read_a_prompt_do_not_count() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    for _ in range(100 * TURN * TURNS):
        now += 1.0
        pace.step(8, 8 * MOST, begins=True)
    assert pace.step(8, 8, begins=True), "still the first turn"


@pytest.mark.parametrize("length", [32, 33, 34, 65])
def test_prompts_that_the_prefix_cache_has_but_for_a_token(
    drafting: VllmEngine, vllm: VllmEngine, half: Recipe, length: int
) -> None:
    """vLLM gives such a request a draft that is none (its cache has blocks of 32 tokens on a CPU, of 16 on a GPU)."""
    drawn = replace(GREEDY, temperature=0.8)
    prompts = [tuple(range(start, start + length)) for start in (20, 21, 200)]
    asked = [
        question
        for prompt in prompts
        for question in (
            *(
                Question(prompt, tuple(range(300 + 30 * i, 300 + 30 * i + size)))
                for i, size in enumerate((1, 2, 3, 20))
            ),
            *(Question(prompt, (token,)) for token in (30, 31)),
            *(Question(prompt, decoding=replace(GREEDY, max_tokens=size)) for size in (1, 2, 24)),
            *(Question(prompt, decoding=replace(drawn, seed=seed)) for seed in range(6)),
        )
    ]
    vllm.load(half)
    drafting.load(half)
    for one, other in zip(drafting.answer(asked), vllm.answer(asked), strict=True):
        assert (one.question_id, one.text, one.is_greedy) == (other.question_id, other.text, other.is_greedy)
        if other.logprob is not None:
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
