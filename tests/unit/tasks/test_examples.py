"""Labelled examples as tokens: the prompts of serving, cut at their input, and no example lost."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from orchestrator.config.generation import Generation, OwnTask
from orchestrator.core.errors import UserError
from orchestrator.core.records import Serving
from tasks.demo.cards import FOLDER, files
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.finetuning.examples import conversations, digest, labelled, subset
from tasks.generation.sources import Example, Examples
from tasks.generation.task import GenerationTask, load_task
from tests.helpers.paths import INSTRUCT


@pytest.fixture(scope="module")
def lm() -> LedgerLM:
    serving = Serving("t", None, (2,), 512, "x", (), "instruct", str(INSTRUCT))
    return LedgerLM(serving, AutoTokenizer.from_pretrained(INSTRUCT))


@pytest.fixture(scope="module")
def task() -> GenerationTask:
    cards = {"input": "request", "reference": "card", "prompt": "Write the card of {{input}}, now."}
    own = OwnTask(file=str(FOLDER / "test.jsonl"), train=str(FOLDER / "train.jsonl"), **cards)
    return load_task("objectives.cards", "cards", Generation(own={"cards": own}))


def test_the_cards_in_the_repository_are_those_that_are_made() -> None:
    assert {name: (FOLDER / name).read_text() for name in files()} == files()


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_a_prompt_that_is_learned_is_the_one_that_is_asked(task: GenerationTask, lm: LedgerLM, chat: bool) -> None:
    task.set_config(key="generation_kwargs", value={"max_gen_toks": 32}, update=True)
    task.build_all_requests(
        limit=5,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=lm.apply_chat_template if chat else None,
        tokenizer_name="t",
    )
    asked = [lm.questions(instance)[0] for instance in task.instances]
    learned = labelled(task, task.examples.test[:5], lm, chat, 512, "finetune.tasks.cards")
    assert [each.prompt for each in learned] == [question.context for question in asked]
    for each, example in zip(learned, task.examples.test, strict=False):
        assert each.response[-1] == lm.eot_token_id, "it learns to stop"
        assert lm.tokenizer.decode(each.response[:-1]).strip() == example.reference


def test_a_long_prompt_loses_the_end_of_its_input_and_no_example_is_lost(task: GenerationTask, lm: LedgerLM) -> None:
    chosen = [Example("long", "word " * 200 + "END", "short reply"), *task.examples.training()[:3]]
    found = labelled(task, chosen, lm, True, 120, "finetune.tasks.cards")
    assert len(found) == 4 and [each.truncated > 0 for each in found] == [True, False, False, False]
    assert len(found[0].prompt) + len(found[0].response) <= 120
    text = lm.tokenizer.decode(found[0].prompt)
    assert "Write the card of word" in text and ", now." in text and "END" not in text
    assert digest(found) != digest(found[:3]) != digest(found[1:])
    doubted = [dataclasses.replace(found[0], weight=0.5), *found[1:]]
    assert digest(doubted) != digest(found), "weights change what is learned"
    with pytest.raises(UserError, match="raise max_length"):
        labelled(task, chosen, lm, True, 16, "finetune.tasks.cards")


def test_conversations_teach_their_last_answer(lm: LedgerLM, tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    turns = [("human", "What is it?"), ("gpt", "A dose."), ("human", "Which?"), ("gpt", "5 mg")]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns]}
    file.write_text(json.dumps(row) + "\n")
    (found,) = conversations(file, lm, 256, "finetune.baseline.file")
    assert lm.tokenizer.decode(found.response[:-1]).strip() == "5 mg"
    prompt = lm.tokenizer.decode(found.prompt)
    assert "A dose." in prompt and "5 mg" not in prompt and prompt.endswith("assistant\n")
    for wrong in ('{"text": 1}', "no JSON", '{"conversations": [{"from": "human", "value": "x"}]}'):
        file.write_text(json.dumps(row) + "\n" + wrong + "\n")
        with pytest.raises(UserError, match="line 2 is no conversation"):
            conversations(file, lm, 256, "finetune.baseline.file")


@given(st.sets(st.text(min_size=1, max_size=4), max_size=30), st.integers(0, 9), st.integers(0, 30), st.integers(0, 30))
def test_subsets_are_nested_and_do_not_depend_on_the_files_order(ids: set[str], seed: int, a: int, b: int) -> None:
    examples = [Example(each, "x", "y") for each in sorted(ids)]
    small, large = (subset(examples, count, seed) for count in sorted((a, b)))
    assert large[: len(small)] == small
    assert subset(examples[::-1], a, seed) == subset(examples, a, seed)
    assert len(small) == min(min(a, b), len(ids))


def test_what_is_tested_is_not_learned_from() -> None:
    test = [Example("1", "He has a cough.", "cough")]
    rows = [Example("a", "he has a COUGH", "cough"), Example("b", "He has a fever.", "fever"), Example("c", "", "none")]
    assert [each.id for each in Examples(test, 0, read_training=lambda: rows).training()] == ["b"]
