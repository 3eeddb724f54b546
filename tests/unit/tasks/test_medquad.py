"""MedQuAD as three tasks, on a handful of pairs and on the real data set."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from examples.medquad.pairs import (
    WRONG,
    Preference,
    QuestionAnswer,
    choose,
    class_of,
    generation_error,
    label_by_overlap,
    preferences,
    question_answering,
    read_medquad,
    responses,
    shorten,
)
from examples.medquad.prepare import prepare
from examples.medquad.weak_labels import Written
from orchestrator.config.generation import OwnTask
from orchestrator.core.errors import UserError
from tasks.generation.metrics import distinct
from tasks.generation.own import own_examples
from tests.helpers.paths import CLINICAL, DATA

REAL = DATA / "medquad"
PAIRS = [
    QuestionAnswer(
        f"What is the {kind} of {focus}?", f"The {kind} of {focus} is number {row * 10 + column}.", kind, focus
    )
    for row, focus in enumerate(["Rabies", "Measles", "Gout"])
    for column, kind in enumerate(["treatment", "cause", "frequency"])
]
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="0000342" source="CDC" url="https://example.org/rabies"><Focus>Rabies</Focus><QAPairs>
<QAPair pid="1"><Question qid="0000342-1" qtype="symptoms">What are the symptoms of Rabies ?</Question>
<Answer>Fever, then fear of water.</Answer></QAPair>
<QAPair pid="2"><Question qid="0000342-2" qtype="treatment">What treats Rabies ?</Question><Answer/></QAPair>
</QAPairs></Document>"""


def test_a_question_has_its_own_answer_among_others_of_every_class() -> None:
    choices = question_answering(PAIRS, PAIRS, seed=0)
    for pair, choice in zip(PAIRS, choices, strict=True):
        assert choice.prompt == pair.question and choice.options[choice.right] == pair.answer
        assert len(set(choice.options)) == 4
        assert sorted(choice.errors) == sorted(["", *WRONG])
        owner = {other.answer: other for other in PAIRS}
        for option, error in zip(choice.options, choice.errors, strict=True):
            assert error == (class_of(pair, owner[option]) if option != pair.answer else "")
        assert choice.example.completion == pair.answer
    assert choices == question_answering(PAIRS, PAIRS, seed=0) != question_answering(PAIRS, PAIRS, seed=1)
    assert len({choice.right for choice in choices}) > 1


def test_a_preference_sets_the_true_answer_against_another_questions() -> None:
    pairs = preferences(PAIRS, PAIRS, seed=0)
    for own, pair in zip(PAIRS, pairs, strict=True):
        assert pair.answers[pair.better] == own.answer != pair.answers[1 - pair.better]
        choice = pair.choice
        assert choice.options == ("A", "B") and choice.errors[choice.right] == ""
        assert f"{choice.options[choice.right]}: {own.answer}" in choice.prompt
    assert Counter(pair.error for pair in pairs) == dict.fromkeys(WRONG, 3)
    assert {pair.better for pair in pairs} == {0, 1}
    assert pairs == preferences(PAIRS, PAIRS, seed=0) != preferences(PAIRS, PAIRS, seed=1)


def test_a_pool_without_one_class_gives_the_others() -> None:
    alone = [PAIRS[0], PAIRS[4]]
    assert [pair.error for pair in preferences(alone, alone, seed=0)] == ["unrelated", "unrelated"]


def test_overlap_labels_with_its_confidence() -> None:
    pair = Preference("What causes rabies infection?", ("A virus causes rabies.", "It itches."), 1, "unrelated")
    label = label_by_overlap(pair)
    # `what causes rabies infection` are the four words that count; the first answer has two of them.
    assert (label.prompt, label.completion, label.weight) == (pair.choice.prompt, "A", 0.5)
    turned = Preference(pair.question, (pair.answers[1], pair.answers[0]), 0, "unrelated")
    assert label_by_overlap(turned).completion == "B"
    assert label_by_overlap(Preference(pair.question, ("x", "y"), 0, "unrelated")).weight == 0


@pytest.mark.parametrize(
    ("text", "finished", "error"),
    [
        ("  ", True, "empty"),
        ("Rabies is", False, "cut off"),
        ("it is a it is a it is a it is a it is a", True, "repetitive"),
        ("It spreads by coughing.", True, "off topic"),
        ("rabies spreads by bites.", True, ""),
    ],
)
def test_errors_of_generated_text(text: str, finished: bool, error: str) -> None:
    assert generation_error(PAIRS[0], Written(text, finished, 1.0)) == error


