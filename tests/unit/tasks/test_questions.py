"""The question that a document asks: the same one in other words of the template, and others with the same words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tasks.benchmarks.overlaps import KnownQuestions, Screen, clusters, describe_overlaps, find_overlaps
from tasks.benchmarks.questions import Asked, plain, question_of, words

LONG = "A 65-year-old man with atrial fibrillation takes warfarin and is given clarithromycin for a chest infection"


@dataclass
class Config:
    """lm-eval's settings of a task."""

    metadata: dict[str, Any] | None = None
    doc_to_choice: Any = None


@dataclass
class Task:
    """What is read of lm-eval's task."""

    text: Callable[[Any], Any]
    choice: Callable[[Any], Any] | None = None
    config: Config = field(default_factory=Config)

    @property
    def OUTPUT_TYPE(self) -> str:
        return "multiple_choice" if self.choice else "generate_until"

    def doc_to_text(self, document: Any) -> Any:
        return self.text(document)

    def doc_to_choice(self, document: Any) -> Any:
        assert self.choice
        return self.choice(document)


def lettered(options: list[str], form: str = "{}. ") -> str:
    return "\n".join(form.format(letter) + option for letter, option in zip("ABCDEFGHIJ", options, strict=False))


STEM = "Which organ does the A. hepatica supply?"
FOUR = ["The liver", "The lung", "The heart", "All of the above"]
LETTERS = Config(doc_to_choice=list("ABCD"))
MMLU = Task(lambda d: f"{d['question'].strip()}\n{lettered(d['choices'])}\nAnswer:", lambda d: list("ABCD"), LETTERS)
PRO = Task(
    lambda d: f"Question:\n{d['question']}\nOptions:\n{lettered(d['options'])}\nAnswer: Let's think step by step."
)
MEDQA = Task(
    lambda d: f"Question: {d['sent1']}\n{lettered([d['e0'], d['e1'], d['e2']])}\nAnswer:",
    lambda d: list("ABC"),
    LETTERS,
)
HELLA = Task(lambda d: d["ctx"], lambda d: d["endings"], Config(doc_to_choice="endings"))


@pytest.mark.parametrize(
    ("task", "document", "options"),
    [
        (MMLU, {"question": STEM, "subject": "anatomy", "choices": FOUR, "answer": 0}, {"theliver", "thelung", "theheart"}),
        (MMLU, {"question": f"  {STEM.upper()}\n", "choices": FOUR[::-1], "answer": 3}, {"theliver", "thelung", "theheart"}),
        (PRO, {"question": STEM.replace(" ", "  "), "options": [*FOUR, "The spleen"], "answer": "A", "category": "organ"}, {"theliver", "thelung", "theheart", "thespleen"}),
        (MEDQA, {"id": "1", "sent1": "Which órgan does the A. hepatica supply", "e0": "x y", "e1": "hepatica", "e2": "None of these"}, {"xy", "hepatica"}),
        (HELLA, {"ctx": STEM, "endings": ["The liver.", "The lung."], "label": "0"}, {"theliver", "thelung"}),
        (Task(lambda d: f"Q: {d['q']}\nA:"), {"q": STEM, "a": "The liver"}, set()),
        (Task(lambda d: f"{d['q']}\nAnswer:"), {"q": f"{STEM}\n(A) liver\n(B) lung", "a": "B"}, {"liver", "lung"}),
        (Task(lambda d: f"{d['q']} (a) liver (b) lung"), {"q": STEM}, {"liver", "lung"}),
        (Task(lambda d: f"{d['q']}\n" + lettered(d["o"], "{}) ")), {"q": STEM, "o": ["liver", "lung"]}, {"liver", "lung"}),
        (Task(lambda d: d["q"].lower().replace("?", "")), {"q": STEM}, set()),
        (Task(lambda d: f"Topic {d['t']['x'][0]}. Now"), {"t": {"x": [STEM]}}, set()),
        (Task(lambda d: f"Note of {d['section']}: {d['input']}", config=Config({"mergefront": {"question": "input"}})), {"section": "the past", "input": STEM}, set()),
    ],
)  # fmt: skip
def test_the_question_is_the_same_whatever_the_template_and_the_options(
    task: Task, document: dict[str, Any], options: set[str]
) -> None:
    assert question_of(task, document) == Asked(words(STEM), frozenset(options))


