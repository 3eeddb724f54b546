"""A task's score and the influence of its documents, by lm-eval's own metrics."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.objectives import Objective
from orchestrator.core.records import Answer, Question
from orchestrator.stats.scores import combine
from tasks.evaluation.judge import NoScore, _groups, _jackknife, _sample, score_task
from tests.helpers.tasks import CHOICE, TEXT, lm, load, rows, write_task


def test_ratio_metrics_are_weighted_and_others_are_jackknifed() -> None:
    from lm_eval.api.metrics import bits_per_byte, median

    items = [(-10.0, 4), (-3.0, 2), (-30.0, 11)]
    value, influence, own, by_document = _sample(items, bits_per_byte, np.arange(3))
    assert by_document and value == pytest.approx(43 / 17 / np.log(2))
    assert influence.sum() == pytest.approx(0)
    assert own[0] == pytest.approx(2.5 / np.log(2))
    value, influence, own, by_document = _sample([1.0, 2.0, 10.0], median, np.arange(3))
    assert not by_document and value == 2.0
    assert np.isnan(own).all()
    assert influence.sum() == pytest.approx(0)
    assert not _sample([2.0, 2.0, 2.0], median, np.arange(3)).by_document, "for one recipe as for all"


@given(st.lists(st.floats(-3, 3), min_size=300, max_size=500))
@settings(max_examples=10, deadline=None)
def test_a_grouped_jackknife_agrees_with_the_formula(values: list[float]) -> None:
    def mean(items: list[float]) -> float:
        return sum(items) / len(items)

    groups = _groups(np.arange(len(values)))
    influence = _jackknife(values, mean, mean(values), groups)
    assert influence.sum() == pytest.approx(0, abs=1e-6)
    group = groups == groups[0]
    assert influence[0] == pytest.approx(np.mean(np.array(values)[group]) - mean(values), abs=0.1), "its mean influence"
    single = _jackknife(values[:150], mean, mean(values[:150]), np.arange(150))
    assert single == pytest.approx(np.array(values[:150]) - np.mean(values[:150]), abs=1e-9)


def test_pairs_that_are_no_numbers_go_to_the_jackknife() -> None:
    pairs = [("a reply", "a reference"), ("b", "b"), ("c", "d")]
    value, influence, _, _ = _sample(pairs, lambda items: sum(x == y for x, y in items) / len(items), np.arange(3))
    assert value == pytest.approx(1 / 3)
    assert len(influence) == 3


def test_ifevals_lists_of_verdicts_are_one_ratio() -> None:
    from lm_eval.tasks.ifeval.utils import agg_inst_level_acc

    verdicts = [[True, False], [True], [False, False, False]]
    value, influence, _, _ = _sample(verdicts, agg_inst_level_acc, np.arange(3))
    assert value == pytest.approx(2 / 6)
    assert influence == pytest.approx([(1 - 2 / 6 * 2) / 2, (1 - 2 / 6) / 2, -2 / 6 * 3 / 2])


def test_ifevals_language_checks_give_the_same_verdict_every_time() -> None:
    from langdetect import detect_langs

    import tasks.evaluation.judge  # noqa: F401 (it seeds langdetect)

    verdicts = {str(detect_langs("la dose est 5 mg, dosis is 5 mg, la dosis es 5 mg")) for _ in range(20)}
    assert len(verdicts) == 1


# -------------------------------------------------------------------- scores that are none
def replies(question: Question) -> Answer:
    """A reply of a digit, by the question; a choice's log-probability, by its tokens."""
    number = zlib.crc32(str(question.context + question.continuation).encode()) % 10
    if question.decoding:
        return Answer(question.id, text=f" {number}")
    return Answer(question.id, logprob=-1.0 - number, is_greedy=number == 0)


JUDGE = "\nprocess_results: !function utils.judge\nmetric_list: [{{metric: hit, aggregation: {}, higher_is_better: true}}]\n"
OWN = TEXT.split("metric_list")[0]


