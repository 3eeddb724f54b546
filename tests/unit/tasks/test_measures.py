"""The measures of replies: on lm-eval tasks with stored answers, against the libraries' own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.measures import MEASURES
from orchestrator.core.errors import UserError
from orchestrator.core.records import Answer, Question
from orchestrator.stats.scores import TaskScore
from tasks.evaluation.judge import NoScore, score_task
from tasks.evaluation.measures import repetition, scripts_of
from tests.helpers.paths import ROOT
from tests.helpers.tasks import CHOICE, TEXT, lm, load, rows, write_task

LETTERS = CHOICE.replace("doc_to_choice: choices", "doc_to_choice: [A, B, C, D]")
READ = """filter_list:
  - {name: strict, filter: [{function: regex, regex_pattern: "is (\\\\d)", fallback: "0"}, {function: take_first}]}
  - {name: flexible, filter: [{function: regex, regex_pattern: "\\\\d"}, {function: remove_whitespace}, {function: take_first}]}
"""
FOREIGN = "The dose 剂量 is known"


def scored(folder: Path, settings: str, answers: Any, data: Any = None, **objective: Any) -> TaskScore:
    """Score a task whose questions are answered by a list, in their order."""
    write_task(folder, settings, data or rows(4))
    seen: dict[str, int] = {}

    def answer(question: Question) -> Answer:
        found = answers[seen.setdefault(question.id, len(seen))]
        if question.decoding is None:
            return Answer(question.id, logprob=float(np.log(found)), is_greedy=False, tokens=1)
        text, tokens = found if isinstance(found, tuple) else (found, 1)
        return Answer(question.id, text=text, tokens=tokens)

    (suite,) = load(folder, model := lm(answer), **objective)
    return score_task(suite, model)


@pytest.mark.parametrize(
    ("measure", "replies", "value"),
    [
        ("empty", ["1", "  ", "", "\nmore"], 3 / 4),
        ("at_limit", [("1", 8), ("a b c d e f g h", 8), ("1", 7), ("ended\nhere", 8)], 2 / 4),
        ("other_script", [FOREIGN, "5 µg of a β-blocker, café", "αβγ", "Привет"], 3 / 4),
        ("repetition", ["no pain no pain no pain no pain", "no pain", "", "one two three four five"], (3 / 5) / 4),
        ("words", ["one two", "three", "", "four five six"], 6 / 4),
        ("length_ratio", ["one two", "three", "", "four five six"], 6 / 8),
    ],
)  # fmt: skip
def test_measures_of_generated_text(measure: str, replies: list[Any], value: float, tmp_path: Path) -> None:
    data = rows(4, answer=lambda i: "two words")
    score = scored(tmp_path, TEXT, replies, data, metric=measure, direction=direction(measure))
    assert score.value == score.measures[measure] == pytest.approx(value)
    assert score.influence.sum() == pytest.approx(0)
    assert set(score.measures) == {"empty", "at_limit", "other_script", "repetition", "words", "length_ratio"}
    assert score.metrics == {measure: score.value}


def direction(measure: str) -> str:
    return "maximize" if MEASURES[measure].higher_is_better is None else "minimize"


@pytest.mark.parametrize(("name", "value"), [("unread", 2 / 4), ("unread,flexible", 1 / 4)])
def test_replies_that_no_answer_is_read_from(name: str, value: float, tmp_path: Path) -> None:
    """Whatever the filter falls back on, an answer that a reply may have among it."""
    replies = ["it is 0", "5", "it is 3", "none"]
    score = scored(
        tmp_path,
        TEXT.replace("doc_to_target: answer", "doc_to_target: '{{answer}}'") + READ,
        replies,
        metric=name,
        direction="minimize",
    )
    assert score.value == score.measures["unread"] == value
    assert "length_ratio" not in score.measures, "the target is what is read, not a reply"


def test_each_filter_has_replies_of_its_own_that_it_reads_nothing_from(tmp_path: Path) -> None:
    settings = TEXT.replace("doc_to_target: answer", "doc_to_target: '{{answer}}'") + READ
    both = ["unread,strict", "unread,flexible"]
    score = scored(tmp_path, settings, ["it is 0", "5", "it is 3", "none"], metric=both, direction="minimize")
    assert score.metrics == {"unread,strict": 2 / 4, "unread,flexible": 1 / 4} and score.value == 3 / 8


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_documents_value_is_the_mean_of_its_replies(repeats: int, tmp_path: Path) -> None:
    settings = (
        TEXT.replace("max_gen_toks: 8", "max_gen_toks: 8, do_sample: true, temperature: 0.5") + f"repeats: {repeats}\n"
    )
    replies = ["", *["a word"] * (4 * repeats - 1)]
    score = scored(tmp_path, settings, replies, rows(4, answer=lambda i: "x"), metric="empty", direction="minimize")
    assert score.value == pytest.approx(1 / (4 * repeats))
    assert len(score.influence) == 4


# -------------------------------------------------------------------- multiple choice
PROBABILITIES = [[0.7, 0.1, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.45, 0.2, 0.1]]


def test_calibration_and_bias_of_letters(tmp_path: Path) -> None:
    """Letters A, A, D, B are chosen, and A, B, C, D are right."""
    settings = LETTERS.replace("metric_list: [", "metric_list: [{metric: brier_score, higher_is_better: false}, ")
    flat = [p for row in PROBABILITIES for p in row]
    score = scored(tmp_path, settings, flat, metric=["brier_score", "brier"], direction="minimize")
    assert score.metrics["brier"] == pytest.approx(score.metrics["brier_score"]), "lm-eval's own"
    assert score.places == {"A": (2, 1), "B": (1, 1), "C": (0, 1), "D": (1, 1)}
    assert score.measures["position_bias"] == pytest.approx(1 / 4), "one of four answers would have to move"
    over = {"0.7": 0.7 - 1, "0.6": 0.6 - 0, "0.4": 0.4 + 0.45}
    assert score.measures["ece"] == pytest.approx(sum(map(abs, over.values())) / 4)


@pytest.mark.parametrize("measure", ["ece", "position_bias"])
def test_what_is_no_mean_has_the_jackknifes_error(measure: str, tmp_path: Path) -> None:
    flat = [p for row in PROBABILITIES for p in row]
    whole = scored(tmp_path / "all", LETTERS, flat, metric=measure, direction="minimize")
    without = []
    for left in range(4):
        kept = [p for i, row in enumerate(PROBABILITIES) if i != left for p in row]
        data = [row for i, row in enumerate(rows(4)) if i != left]
        part = scored(tmp_path / str(left), LETTERS, kept, data, metric=measure, direction="minimize")
        without.append(part.value)
    assert whole.influence == pytest.approx(3 * (np.mean(without) - np.array(without)))


@pytest.mark.parametrize(
    ("settings", "has"),
    [
        (CHOICE, {"ece", "brier", "position_bias"}),
        (CHOICE.replace("doc_to_choice: choices", 'doc_to_choice: "{{[question, question ~ 1, question ~ 2, question ~ 3]}}"'), {"ece", "brier"}),
        (CHOICE.replace("doc_to_target: answer", 'doc_to_target: "{{[answer, 0]}}"').replace("choices", "choices"), {"ece"}),
        (CHOICE + "process_results: !function utils.judge\n", set()),
        (LETTERS.replace("metric: acc", "metric: brier_score").replace("higher_is_better: true", "higher_is_better: false").replace(", aggregation: mean", ""), {"ece", "brier", "position_bias"}),
        (TEXT, {"empty", "at_limit", "other_script", "repetition", "words"}),
        ("output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: question\nmetric_list: [{metric: byte_perplexity}]\n", set()),
    ],
)  # fmt: skip
def test_a_task_has_the_measures_that_its_answers_allow(settings: str, has: set[str], tmp_path: Path) -> None:
    write_task(tmp_path, settings, rows(4), "def judge(doc, results): return {'acc': 1.0}")
    (suite,) = load(
        tmp_path, lm(), direction="minimize" if "acc" not in settings and "exact" not in settings else "maximize"
    )
    assert set(suite.yardstick.measures) == has


# -------------------------------------------------------------------- in a sweep file
@pytest.mark.parametrize(
    ("settings", "objective", "expected"),
    [
        (TEXT, {"metric": "empty"}, "empty is better when lower, but the objective's direction is maximize"),
        (TEXT, {"metric": "unread", "direction": "minimize"}, "has no metric 'unread'.*it has: exact_match, empty, at_limit"),
        (CHOICE, {"metric": "words"}, "has no metric 'words'.*it has: acc, ece, brier"),
        (CHOICE, {"metric": "position_bais"}, "did you mean 'position_bias'"),
    ],
)  # fmt: skip
def test_a_measure_that_a_task_does_not_have(settings: str, objective: Any, expected: str, tmp_path: Path) -> None:
    write_task(tmp_path, settings, rows(4))
    with pytest.raises(UserError, match=expected):
        load(tmp_path, lm(), **objective)


def test_a_tasks_own_metric_comes_before_a_measure_of_its_name(tmp_path: Path) -> None:
    own = (
        TEXT.split("metric_list")[0]
        + "process_results: !function utils.judge\nmetric_list: [{metric: words, aggregation: mean, higher_is_better: true}]\n"
    )
    write_task(tmp_path, own, rows(4), "def judge(doc, results): return {'words': 7.0}")
    (suite,) = load(tmp_path, model := lm(lambda q: Answer(q.id, text="a b", tokens=2)), metric="words")
    assert score_task(suite, model).value == 7.0
    assert "words" not in suite.yardstick.measures


def test_a_ratio_to_nothing_is_no_score(tmp_path: Path) -> None:
    with pytest.raises(NoScore, match=r"length_ratio: .* gives nan"):
        scored(tmp_path, TEXT, ["a"] * 4, rows(4, answer=lambda i: " "), metric="length_ratio")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("plain ASCII, 5 mg", set()),
        ("naïve Straße, Ωmega and one β, 37 °C, ½ µL, ﬁne, ℃", set()),
        ("Ｆｕｌｌｗｉｄｔｈ 𝐛𝐨𝐥𝐝", set()),
        ("the пациент and one Чех", {"CYRILLIC"}),
        ("αιμα", {"GREEK"}),
        ("血 カタカナ ひらがな", {"CJK", "KANA"}),
        ("दर्द की", {"DEVANAGARI"}),
        ("ألم 통증", {"ARABIC", "HANGUL"}),
    ],
)  # fmt: skip
def test_scripts(text: str, found: set[str]) -> None:
    assert scripts_of(text) == {"LATIN", *found}


@pytest.mark.parametrize(("text", "value"), [("", 0), ("a b c", 0), ("a a a a a a", 2 / 3), ("a b c d a b c d", 1 / 5)])
def test_repetition(text: str, value: float) -> None:
    assert repetition(text.split()) == pytest.approx(value)


def test_every_measure_is_documented() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text()
    assert all(f"`{name}`" in page for name in MEASURES)
