"""MedQuAD (Ben Abacha & Demner-Fushman 2019): medical questions and answers from the NIH's sites.

They become the three tasks of the ICFT paper: question answering (find the answer among four), preference
classification (name the better of two), and response generation; each with rules that say what kind of error was made.

Wrong answers are right answers to other questions. How they were drawn names the error of choosing them:

- `wrong aspect`: about the same condition, but another question (its symptoms instead of its treatment);
- `wrong condition`: the same kind of question, about another condition;
- `unrelated`: neither.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from examples.medquad.weak_labels import Written
from orchestrator.core.rows import read_rows
from tasks.finetuning.conversations import to_last_answer
from tasks.finetuning.rows import WeightedExample, difficulties, encode, pad_of
from tasks.generation.metrics import distinct
from tasks.generation.reader import Reader, text_of
from tasks.generation.sources import is_test

ORIGIN = "https://github.com/abachaa/MedQuAD"
CHATS = ("sft_train.jsonl", "sft_validation.jsonl")
WRONG = ("wrong aspect", "wrong condition", "unrelated")
GENERATION_ERRORS = ("empty", "cut off", "repetitive", "off topic")
LETTERS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class QuestionAnswer:
    """A question and its answer."""

    question: str
    answer: str
    kind: str
    """What the question is about: symptoms, treatment, …"""
    focus: str
    """The condition that it is about."""


@dataclass(frozen=True)
class MedQuad:
    """The data set's pairs, by split."""

    train: list[QuestionAnswer]
    test: list[QuestionAnswer]
    incomplete: int
    """Pairs without a question or an answer, left out: the authors removed the answers of three sources."""
    remarks: tuple[str, ...] = ()
    """What a reader of results must know about the files."""


@dataclass(frozen=True)
class Choice:
    """One right option among wrong ones."""

    prompt: str
    options: tuple[str, ...]
    right: int
    errors: tuple[str, ...]
    """What it means to choose each option; empty for the right one."""

    @property
    def example(self) -> WeightedExample:
        """The right option, to train on."""
        return WeightedExample(self.prompt, self.options[self.right])

    @property
    def lettered(self) -> WeightedExample:
        """The question with all options, to name the right one by its letter."""
        listed = "\n".join(f"{letter}: {text}" for letter, text in zip(LETTERS, self.options, strict=False))
        named = ", ".join(LETTERS[: len(self.options)])
        prompt = f"Question: {self.prompt}\n{listed}\nWhich answer is right: {named}?"
        return WeightedExample(prompt, LETTERS[self.right])


# -------------------------------------------------------------------- reading
def read_medquad(folder: Path) -> MedQuad:
    """Read the pairs of questions and answers.

    Args:
        folder: the authors' XML files, of which every tenth document is test; or `sft_train.jsonl` and
            `sft_validation.jsonl` (the test pairs) with `messages`, `qtype` and `focus`.

    Raises:
        UserError: it is not there, or not in this form.
    """
    reader = Reader("medquad", folder, ORIGIN)
    reader.check_folder()
    documents, chats = reader.documents(".xml"), [reader.find_any(name) for name in CHATS]
    if documents and any(chats):
        raise reader.wrong(f"has {len(documents)} XML documents and {CHATS[0]} or {CHATS[1]}; keep one form of the set")
    if documents:
        pairs = [(is_test(file.stem, one_in=10), pair) for file in documents for pair in _document(reader, file)]
        reader.count("the folder", "XML document", len(documents), published=11_274)
    else:
        pairs = [(name == CHATS[1], pair) for name in CHATS for pair in _chats(reader, reader.find(name))]
    complete = [(test, pair) for test, pair in pairs if pair.question and pair.answer]
    train, test = ([pair for is_in, pair in complete if is_in == wanted] for wanted in (False, True))
    return MedQuad(train, test, len(pairs) - len(complete), tuple(reader.remarks))


def _document(reader: Reader, file: Path) -> Iterator[QuestionAnswer]:
    root = reader.parse_xml(file)
    focus = text_of(root.find("Focus"))
    for pair in root.iter("QAPair"):
        question, answer = pair.find("Question"), text_of(pair.find("Answer"))
        if question is None:
            raise reader.wrong(f"{file} has a QAPair without Question")
        yield QuestionAnswer(text_of(question), answer, question.get("qtype", ""), focus)


def _chats(reader: Reader, file: Path) -> Iterator[QuestionAnswer]:
    for row in read_rows(reader.file(file)):
        said = {turn["role"]: turn["content"].strip() for turn in to_last_answer(row)}
        if not {"user", "assistant"} <= set(said):
            raise row.wrong("messages is no list of a user's and an assistant's turn (role, content)")
        yield QuestionAnswer(said["user"], said["assistant"], row.text("qtype"), row.text("focus"))


def shorten(pairs: Sequence[QuestionAnswer], words: int) -> list[QuestionAnswer]:
    """Cut answers to so many words at most: whole sentences, or the start of the first."""
    return [replace(pair, answer=_first_sentences(pair.answer, words)) for pair in pairs]


def _first_sentences(text: str, words: int) -> str:
    from nltk import sent_tokenize

    kept: list[str] = []
    for sentence in sent_tokenize(text):
        if len([*kept, *sentence.split()]) > words:
            break
        kept += sentence.split()
    return " ".join(kept or text.split()[:words])


