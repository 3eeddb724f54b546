"""The question that a document asks, so that the same question is recognised in another task, split or training file.

The question is what a document gives its prompt before the options: the values of its columns that stand in lm-eval's
`doc_to_text`, without what the template adds ("Question:", "Answer:") and without labelled options, because a benchmark
that repeats another one's questions often has more or other options (MMLU-Pro repeats MMLU's with up to ten). A task
file may name its column instead: `metadata: {mergefront: {question: COLUMN}}`. Case, white space, punctuation and
accents do not count.

A short stem such as "Which of the following is true?" says nothing without its options. So two documents are the same
question if their texts are equal and, the shorter these are, the more of their options are (`needed`).

A question may be a patient's text: nothing here is stored or shown but hashes and counts.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

CASE, SENTENCE = 25, 12
"""Words from which on a stem is a case of its own, which needs no options to be recognised, or a sentence that needs
one of them; a shorter one needs half."""
WORD = re.compile(r"[^\W_]+")
LABEL = re.compile(r"(?m)(?:^[ \t]*[(\[]?|(?<=\s)[(\[])([A-Za-z]|\d{1,2})[.):\]][ \t]*(?=\S)")
"""The label of an option: at the beginning of a line (`A.`, `b)`, `3:`), or in brackets anywhere (`(A)`)."""
FILLERS = frozenset(
    [
        "", "all", "none", "both", "allofthese", "noneofthese", "alloftheabove", "noneoftheabove", "bothoftheabove",
        "noneofthem", "allofthem", "allaretrue", "nonearetrue",
    ]
)  # fmt: skip
"""Options that say nothing about which question it is."""
LETTERS = frozenset("abcdefghij")
"""Names of options."""


def words(text: str) -> tuple[str, ...]:
    """Split a text into its words, without case, punctuation and accents."""
    folded = text.casefold()
    if not folded.isascii():
        apart = unicodedata.normalize("NFKD", folded)
        folded = "".join(char for char in apart if not unicodedata.combining(char))
    return tuple(WORD.findall(folded))


def plain(text: str) -> str:
    """Return a text that is equal for texts that differ in case, white space, punctuation and accents only."""
    return "".join(words(text)) or "".join(text.split())


@dataclass(frozen=True)
class Asked:
    """The question of a document."""

    words: tuple[str, ...]
    options: frozenset[str] = frozenset()
    """The options as `plain` texts, if the document has any."""

    @cached_property
    def text(self) -> str:
        """The question as one `plain` text."""
        return "".join(self.words)

    def needed(self, options: int) -> int:
        """Count the options that must be the same for two documents with this text to be the same question.

        Args:
            options: number of options of the document that has fewer.
        """
        if len(self.words) >= CASE:
            return 0
        half = max(2, -(-options // 2))
        return min(options, 1 if len(self.words) >= SENTENCE else half)

    def is_same(self, other: Asked) -> bool:
        """Whether two documents ask the same question; where one has no options, its text is all that it asks."""
        if self.text != other.text:
            return False
        fewer = min(len(self.options), len(other.options))
        return len(self.options & other.options) >= self.needed(fewer)


def question_of(task: Any, document: Any) -> Asked:
    """Read the question of a document, as the module says.

    Args:
        task: lm-eval's.

    Raises:
        Exception: whatever the task's own programs raise.
    """
    rendered = task.doc_to_text(document)
    text = rendered if isinstance(rendered, str) else ""
    head, options = _split_options(text)
    texts = sorted({words(each) for each in _texts(document)} - {()}, key=lambda each: (-len(each), each))
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = {words(choice) for choice in task.doc_to_choice(document) if isinstance(choice, str)}
        if not isinstance(task.config.doc_to_choice, list):  # else they are the same for every document
            options |= {"".join(choice) for choice in choices & set(texts)}
        texts = [each for each in texts if each not in choices]
    column = ((getattr(task.config, "metadata", None) or {}).get("mergefront") or {}).get("question")
    stem = words(str(document[column])) if column else _stem(words(text), len(words(head)), texts)
    if not stem:  # the prompt has nothing of the document, or the document nothing but signs
        content = json.dumps([text, document], sort_keys=True, default=str)
        stem = words(content) or (content,)
    return Asked(stem, frozenset(option for option in options - FILLERS if option not in LETTERS))


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a document, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _split_options(text: str) -> tuple[str, set[str]]:
    """Split a prompt at its options: what stands before the last run of labels A, B, … (or a, 1), and their texts."""
    run: list[re.Match[str]] = []
    found: list[re.Match[str]] = []
    for match in LABEL.finditer(text):
        label = match[1]
        if label in ("A", "a", "1"):
            run = [match]
        elif run and label == _after(run[-1][1]):
            run.append(match)
            found = run
    if not found:
        return text, set()
    ends = [*(match.start() for match in found[1:]), len(text)]
    options = [text[match.end() : end] for match, end in zip(found, ends, strict=True)]
    options[-1] = options[-1].split("\n")[0]
    return text[: found[0].start()], set(map(plain, options))


def _after(label: str) -> str:
    return str(int(label) + 1) if label.isdigit() else chr(ord(label) + 1)


def _stem(text: tuple[str, ...], head: int, texts: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The words of a prompt's head that come from the document, in the prompt's order.

    A single word may be a label, a subject or an answer that the template has too, so that it counts only where there
    is nothing longer.

    Args:
        text: words of the prompt.
        head: number of those before the options.
        texts: words of each text in the document, the longest first.
    """
    joined = f" {' '.join(text)} "
    starts = {place: number for number, place in enumerate(_places(text))}
    covered = [False] * len(text)
    for each in texts:
        if len(each) == 1 and any(covered[:head]):
            break
        wanted, at = f" {' '.join(each)} ", -1
        while (at := joined.find(wanted, at + 1)) >= 0:
            first = starts[at + 1]
            if not any(covered[first : first + len(each)]):
                covered[first : first + len(each)] = [True] * len(each)
    return tuple(word for word, is_in in zip(text[:head], covered, strict=False) if is_in)


def _places(text: tuple[str, ...]) -> Iterator[int]:
    """Yield where each word begins among all of them, joined by spaces with one before the first."""
    place = 1
    for word in text:
        yield place
        place += len(word) + 1


def digest(text: str) -> bytes:
    """Hash a plain text."""
    return hashlib.sha256(text.encode()).digest()
