"""Statements of a clinical text that its source does not support: numbers, doses, sides, negated findings.

A signal for triage, not a verdict. Of what MTS-Dialog's 400 test sections state, it finds 64 % supported by their own
dialogue (numbers 82 %, doses 64 %, sides 85 %, negated findings 45 %) and 5 % by another one. So compare recipes by it,
and take no value of it for a rate of errors. The rules know words and no medicine: `dyspnea` where the source says
`shortness of breath` counts as unsupported when negated, a number that was rightly computed counts as unsupported, and
what is wrong in words alone (a wrong drug, a finding that is affirmed) is not looked at. An ordinal is a number, in
`a second opinion` too. A text that states nothing checkable has nothing unsupported, so read it beside the composite:
an empty text is faithful.

No library is used: negspacy and medspacy look for negation around entities that a trained model must find first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise, takewhile
from typing import Literal

UNITS = {
    "mg": "mg", "milligram": "mg", "milligrams": "mg", "mgs": "mg", "g": "g", "gram": "g", "grams": "g", "gm": "g",
    "mcg": "mcg", "ug": "mcg", "µg": "mcg", "microgram": "mcg", "micrograms": "mcg", "kg": "kg", "kilogram": "kg",
    "kilograms": "kg", "kilos": "kg", "ml": "ml", "milliliter": "ml", "milliliters": "ml", "cc": "ml", "l": "l",
    "liter": "l", "liters": "l", "unit": "unit", "units": "unit", "iu": "unit", "meq": "meq", "milliequivalents": "meq",
    "cm": "cm", "centimeter": "cm", "centimeters": "cm", "mm": "mm", "millimeter": "mm", "millimeters": "mm",
    "%": "%", "percent": "%", "tablet": "tablet", "tablets": "tablet", "tab": "tablet", "tabs": "tablet",
    "puff": "puff", "puffs": "puff", "drop": "drop", "drops": "drop",
}  # fmt: skip
SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12,
    "twentieth": 20, "thirtieth": 30,
}  # fmt: skip
MONTHS = [
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
]  # fmt: skip
COUNTED = {"once": 1, "twice": 2, "thrice": 3}
SIDES = {
    "left": "left", "right": "right", "bilateral": "both", "bilaterally": "both", "both": "both",
    "left-sided": "left", "right-sided": "right",
}  # fmt: skip
NO_SITE = {"now", "away", "after", "against", "before", "then", "him", "me", "them", "us"}
NEGATIONS = {"no", "not", "denies", "denied", "deny", "denying", "without", "negative", "never", "none", "nope", "nor"}
INTRODUCE = {"no", "denies", "denied", "denying", "without", "negative"}
"""The negations that a finding follows; `not` is left out: what follows it is a verb."""
LARGEST = 10**9
"""What is spelt goes no further: `thousand` upon `thousand` is no number."""
FILLERS = {
    "a", "an", "the", "of", "any", "for", "in", "on", "at", "to", "with", "his", "her", "their", "is", "are", "was",
    "were", "has", "have", "had", "been", "be", "evidence", "history", "known", "significant", "signs", "sign",
    "symptoms", "symptom", "current", "recent", "other", "further", "new", "acute", "and", "or", "nor",
}  # fmt: skip
WORD = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+(?:[-'’][^\W\d_]+)*|[.,;:!?\n/%]")


@dataclass(frozen=True)
class Statement:
    """Something that a text states and that can be looked up in its source."""

    kind: Literal["number", "dose", "laterality", "negation"]
    words: tuple[str, ...]
    """What is stated: `(500, mg)`, `(left, hip)`, `(chest, pain)`."""
    supported: bool


def faithfulness(output: str, source: str) -> tuple[int, int]:
    """Count the supported and the checked statements of `output`."""
    found = statements(output, source)
    return sum(statement.supported for statement in found), len(found)


def statements(output: str, source: str) -> list[Statement]:
    """List everything in `output` that can be checked, each once, with whether `source` supports it."""
    said, given = _words(output), _words(source)
    numbers, doses = set(_numbers(given)), set(_doses(given))
    sentences = _sentences(given)
    sided = _sided(sentences)
    found = [
        *(Statement("dose", dose, dose in doses) for dose in _doses(said)),
        *(Statement("number", (number,), number in numbers) for number in _plain_numbers(said)),
        *(Statement("laterality", side, _has_side(side, sided)) for side in _sides(said)),
        *(Statement("negation", finding, _is_negated(finding, sentences)) for finding in _negated(said)),
    ]
    return list(dict.fromkeys(found))


# -------------------------------------------------------------------- words
def _words(text: str) -> list[str]:
    """Lower-case words and numbers, number words written in digits; punctuation stays, to end sentences."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text.lower()).replace("’", "'")
    text = re.sub(r"\b(?:(?!a )[a-z] )+[a-z]\b", lambda run: run[0].replace(" ", ""), text)  # dictated: five m g
    text = re.sub(r"(?<=[a-z])-(?=(?:year|day|week|month|hour)s?\b)", " ", text)
    return list(_in_digits(WORD.findall(text)))


def _in_digits(words: list[str]) -> Iterator[str]:
    """`twenty five milligrams` → `25 milligrams`, `two thousand eight` → `2008`, `twenty ninth` → `29`."""
    value: int | None = None
    last = 0
    for word in [*chain.from_iterable(map(_parts, words)), ""]:
        number = _value(word)
        if number is not None and value is not None and value < LARGEST and word in ("hundred", "thousand"):
            value, last = value * number, number
        elif number is not None and value is not None and last > number and _can_follow(last, number):
            value, last = value + number, number
        else:
            if value is not None:
                yield str(value)
            value, last = number, number or 0
            if number is None and word:
                yield word


