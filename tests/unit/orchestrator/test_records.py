"""Identity: what is hashed, what is not, and that nobody can add a field without saying which."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.records import Decoding, Profile, Question, Serving, content
from orchestrator.recipes.recipe import Point, Recipe, Source

HASHED = [Serving, Profile, Decoding, Question, Source, Recipe]


@pytest.mark.parametrize("record", HASHED, ids=lambda record: record.__name__)
def test_every_field_is_classed(record: type) -> None:
    for field in dataclasses.fields(record):
        assert "identity" in field.metadata, f"{record.__name__}.{field.name}: identity() or provenance()?"


def test_the_classes_are_the_intended_ones() -> None:
    hashed = {r.__name__: {f.name for f in dataclasses.fields(r) if f.metadata["identity"]} for r in HASHED}
    assert hashed["Source"] == {"digest", "rows"}
    assert hashed["Recipe"] == {"method", "models", "base_model", "parameters", "dtype", "seed"}
    assert hashed["Question"] == {"context", "continuation", "decoding"}
    assert hashed["Profile"] == {"engine", "dtype", "tensor_parallel_size", "device", "pipeline_parallel_size"}
    assert hashed["Serving"] == {
        "tokenizer",
        "chat_template",
        "stop_token_ids",
        "max_model_len",
        "architecture",
        "engine",
    }


tokens = st.lists(st.integers(0, 50_000), max_size=8).map(tuple)
decodings = st.none() | st.builds(Decoding, st.integers(1, 512), st.lists(st.text(max_size=3), max_size=2).map(tuple))
questions = st.builds(Question, tokens, tokens, decodings, st.integers(0, 9))


@given(questions, questions)
def test_questions_are_equal_in_identity_exactly_when_their_content_is(a: Question, b: Question) -> None:
    assert (a.id == b.id) == (content(a) == content(b))


@given(questions)
def test_provenance_does_not_move_the_id(question: Question) -> None:
    assert dataclasses.replace(question, truncated=question.truncated + 1).id == question.id


def test_a_model_is_itself_wherever_it_lies() -> None:
    here, there = Source("d", "a", "/here", None, None), Source("d", "b", "hub/id", "main", None)
    recipes = [Recipe("linear", ((s, {"weight": 1.0}),), None, {}, "float32") for s in (here, there)]
    assert recipes[0].id == recipes[1].id
    assert dataclasses.replace(recipes[0], points=(Point("linear"),)).id == recipes[0].id
    assert dataclasses.replace(recipes[0], dtype="bfloat16").id != recipes[0].id