# -------------------------------------------------------------------- the three tasks
def question_answering(
    pairs: Sequence[QuestionAnswer], pool: Sequence[QuestionAnswer], seed: int, options: int = 4
) -> list[Choice]:
    """Make each question a choice among answers, of which one is its own.

    Args:
        pool: what the wrong answers are drawn from; it needs as many different answers as there are options.
    """
    rng, known = Random(seed), OptionPool(pool)
    choices = []
    for pair in pairs:
        wrong = known.others(pair, options - 1, rng)
        order = rng.sample([("", pair.answer), *wrong], options)
        errors, texts = zip(*order, strict=True)
        choices.append(Choice(pair.question, texts, errors.index(""), errors))
    return choices


@dataclass(frozen=True)
class Preference:
    """Two answers to a question; the better one is its own."""

    question: str
    answers: tuple[str, str]
    better: int
    error: str
    """The kind of error that choosing the other one is."""

    @property
    def choice(self) -> Choice:
        """The question with both answers, to name the better one by its letter."""
        listed = "\n".join(f"{letter}: {text}" for letter, text in zip(LETTERS, self.answers, strict=False))
        prompt = f"Question: {self.question}\n{listed}\nWhich answer is better, A or B?"
        errors = tuple("" if place == self.better else self.error for place in range(2))
        return Choice(prompt, LETTERS[:2], self.better, errors)


def preferences(pairs: Sequence[QuestionAnswer], pool: Sequence[QuestionAnswer], seed: int) -> list[Preference]:
    """Pair each true answer with another question's; as many errors of each class as the pool allows."""
    rng, known = Random(seed), OptionPool(pool)
    found = []
    for number, pair in enumerate(pairs):
        error, other = known.others(pair, 1, rng, first=number)[0]
        better = rng.randrange(2)
        answers = (pair.answer, other) if better == 0 else (other, pair.answer)
        found.append(Preference(pair.question, answers, better, error))
    return found


def responses(pairs: Sequence[QuestionAnswer]) -> list[WeightedExample]:
    """Make examples of response generation."""
    return [WeightedExample(pair.question, pair.answer) for pair in pairs]


class OptionPool:
    """Answers to draw wrong ones from."""

    def __init__(self, pairs: Sequence[QuestionAnswer]) -> None:
        self.pairs = list(pairs)
        self._by_focus: dict[str, list[QuestionAnswer]] = defaultdict(list)
        self._by_kind: dict[str, list[QuestionAnswer]] = defaultdict(list)
        for pair in pairs:
            self._by_focus[pair.focus].append(pair)
            self._by_kind[pair.kind].append(pair)

    def others(self, pair: QuestionAnswer, count: int, rng: Random, first: int = 0) -> list[tuple[str, str]]:
        """Draw different wrong answers with their error classes.

        One of each class in turn, from the `first` on; a class that has none left is passed over.
        """
        sources = [self._by_focus[pair.focus], self._by_kind[pair.kind], self.pairs]
        left = {error: rng.sample(source, len(source)) for error, source in zip(WRONG, sources, strict=True)}
        taken, turn = {pair.answer}, first
        found: list[tuple[str, str]] = []
        while len(found) < count and any(left.values()):
            error = WRONG[turn % len(WRONG)]
            turn += 1
            while left[error]:
                other = left[error].pop()
                if other.answer not in taken and class_of(pair, other) == error:
                    taken.add(other.answer)
                    found.append((error, other.answer))
                    break
        assert len(found) == count, "the pool has fewer different answers than there are options"
        return found


def class_of(pair: QuestionAnswer, other: QuestionAnswer) -> str:
    """Name the error of giving the other pair's answer to this pair's question."""
    if pair.focus == other.focus:
        return "wrong aspect"
    return "wrong condition" if pair.kind == other.kind else "unrelated"


def label_by_overlap(pair: Preference) -> WeightedExample:
    """Label a preference by a rule: the answer that has more of the question's words is the better one.

    Its weight is the difference of the two shares: 0 where they are equal, 1 where one has all words and the other
    none.
    """
    words = set(_words(pair.question))
    shares = [len(words & set(_words(answer))) / max(1, len(words)) for answer in pair.answers]
    return WeightedExample(pair.choice.prompt, LETTERS[shares[1] > shares[0]], abs(shares[0] - shares[1]))


def _words(text: str) -> list[str]:
    """Those that carry meaning: of four letters at least."""
    return re.findall(r"\w{4,}", text.lower())


# -------------------------------------------------------------------- judging
def choose(model: Any, tokenizer: Any, choices: Sequence[Choice]) -> list[int]:
    """Choose the option of each that the model finds likeliest, by its mean log-probability a token."""
    options = [WeightedExample(choice.prompt, option) for choice in choices for option in choice.options]
    losses = iter(difficulties(model, [encode(option, tokenizer) for option in options], pad_of(tokenizer)))
    found = []
    for choice in choices:
        own = [next(losses) for _ in choice.options]
        found.append(own.index(min(own)))
    return found


def generation_error(pair: QuestionAnswer, written: Written) -> str:
    """Name the first error that a generated answer has, or nothing.

    `empty`; `cut off`, not ended within the allowed tokens; `repetitive`, more than half of its 4-grams are repeated;
    `off topic`, without a word of the condition's name.
    """
    text = written.text.strip()
    if not text:
        return "empty"
    if not written.finished:
        return "cut off"
    if len(text.split()) >= 4 and distinct([text], 4) < 0.5:
        return "repetitive"
    named = set(_words(pair.focus))
    return "off topic" if named and not named & set(_words(text)) else ""