def _parts(word: str) -> list[str]:
    """`twenty-five` is two words; other hyphens stay."""
    parts = word.split("-")
    return parts if len(parts) > 1 and all(_value(part) is not None for part in parts) else [word]


def _can_follow(last: int, number: int) -> bool:
    return (last >= 100 and number < last) or (20 <= last < 100 and last % 10 == 0 and 0 < number < 10)


def _value(word: str) -> int | None:
    if word in ("hundred", "thousand"):
        return 100 if word == "hundred" else 1000
    if word in SMALL:
        return SMALL.index(word)
    if word in TENS:
        return 20 + 10 * TENS.index(word)
    if word in ORDINALS:
        return ORDINALS[word]
    if word.endswith("th") and word[:-2] in SMALL:
        return SMALL.index(word[:-2])
    return None


def _sentences(words: list[str]) -> list[set[str]]:
    """The words of each sentence, or turn of a dialogue."""
    found: list[set[str]] = [set()]
    for word in words:
        if word in ".;!?\n":
            found.append(set())
        else:
            found[-1].add(_stem(word))
    return [sentence for sentence in found if sentence]


def _stem(word: str) -> str:
    """Singular and plural are one word."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


# -------------------------------------------------------------------- numbers and doses
def _number(word: str) -> str | None:
    """As it is compared: `5`, `05` and `5.0` are the same."""
    return f"{float(word):.15g}" if word[:1].isdecimal() else None


def _numbers(words: list[str]) -> Iterator[str]:
    """What a source offers: its numbers, and the years, months and counts that it spells."""
    for word, after in pairwise([*words, ""]):
        number = _number(word)
        if number is not None:
            yield number
            if number in {"18", "19", "20"} and re.fullmatch(r"\d\d", after):
                yield number + after  # nineteen eighty four
        elif word in MONTHS:
            yield str(1 + MONTHS.index(word))
        elif word in COUNTED:
            yield str(COUNTED[word])


def _doses(words: list[str]) -> Iterator[tuple[str, str]]:
    for word, unit in pairwise(words):
        number = _number(word)
        if number is not None and unit in UNITS:
            yield number, UNITS[unit]


def _plain_numbers(words: list[str]) -> Iterator[str]:
    """Numbers that no unit follows; those of a list (`1.` at the start of a line) state nothing."""
    for place, word in enumerate(words):
        number = _number(word)
        after = words[place + 1] if place + 1 < len(words) else ""
        starts = place == 0 or words[place - 1] == "\n"
        if number is not None and after not in UNITS and not (starts and after == "."):
            yield number


# -------------------------------------------------------------------- sides
def _sides(words: list[str]) -> Iterator[tuple[str, ...]]:
    """Each side and what it is said of: the next word or two.

    `Right now` is no side, and `both` alone may be said of anything.
    """
    for place, word in enumerate(words):
        if word in SIDES and word != "both":
            after = [*takewhile(str.isalpha, words[place + 1 : place + 4])]
            site = _content(after)[:2]
            if site and after[0] not in NO_SITE:
                yield SIDES[word], *site


def _sided(sentences: list[set[str]]) -> list[tuple[set[str], set[str]]]:
    """The sentences that name a side: the sides, and their words with those of the sentence before.

    The sentence before is there for `Which hip? The left.` A sentence that names left and right also names both.
    """
    found = []
    for before, sentence in zip([set[str](), *sentences], sentences, strict=False):
        named = {SIDES[word] for word in sentence if word in SIDES}
        if {"left", "right"} <= named:
            named.add("both")
        if named:
            found.append((named, sentence | before))
    return found


def _has_side(side: tuple[str, ...], sided: list[tuple[set[str], set[str]]]) -> bool:
    """Whether the source has the side beside a word of the site."""
    where, *site = side
    return any((where in named or "both" in named) and set(site) & words for named, words in sided)


# -------------------------------------------------------------------- negated findings
def _negated(words: list[str]) -> Iterator[tuple[str, ...]]:
    """What follows `no`, `denies`, `without`, …: each member of the list, up to the end of the sentence or `but`."""
    for place, word in enumerate(words):
        if word not in INTRODUCE:
            continue
        finding: list[str] = []
        for after in [*words[place + 1 :], "."]:
            if after in {".", ";", ":", "!", "?", "\n", "but", "except", "although", "however", *INTRODUCE}:
                break
            if after in {",", "or", "and", "nor", "/"}:
                yield from [found] if (found := _content(finding)) else []
                finding = []
            else:
                finding.append(after)
        yield from [found] if (found := _content(finding)) else []


def _is_negated(finding: tuple[str, ...], sentences: list[set[str]]) -> bool:
    """Whether the source has all words of a finding in a sentence, and a negation there or in the next two.

    An example is `Any fever? Any chills? No.`
    """
    for place, sentence in enumerate(sentences):
        if set(finding) <= sentence and any(map(_negates, set().union(*sentences[place : place + 3]))):
            return True
    return False


def _negates(word: str) -> bool:
    return word in NEGATIONS or word.endswith("n't") or word == _stem("denies")


def _content(words: list[str]) -> tuple[str, ...]:
    """Without fillers and numbers, at most the first three: what follows is seldom the finding."""
    return tuple(_stem(word) for word in words if word.isalpha() and word not in FILLERS)[:3]
