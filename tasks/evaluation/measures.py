"""Measures of replies, from stored answers: their form, their length, the calibration and the bias of choices.

`orchestrator.config.measures` says what they are. What replies are compared with (scripts of a prompt, right choices)
is the same for all recipes and read once, as `Yardstick`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from orchestrator.config.measures import MEASURES
from orchestrator.core.records import Answer
from orchestrator.stats.aggregates import OfSums
from orchestrator.stats.estimates import Floats
from tasks.evaluation.labels import read_label
from tasks.evaluation.ledger_lm import LedgerLM, generated_text
from tasks.evaluation.requests import group_by_document

Bools = npt.NDArray[np.bool_]
Items = dict[str, Floats]
"""Measure → what each document contributes to it; shape (documents, parts)."""
BINS = 10
"""Ranges of confidence of the calibration error, of equal width (Naeini et al. 2015)."""
GRAM = 4
"""Words of a sequence that counts as repeated (seq-rep-4; Welleck et al. 2020)."""
NOTHING = "\ufffe\ufffe"
"""What a filter is made to return where it finds no answer; no reply has these characters."""
BEYOND_ASCII = re.compile(r"[^\W\d_\x00-\x7f]+")
"""Letters in a row."""


# -------------------------------------------------------------------- what replies are compared with
@dataclass(frozen=True)
class Yardstick:
    """What the replies to a task are compared with, document by document in their order."""

    measures: tuple[str, ...]
    """The measures that the task's replies have."""
    scripts: tuple[frozenset[str], ...] = ()
    """Of generated text: the scripts of prompt and reference."""
    words: tuple[int, ...] = ()
    """Of generated text: the number of words of its reference."""
    right: Bools | None = None
    """Of multiple choice: which choices are right; shape (documents, most choices)."""
    sizes: tuple[int, ...] = ()
    """Of multiple choice: the number of choices."""
    labels: tuple[str, ...] = ()
    """Of multiple choice: the labels of the places, where they are the same in all documents."""


def yardstick(task: Any) -> Yardstick:
    """Read what the replies to a task's requests are compared with."""
    groups = group_by_document(task.instances)
    kinds = {request.request_type for group in groups for request in group}
    if kinds == {"generate_until"}:
        found = _of_texts(task, groups)
    elif isinstance(task, ConfigurableTask) and task.OUTPUT_TYPE == "multiple_choice":
        found = _of_choices(task, [group[0].doc for group in groups])
    else:
        found = Yardstick(())
    own = task.aggregation()
    return replace(found, measures=tuple(name for name in found.measures if name not in own))


def _of_texts(task: Any, groups: Sequence[Sequence[Instance]]) -> Yardstick:
    targets = [_targets(task, group[0].doc) for group in groups]
    scripts = [
        scripts_of(group[0].args[0]).union(*map(scripts_of, texts))
        for group, texts in zip(groups, targets, strict=True)
    ]
    reads = any(hasattr(make(), "fallback") for ensemble in task._filters for make in ensemble.filters)
    # Where an answer is read out of a reply, the target is that answer and says nothing about the reply's length.
    compares = not reads and all(targets)
    names = ("empty", "at_limit", *(("unread",) if reads else ()), "other_script", "repetition", "words")
    return Yardstick(
        measures=(*names, *(("length_ratio",) if compares else ())),
        scripts=tuple(scripts),
        words=tuple(len(texts[0].split()) if texts else 0 for texts in targets),
    )


def _targets(task: Any, document: Any) -> list[str]:
    """The texts that a reply is compared with; none where the target is no text, or the task reads targets itself."""
    try:
        target = task.doc_to_target(document)
    except Exception:  # a task with a program of its own need not have targets, and raises whatever it meets
        return []
    return [text for text in (target if isinstance(target, list) else [target]) if isinstance(text, str)]