def test_what_the_template_says_is_no_part_of_a_question_and_what_it_leaves_out_is_one() -> None:
    card = Task(lambda d: f"Write the card of {d['input']}.")
    assert question_of(card, {"id": "1", "input": "Aspirin", "reference": "b"}).words == ("aspirin",)
    passage = Task(lambda d: f"Passage: {d['passage']}\nQuestion: {d['question']}\nAnswer:")
    first, second = (
        question_of(passage, {"passage": p, "question": "Is it so?"}) for p in ("It is so.", "It was not.")
    )
    assert first.text != second.text, "the same words about another text are another question"
    fixed = Task(lambda d: "Describe the picture.")
    assert question_of(fixed, {"file": "a.png"}) != question_of(fixed, {"file": "b.png"})
    blank = Task(lambda d: 0)  # lm-eval's tasks of several inputs give an index
    assert question_of(blank, {"first": "One text.", "second": "And two."}) != question_of(
        blank, {"first": "One text."}
    )
    assert question_of(Task(lambda d: d), "A text alone.").words == ("a", "text", "alone")


GENERIC = words("Which of the following is true?")
SENTENCE = words("Which of the following statements about the patient who was described above is true?")


@pytest.mark.parametrize(
    ("stem", "one", "other", "same"),
    [
        (GENERIC, "a1 a2 a3 a4", "b1 b2 b3 b4", False),
        (GENERIC, "a1 a2 a3 a4", "a1 b2 b3 b4", False),
        (GENERIC, "a1 a2 a3 a4", "a4 a3 c2 c1 c3 c4 c5 c6 c7", True),
        (GENERIC, "a1 a2 a3 a4", "", True),
        (GENERIC, "yes no", "no yes", True),
        (SENTENCE, "a1 a2 a3 a4", "b1 b2 b3 b4", False),
        (SENTENCE, "a1 a2 a3 a4", "a1 b2 b3 b4", True),
        (words(f"{LONG}. Which of the following is the most likely result of this?"), "a1 a2", "b1 b2", True),
    ],
)
def test_the_shorter_a_stem_the_more_options_must_be_the_same(
    stem: tuple[str, ...], one: str, other: str, same: bool
) -> None:
    a, b = (Asked(stem, frozenset(options.split())) for options in (one, other))
    assert a.is_same(b) is b.is_same(a) is same
    numbers = clusters([a, b])
    assert (numbers[a] == numbers[b]) is same
    assert numbers == clusters([b, a]) and all(0 <= number < 2**63 for number in numbers.values())


def test_clusters_join_what_is_the_same_through_a_third() -> None:
    a, b, c = (Asked(GENERIC, frozenset(options.split())) for options in ("1 2 3 4", "3 4 5 6", "5 6 7 8"))
    assert not a.is_same(c)
    assert len(set(clusters([a, c]).values())) == 2 and len(set(clusters([a, c, b]).values())) == 1


def test_overlaps_are_counted_by_task() -> None:
    found = find_overlaps({"a": [1, 2, 3, 3], "b": [2, 3, 9], "c": [7, 8], "d": [8]})
    assert [(each.task, each.repeats, each.in_others, each.shared) for each in found] == [
        ("a", 1, 3, {"b": 3}),
        ("b", 0, 2, {"a": 2}),
        ("c", 0, 1, {"d": 1}),
        ("d", 0, 1, {"c": 1}),
    ]
    assert describe_overlaps(found)[0].startswith(
        "a: 3 of 4 documents ask a question that another task asks too (3 of b)"
    )


