"""Labelled examples as tokens: the prompts of serving, cut at their input, and no example lost."""

from __future__ import annotations

import copy
import dataclasses
import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from orchestrator.config.generation import Generation, OwnTask
from orchestrator.config.objectives import Objective
from orchestrator.core.errors import UserError
from orchestrator.core.records import Serving
from orchestrator.core.row import Row
from orchestrator.core.user_file import UserFile
from tasks.demo.cards import FOLDER, files
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.finetuning.conversations import to_last_answer
from tasks.finetuning.examples import Labelled, conversations, digest, labelled, subset
from tasks.generation.sources import Example, Examples
from tasks.generation.task import GenerationTask, load_task
from tests.helpers.clinical import SECRET
from tests.helpers.paths import INSTRUCT
from tests.helpers.templates import DEAF, STRICT

WHERE = "finetune.tasks.cards"


def objective(chat: bool = True) -> Objective:
    return Objective(tasks=["cards"], apply_chat_template=chat)


@pytest.fixture(scope="module")
def lm() -> LedgerLM:
    serving = Serving("t", None, (2,), 512, "x", (), "instruct", str(INSTRUCT))
    return LedgerLM(serving, AutoTokenizer.from_pretrained(INSTRUCT))


@pytest.fixture(scope="module")
def task() -> GenerationTask:
    own = OwnTask(
        file=str(FOLDER / "test.jsonl"),
        train=str(FOLDER / "train.jsonl"),
        input="request",
        reference="card",
        prompt="Write the card of {{input}}, now.",
    )
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
    learned = labelled(task, task.examples.test[:5], lm, objective(chat), max_length=512, where=WHERE)
    assert [each.prompt for each in learned] == [question.context for question in asked]
    for each, example in zip(learned, task.examples.test, strict=False):
        assert each.response[-1] == lm.eot_token_id, "it learns to stop"
        assert lm.tokenizer.decode(each.response[:-1]).strip() == example.reference


def test_a_long_prompt_loses_the_end_of_its_input_and_no_example_is_lost(task: GenerationTask, lm: LedgerLM) -> None:
    chosen = [Example("long", "word " * 200 + "END", "short reply"), *task.examples.training()[:3]]
    found = labelled(task, chosen, lm, objective(), max_length=120, where=WHERE)
    assert len(found) == 4 and [each.truncated > 0 for each in found] == [True, False, False, False]
    assert len(found[0].prompt) + len(found[0].response) <= 120
    text = lm.tokenizer.decode(found[0].prompt)
    assert "Write the card of word" in text and ", now." in text and "END" not in text
    assert digest(found) != digest(found[:3]) != digest(found[1:])
    doubted = [dataclasses.replace(found[0], weight=0.5), *found[1:]]
    assert digest(doubted) != digest(found), "weights change what is learned"
    with pytest.raises(UserError, match="raise max_length"):
        labelled(task, chosen, lm, objective(), max_length=16, where=WHERE)


def said(*turns: tuple[object, object]) -> dict[str, Any]:
    return {"conversations": [{"from": side, "value": text} for side, text in turns]}


def everything(prompts: Sequence[str], answer: str) -> bool:
    return True