def _of_choices(task: Any, documents: Sequence[Any]) -> Yardstick:
    labels = [label for document in documents if (label := read_label(task, document)) is not None]
    if not labels or len(labels) < len(documents):
        return Yardstick(())
    texts = [task.doc_to_choice(document) for document in documents]
    longest = max(texts, key=len)
    right = np.zeros((len(texts), len(longest)), bool)
    for row, label in zip(right, labels, strict=True):
        row[label.raw if isinstance(label.raw, list) else label.index] = True
    several, alike = bool((right.sum(axis=1) > 1).any()), all(each == longest[: len(each)] for each in texts)
    names = ("ece", *(() if several else ("brier",)), *(("position_bias",) if alike and not several else ()))
    return Yardstick(
        measures=names,
        right=right,
        sizes=tuple(map(len, texts)),
        labels=tuple(longest) if "position_bias" in names else (),
    )


# -------------------------------------------------------------------- generated text
def scripts_of(text: str) -> frozenset[str]:
    """List the scripts of a text's letters, by Unicode's names; Latin always, as units and names are everywhere.

    One Greek letter is a symbol (β, µ); Greek counts from two in a row on.
    """
    found = {"LATIN"}
    if not text.isascii():
        for run in BEYOND_ASCII.findall(unicodedata.normalize("NFKC", text)):
            scripts = [_script(letter) for letter in run]
            found.update(script for script in scripts if script != "GREEK" or scripts.count("GREEK") > 1)
    return frozenset(found)


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    """The script of a letter: the first word of its name. Numbers and signs of no one script count as Latin."""
    if unicodedata.category(letter) not in ("Lu", "Ll", "Lt", "Lo"):
        return "LATIN"
    name = unicodedata.name(letter, "LATIN").split()[0]
    return "KANA" if name in ("HIRAGANA", "KATAKANA") else name