def test_distinct_counts_over_all_texts_together() -> None:
    assert distinct(["the cat sat", "The cat ran"], 1) == 4 / 6
    assert distinct(["the cat sat", "The cat ran"], 2) == 3 / 4
    assert distinct(["", "one"], 2) == 0


def test_answers_are_shortened_to_whole_sentences() -> None:
    pair = QuestionAnswer("q", "One two three. Four five. Six.", "k", "f")
    assert [shorten([pair], words)[0].answer for words in (2, 3, 5, 9)] == [
        "One two", "One two three.", "One two three. Four five.", "One two three. Four five. Six."
    ]  # fmt: skip


def test_the_authors_files_are_read(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / "4_CDC").mkdir(exist_ok=True)
        (tmp_path / "4_CDC" / f"{number:07}.xml").write_text(PAGE)
    data = read_medquad(tmp_path)
    assert data.incomplete == 40 and len(data.train) + len(data.test) == 40 and 0 < len(data.test) < 20
    assert data.train[0] == QuestionAnswer(
        "What are the symptoms of Rabies ?", "Fever, then fear of water.", "symptoms", "Rabies"
    )
    (tmp_path / "4_CDC" / "0000003.xml").write_text("<Document>")
    with pytest.raises(UserError, match=r"0000003.xml is not valid XML \(line 1\)"):
        read_medquad(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (None, "sft_train.jsonl is not there"),
        ("{}", "line 1: is no conversation"),
        ('{"messages": "secret", "qtype": "", "focus": ""}', "line 1: is no conversation"),
        (
            json.dumps({"messages": [{"role": "user", "content": "secret"}], "qtype": "", "focus": ""}),
            "line 1: has no answer to learn",
        ),
    ],
)
def test_wrong_files_are_told_by_name_and_not_by_what_they_say(tmp_path: Path, line: str | None, message: str) -> None:
    if line is not None:
        (tmp_path / "sft_train.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        read_medquad(tmp_path)
    assert "secret" not in str(caught.value) and "sft_train.jsonl" in str(caught.value)


def test_a_model_chooses_what_it_was_trained_on() -> None:
    """The demo's clinical parent knows its formulary."""
    from transformers import AutoTokenizer

    from examples.medquad.pairs import Choice
    from tasks.demo import formulary
    from tasks.finetuning.rows import load

    folder = CLINICAL
    asked = [
        Choice(each["question"], tuple(f" {text}" for text in each["choices"]), each["answer"], ("",) * 4)
        for each in formulary.documents()[:24]
    ]
    chosen = choose(load(folder), AutoTokenizer.from_pretrained(folder), asked)
    assert sum(place == choice.right for place, choice in zip(chosen, asked, strict=True)) >= 20


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the data sets in MERGEFRONT_DATA")
def test_the_real_data_set() -> None:
    data = read_medquad(REAL)
    assert (len(data.train), len(data.test), data.incomplete) == (3000, 300, 0)
    pairs = preferences(data.test, data.train, seed=0)
    classes = Counter(pair.error for pair in pairs)
    assert set(classes) == set(WRONG) and min(classes.values()) > 30
    assert len(responses(data.test)) == 300
    right = [pair.choice.options[pair.better] == label_by_overlap(pair).completion for pair in pairs]
    assert sum(right) / 300 > 0.6, "the rule is better than chance"


def test_the_three_tasks_and_weak_labels_become_files_that_a_sweep_reads(tmp_path: Path) -> None:
    rows = [
        {"qtype": pair.kind, "focus": pair.focus, "messages": [
            {"role": "user", "content": pair.question}, {"role": "assistant", "content": pair.answer}]}
        for pair in PAIRS
    ]  # fmt: skip
    for name in ("sft_train.jsonl", "sft_validation.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(tmp_path, tmp_path / "to", words=60, train=9, test=5, labelled=3, model=None)

    def written(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (tmp_path / "to" / f"{name}.jsonl").read_text().splitlines()]

    assert {row["reply"] for row in written("answering-train")} <= set("ABCD")
    assert {row["reply"] for row in written("preference-test")} <= set("AB") and len(written("preference-test")) == 5
    weak = written("weak-train")
    assert [row["weight"] for row in weak[:3]] == [1, 1, 1] and any(row["weight"] < 1 for row in weak[3:])
    own = OwnTask(
        file=str(tmp_path / "to" / "preference-test.jsonl"), train=str(tmp_path / "to" / "weak-train.jsonl"),
        input="request", reference="reply", prompt="{{input}}", weight="weight",
    )  # fmt: skip
    assert [each.weight for each in own_examples("weak", own).read_training()] == [row["weight"] for row in weak]