def read(lm: LedgerLM, folder: Path, *rows: object) -> list[Labelled]:
    (folder / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return conversations(folder / "set.jsonl", lm, 256, "finetune.baseline.file", everything)


ASKED = (("human", "What is it?"), ("gpt", "A dose."), ("human", "Which?"), ("gpt", "5 mg"))
MESSAGES = {"messages": [{"role": role, "content": text} for role, text in (("user", "Which?"), ("assistant", "5 mg"))]}


@pytest.mark.parametrize(
    ("row", "before"),
    [
        (said(*ASKED), "A dose."),
        (said(*ASKED, ("human", "thanks")), "A dose."),
        (said(("user", "Which?"), ("assistant", "5 mg")), "Which?"),
        (MESSAGES, "Which?"),
        (said(("system", "You are a doctor."), *ASKED), "You are a doctor."),
        (said(("system", ""), *ASKED), "A dose."),
        (said(("gpt", "Hello."), *ASKED), "Hello."),
    ],
    ids=["two answers", "thanks", "trl's roles", "trl's messages", "system turn", "empty system turn", "greeting"],
)
def test_conversations_teach_their_last_answer(row: object, before: str, lm: LedgerLM, tmp_path: Path) -> None:
    (found,) = read(lm, tmp_path, row)
    assert lm.tokenizer.decode(found.response[:-1]).strip() == "5 mg"
    prompt = lm.tokenizer.decode(found.prompt)
    assert before in prompt and "5 mg" not in prompt and "thanks" not in prompt and prompt.endswith("assistant\n")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": 1}, "is no conversation; write"),
        ([1], "is no object"),
        (said(("human", "x")), "has no answer to learn"),
        (said(("gpt", "x"), ("human", "x")), "has no answer to learn"),
        (said(("human", "x"), ("gpt", None)), "conversations[1].value is null, not text"),
        (said(("human", {SECRET: 1}), ("gpt", "x")), "conversations[0].value is an object, not text"),
        (said(("human", [SECRET]), ("gpt", "x")), "conversations[0].value is a list, not text"),
        (said(("human", "x"), ("gpt", 5)), "conversations[1].value is a number, not text"),
        (said(("human", f"{SECRET}\ud83d"), ("gpt", "x")), "conversations[0].value has half of a character"),
        (said(("human", "x"), ("gpt", " ")), "conversations[1].value is empty"),
        (said(("human", "x"), ("tool", SECRET), ("gpt", "x")), "conversations[1].from is none of user, human"),
        (said((None, "x"), ("gpt", "x")), "conversations[0].from is null, not text"),
        ({"messages": [SECRET]}, "is no conversation: messages[0] has no 'role' and 'content'"),
        ({**said(*ASKED), **MESSAGES}, "has both conversations and messages; keep one"),
        ({**said(*ASKED), "system": "Be brief."}, "has 'system' beside its turns, which is not read"),
        (
            {"messages": [MESSAGES["messages"][0], {**MESSAGES["messages"][1], "weight": 0}]},
            "marks its last answer (weight, train) as none to learn",
        ),
    ],
)
def test_a_line_that_teaches_nothing_is_named(row: object, expected: str, lm: LedgerLM, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"line 2: {expected}")) as caught:
        read(lm, tmp_path, said(*ASKED), row)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "row", "expected"),
    [
        (
            STRICT,
            said(("system", "x"), *ASKED),
            "the chat template of instruct refuses it (System role not supported)",
        ),
        (STRICT, said(("gpt", "x"), *ASKED), "the chat template of instruct refuses it (Roles must alternate)"),
        (DEAF, said(("system", "x"), *ASKED), "the chat template of instruct leaves its system turn out"),
    ],
)
def test_a_conversation_that_the_template_refuses_is_named(
    template: str, row: object, expected: str, lm: LedgerLM, tmp_path: Path
) -> None:
    strict = copy.copy(lm)
    strict.tokenizer = AutoTokenizer.from_pretrained(INSTRUCT)
    strict.tokenizer.chat_template = template
    with pytest.raises(UserError, match=re.escape(f"line 2: {expected}")):
        read(strict, tmp_path, said(*ASKED), row)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", "\ufeff" + json.dumps(said(*ASKED))),
        ("separators.jsonl", json.dumps(said(("human", "a\u2028b\x85c"), ("gpt", "5 mg")), ensure_ascii=False)),
        ("array.json", json.dumps([{"id": "q1", "type": "Exam", **said(*ASKED)}], indent=2)),
        ("packed.jsonl.gz", gzip.compress(json.dumps(MESSAGES).encode(), mtime=0)),
    ],
)
def test_instructions_come_in_the_forms_they_are_published_in(
    name: str, content: str | bytes, lm: LedgerLM, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert len(conversations(tmp_path / name, lm, 256, "finetune.baseline.file", everything)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "set.jsonl: is empty"), ("{'conversations': []}\n", "line 1: is not valid JSON"), (None, "does not exist")],
)
def test_a_file_without_conversations_is_named(content: str | None, message: str, lm: LedgerLM, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "set.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        conversations(tmp_path / "set.jsonl", lm, 256, "finetune.baseline.file", everything)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.sampled_from(["human", "gpt", "\ud83d"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["from", "value", "role", "content", "conversations", "messages"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["conversations", "messages"]), st.lists(json_values) | json_values))
def test_any_json_is_a_conversation_or_a_users_error(values: dict[str, Any]) -> None:
    try:
        turns = to_last_answer(Row(UserFile(Path("f"), "the.key"), 1, "line 1", values))
    except UserError as error:
        assert str(error).startswith("the.key: f, line 1: ")
    else:
        assert turns[-1]["role"] == "assistant" and all(isinstance(turn["content"], str) for turn in turns)


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