@pytest.mark.parametrize(
    ("aggregation", "code", "reason"),
    [
        ("!function utils.total", "import numpy as np\ndef judge(doc, r): return {'hit': (1.0, doc['answer'])}\ndef total(x): return float(np.corrcoef(*zip(*x))[0, 1])", "hit: its aggregation over 8 documents gives nan, which is no score"),
        ("!function utils.total", "import math\ndef judge(doc, r): return {'hit': 800.0}\ndef total(x): return math.exp(x[0])", r"hit: its aggregation over 8 documents raises OverflowError \(utils.py, line 3\)"),
        ("!function utils.total", "def judge(doc, r): return {'hit': 0}\ndef total(x): return sum(x) / sum(x)", "raises ZeroDivisionError"),
        ("!function utils.total", "def judge(doc, r): return {'hit': 0}\ndef total(x): return None", "gives NoneType, which is no score"),
        ("!function utils.total", "def judge(doc, r): return {'hit': 0}\ndef total(x): return '0.5'", "gives str, which is no score"),
        ("mean", "def judge(doc, r): return {'hit': float('nan') if doc['answer'] == 3 else 1.0}", "hit: its aggregation over 8 documents gives nan"),
        ("mean", "def judge(doc, r): return {'hit': float('inf')}", "gives inf"),
        ("mean", "def judge(doc, r): return {'hit': None}", "raises TypeError"),
        ("mean", "def judge(doc, r): return {'hit': 'yes'}", "raises TypeError"),
        ("mean", "def judge(doc, r): return {'other': 1.0} if doc['answer'] == 9 else {}", "hit: none of 8 documents has it"),
        ("mean", "def judge(doc, r): return None if doc['answer'] == 2 else {'hit': 1}", r"process_results of document 2 gives NoneType, not a dictionary of metrics"),
        ("mean", "def judge(doc, r): return {'hit': {0: 1, 1: 1, 2: 1}[doc['answer']]}", r"process_results of document 3 raises KeyError \(utils.py, line 1\)$"),
        ("!function utils.total", "import numpy as np\ndef judge(doc, r): return {'hit': (doc['answer'], doc['question'][-2:] == '5?')}\ndef total(x): return float(np.corrcoef(*zip(*x))[0, 1])", "hit: it depends on single documents, so that it has no standard error: its aggregation over 7 documents gives nan"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_no_score(aggregation: str, code: str, reason: str, tmp_path: Path) -> None:
    write_task(tmp_path, OWN + JUDGE.format(aggregation), rows(8), code)
    (suite,) = load(tmp_path, model := lm(replies))
    with pytest.raises(NoScore, match=f"^own: .*{reason}"):
        score_task(suite, model)


def test_a_metric_of_some_documents_is_lm_evals_mean_of_them(tmp_path: Path) -> None:
    code = "def judge(doc, r): return {'hit': float(doc['answer'])} if doc['answer'] > 1 else {}"
    write_task(tmp_path, OWN + JUDGE.format("mean"), rows(8), code)
    (suite,) = load(tmp_path, model := lm(replies))
    score = score_task(suite, model)
    assert score.value == 2.5 and score.counted == {"hit": 4}
    assert score.influence == pytest.approx([0, 0, -1, 1] * 2), "twice what it would be among four"
    assert np.isnan(score.documents).tolist() == [True, True, False, False] * 2
    assert combine(Objective(tasks=["own"]), [score]).se == pytest.approx(np.sqrt(8 / 7 * 0.5 / 8))


@pytest.mark.parametrize("value", [float("-inf"), float("inf"), float("nan")])
def test_a_log_probability_that_is_not_finite_is_no_score(value: float, tmp_path: Path) -> None:
    write_task(tmp_path, CHOICE, rows(4))
    (suite,) = load(tmp_path, model := lm(lambda q: replace(replies(q), logprob=value)))
    with pytest.raises(NoScore, match=r"own: 16 of 16 log-probabilities are not finite"):
        score_task(suite, model)


def test_documents_that_repeat_a_question_are_one_draw(tmp_path: Path) -> None:
    question = {"question": lambda i: f"Which dose suits the {'twentieth' if i > 5 else 'first'} case {i % 6}?"}
    write_task(tmp_path, CHOICE, rows(12, **question, choices=lambda i: ["1 mg", "2 mg", "3 mg", f"{i % 6} g"]))
    (suite,) = load(tmp_path, model := lm(replies))
    apart = score_task(suite, model)
    write_task(
        tmp_path,
        CHOICE,
        [row | {"question": row["question"].replace("twentieth", "First")} for row in rows(12, **question)],
    )
    (suite,) = load(tmp_path, model)
    assert suite.notes == ["x, own: 6 of 12 documents have the same question as an earlier one."]
    together = score_task(suite, model)
    assert len(set(apart.clusters)) == 12 and together.clusters[:6].tolist() == together.clusters[6:].tolist()


def test_a_mean_over_tasks_that_share_their_questions_is_as_uncertain_as_one_of_them(tmp_path: Path) -> None:
    write_task(tmp_path, CHOICE, rows(12))
    suites = load(tmp_path, model := lm(replies), tasks=["own", {"task": "own", "num_fewshot": 0}])
    scores = [score_task(suite, model) for suite in suites]
    one, both = (combine(Objective(tasks=["own"]), each).se for each in (scores[:1], scores))
    assert one is not None and both == pytest.approx(one)