def repetition(words: Sequence[str]) -> float:
    """Compute the share of the sequences of `GRAM` words that were there before; 0 where there are none."""
    grams = list(zip(*(words[start:] for start in range(GRAM)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def measure_texts(task: Any, known: Yardstick, lm: LedgerLM) -> Items:
    """Measure generated replies, which the task's requests have as `resps`.

    Args:
        lm: has the answers.

    Returns:
        Of each document the sum over its replies, and what it is to be divided by; shape (documents, 2).
    """
    sums = np.array(
        [
            _sums(group, lm, scripts)
            for group, scripts in zip(group_by_document(task.instances), known.scripts, strict=True)
        ]
    )
    replies, words = sums[:, -1], sums[:, 4]
    names = ("empty", "at_limit", "other_script", "repetition", "words")
    found = {name: np.stack([sums[:, column], replies], axis=1) for column, name in enumerate(names)}
    return {**found, "length_ratio": np.stack([words, replies * known.words], axis=1)}


def _sums(group: Sequence[Instance], lm: LedgerLM, scripts: frozenset[str]) -> list[float]:
    """What a document's replies add up to, in the order of `measure_texts`, and their number."""
    repeats = [(request, number) for request in group for number in range(len(request.resps))]
    answers = [answer for (answer,) in lm.answers([request for request, _ in repeats])]
    texts = [text for request in group for text in request.resps]
    words = [text.split() for text in texts]
    return [
        sum(not each for each in words),
        sum(_is_cut(lm, *each, answer, text) for each, answer, text in zip(repeats, answers, texts, strict=True)),
        sum(not scripts_of(text) <= scripts for text in texts),
        sum(map(repetition, words)),
        sum(map(len, words)),
        len(texts),
    ]


def _is_cut(lm: LedgerLM, request: Instance, repeat: int, answer: Answer, text: str) -> bool:
    """Whether a reply met its limit of tokens, and no stop text before."""
    decoding = lm.questions(request, repeat)[0].decoding
    assert decoding is not None, "the request is for a text"
    return answer.tokens >= decoding.max_tokens and text == generated_text(request, answer, past_stops=True)


def find_unread(task: Any, filter_: str) -> Floats:
    """Find the replies in which a filter finds no answer: it runs once more, with a sign for what it falls back on.

    Returns:
        Of each document the sum over its replies, and their number; shape (documents, 2).
    """
    (ensemble,) = [each for each in task._filters if each.name == filter_]
    read: list[Any] = [request.resps for request in task.instances]
    for make in ensemble.filters:
        step = make()
        if hasattr(step, "fallback"):
            step.fallback = NOTHING
        read = list(step.apply(read, [request.doc for request in task.instances]))
    lost = {id(request): _lost(found) for request, found in zip(task.instances, read, strict=True)}
    return np.array(
        [np.sum([lost[id(request)] for request in group], axis=0) for group in group_by_document(task.instances)]
    )


def _lost(found: Any) -> tuple[float, float]:
    """Replies without an answer, and replies, of what a filter has made of a request's."""
    replies = [found] if isinstance(found, str) else list(found)
    return float(sum(isinstance(reply, str) and reply == NOTHING for reply in replies)), float(len(replies))


# -------------------------------------------------------------------- multiple choice
def chosen(task: Any, known: Yardstick) -> tuple[Floats, Bools]:
    """Read the probabilities of the choices, and which one is chosen; both of shape (documents, most choices).

    The probabilities are the softmax of the log-probabilities, and the most probable choice is chosen, as for lm-eval's
    `acc`.
    """
    assert known.right is not None, "the task is multiple choice"
    logprobs = np.full(known.right.shape, -np.inf)
    for row, size, group in zip(logprobs, known.sizes, group_by_document(task.instances), strict=True):
        row[:size] = [request.resps[0][0] for request in group[:size]]  # with acc_mutual_info there are more
    powers = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    picked = np.arange(known.right.shape[1]) == logprobs.argmax(axis=1)[:, None]
    return powers / powers.sum(axis=1, keepdims=True), picked


def measure_choices(task: Any, known: Yardstick) -> Items:
    """Measure answers of multiple choice, whose log-probabilities the task's requests have as `resps`.

    Returns:
        `brier`: of each document its score, and 1. `ece`: in the column of its range of confidence how far confidence
        is above correctness, and 1 in the last. `position_bias`: 1 for the chosen place, less 1 for the right one, and
        1 in the last.
    """
    probabilities, picked = chosen(task, known)
    right = np.asarray(known.right, float)
    ones = np.ones((len(right), 1))
    confidence = probabilities.max(axis=1)
    bins = np.eye(BINS)[np.minimum((confidence * BINS).astype(int), BINS - 1)]
    over = confidence - (picked & (right > 0)).any(axis=1)
    return {
        "brier": np.hstack([((probabilities - right) ** 2).sum(axis=1, keepdims=True), ones]),
        "ece": np.hstack([bins * over[:, None], ones]),
        "position_bias": np.hstack([picked - right, ones]),
    }


def _distance(weight: float, sums: Floats) -> float:
    return weight * float(np.abs(sums[:-1]).sum() / sums[-1])


# -------------------------------------------------------------------- together
def ratio(items: Sequence[tuple[float, float]]) -> float:
    """Compute the sum of the first parts over that of the second ones."""
    above, below = np.asarray(items, float).sum(axis=0)
    return float(above / below) if below else math.nan


AGGREGATIONS: dict[str, Callable[[Any], float]] = {
    **dict.fromkeys(MEASURES, ratio),
    "ece": OfSums(partial(_distance, 1.0)),
    "position_bias": OfSums(partial(_distance, 0.5)),
}
"""Measure → how its value comes from what documents contribute."""


def measure(task: Any, known: Yardstick, lm: LedgerLM, filter_: str) -> Items:
    """Compute what each document contributes to each of the task's measures.

    Args:
        lm: has the answers, which the task's requests have as `resps`.
        filter_: the one in which answers may not be found.
    """
    if not known.measures:
        return {}
    found = measure_choices(task, known) if known.right is not None else measure_texts(task, known, lm)
    if "unread" in known.measures:
        found["unread"] = find_unread(task, filter_)
    return {name: found[name] for name in known.measures}


def count_places(task: Any, known: Yardstick) -> dict[str, tuple[int, int]]:
    """Count how often each place (or label) is chosen, and how often it is right; empty where places have no labels."""
    if not known.labels:
        return {}
    _, picked = chosen(task, known)
    counts = zip(picked.sum(axis=0).tolist(), np.asarray(known.right).sum(axis=0).tolist(), strict=True)
    return dict(zip(known.labels, counts, strict=True))