def test_case_space_punctuation_and_accents_do_not_count() -> None:
    assert plain("Ménière’s  DISEASE, ____ X-ray:") == plain("meniere's disease — xray")
    assert plain("β-blocker") != plain("α-blocker") and plain("…") == "…"
    assert plain("ﬁbrosis Ⅳ") == plain("fibrosis iv")


ASKED = Asked(words(f"{LONG}. What happens?"), frozenset({"bleeding", "clots"}))
SHORT = Asked(words("Which drug treats absence seizures in children best?"), frozenset(map(plain, ["Ethosuximide", "Valproate", "Lamotrigine", "Carbamazepine"])))  # fmt: skip
TRUE = Asked(GENERIC, frozenset(map(plain, ["The liver is large", "The heart is small", "The lung is red", "Bile is green"])))  # fmt: skip
DRUG = Asked(("aspirin",))


@pytest.mark.parametrize(
    ("prompts", "answer", "tasks"),
    [
        ([f"Answer this: {LONG.upper()}. What happens? A. Bleeding B. Clots"], "A", ["case"]),
        (["You are a doctor.", f"{LONG}; what happens?"], "He bleeds: bleeding.", ["case"]),
        ([f"{LONG}. What should be done?"], "Stop it.", []),
        (["Which drug treats absence seizures in children best?"], "It is ethosuximide.", ["short"]),
        (["Hello. Which drug treats absence seizures in children best? Valproate or ethosuximide?"], "-", ["short"]),
        (["Hello. Which drug treats absence seizures in children best? Answer from the note."], "None.", []),
        (["Which of the following is true?\nA. Water is wet\nB. Fire is cold"], "A", []),
        (["Question: which of the following is TRUE\n(a) The liver is large (b) The heart is small"], "a", ["true"]),
        (["aspirin"], "A drug.", ["drug"]),
        (["What is aspirin?"], "A drug.", []),
    ],
)
def test_questions_are_found_in_what_is_trained_on(prompts: list[str], answer: str, tasks: list[str]) -> None:
    known = KnownQuestions({"case": [ASKED], "short": [SHORT], "true": [TRUE], "drug": [DRUG]})
    assert known.tasks_in(prompts, answer) == tasks


@pytest.mark.parametrize("leave_out", [False, True])
def test_examples_with_a_test_question_are_counted_and_left_out_on_request(leave_out: bool) -> None:
    screen = Screen({"drug": [DRUG], "other": [DRUG]}, leave_out)
    assert screen.keeps("finetune.baseline.file", ["Aspirin!"], "x") is not leave_out
    assert screen.keeps("finetune.baseline.file", ["Ibuprofen!"], "x")
    long = f"{LONG}. And so on."
    screen = Screen({"drug": [DRUG, Asked(words(LONG))], "other": [DRUG]}, leave_out)
    assert screen.keeps("finetune.tasks.y", [long], "x", own="drug"), "inputs of one task are written alike"
    assert screen.keeps("finetune.tasks.x", [long], "x", own="other") is not leave_out
    assert screen.describe()[0].startswith("finetune.tasks.x: 1 of 1 examples ")
    screen = Screen({"drug": [DRUG], "other": [DRUG]}, leave_out)
    for prompt in ("Ibuprofen!", "Aspirin."):
        screen.keeps("finetune.baseline.file", [prompt], "x")
    assert screen.keeps("finetune.tasks.y", ["Aspirin"], "x", own="drug") is not leave_out
    said = screen.describe()
    assert said[0].startswith("finetune.baseline.file: 1 of 2 examples ") and "(1 of drug and 1 of other)" in said[0]
    assert said[1].startswith("finetune.tasks.y: 1 of 1 examples ") and "(1 of drug and 1 of other)" in said[1]
    assert all(("are left out" in each) is leave_out and "spirin" not in each for each in said)
