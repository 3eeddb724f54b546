"""What bounds a metric is known before anything is answered, or it is said that nothing does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.evaluation.ranges import known_ranges
from tests.helpers.tasks import CHOICE, TEXT, lm, load, rows, write_task

HEAD = TEXT.split("metric_list")[0]
OWN = HEAD + "process_results: !function utils.judge\n"
ROLLING = """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: question
metric_list: [{metric: METRIC, higher_is_better: false}]
"""


def own(aggregation: str, name: str = "hit") -> str:
    return OWN + f"metric_list: [{{metric: {name}, aggregation: {aggregation}, higher_is_better: true}}]\n"


LENGTHS = "def judge(doc, results): return {'hit': [results[0] == 'a'] * (1 + doc['answer'])}\n"
RATIO = "def share(items): return sum(map(sum, items)) / sum(map(len, items))\n"
UNIT, HALF_OPEN = (0.0, 1.0), (0.0, np.inf)


@pytest.mark.parametrize(
    ("settings", "code", "known", "unknown"),
    [
        (CHOICE, "", UNIT, ""),
        (TEXT, "", UNIT, ""),
        (CHOICE.replace("acc", "acc_norm"), "", UNIT, ""),
        (CHOICE.replace("metric: acc, aggregation: mean", "metric: mcc"), "", None, "it is no mean over documents"),
        (ROLLING.replace("METRIC", "bits_per_byte"), "", HALF_OPEN, ""),
        (ROLLING.replace("METRIC", "word_perplexity"), "", None, "it is no mean over documents"),
        (own("mean"), "def judge(doc, results): return {'hit': results[0] == 'a'}", UNIT, ""),
        (own("mean"), "def judge(doc, results): return {'hit': 0.5}", None, "nothing is known that bounds its values"),
        (own("mean", "exact_match"), "def judge(doc, results): return {'exact_match': 0.5}", None, "nothing is known"),
        (own("median"), "def judge(doc, results): return {'hit': True}", UNIT, "it is no mean over documents"),
        (own("mean"), "def judge(doc, results): return {'hit': True} if doc['answer'] else {}", UNIT, "some documents may lack"),
        (own("!function utils.share"), LENGTHS + RATIO, UNIT, ""),
        (own("!function utils.share"), RATIO + "def judge(doc, results): return {'hit': [True] * (1 + len(results[0]))}", UNIT, "denominators depend on the answers"),
    ],
)  # fmt: skip
def test_a_range_is_known_or_why_it_is_not(
    settings: str, code: str, known: tuple[float, float] | None, unknown: str, tmp_path: Path
) -> None:
    data = (
        rows(24, answer=lambda i: i % 4)
        if "choices" in settings
        else rows(24, answer=lambda i: "AB"[i % 2] * (1 + i % 3))
    )
    if "doc['answer']" in code:
        data = rows(24)
    write_task(tmp_path, settings, data, code)
    (suite,) = load(
        tmp_path, lm(), direction="minimize" if settings.startswith("\noutput_type: loglikelihood_r") else "maximize"
    )
    found = known_ranges(suite, {})
    assert unknown in found.unknown and bool(unknown) == bool(found.unknown)
    if known:
        assert (found.low[0], found.high[0]) == known
    assert found.weights.shape == (1, 24) and found.weights.sum() == pytest.approx(24)
    if code.startswith("def judge(doc, results): return {'hit': [results"):
        assert found.weights[0, :4] == pytest.approx(np.array([1, 2, 3, 4]) / 2.5), "by the documents' own denominators"


def test_a_range_of_the_users_own_is_taken_and_values_beyond_it_are_seen(tmp_path: Path) -> None:
    write_task(tmp_path, own("mean", "rouge"), rows(8), "def judge(doc, results): return {'rouge': 35.0}")
    (suite,) = load(tmp_path, lm())
    found = known_ranges(suite, {"rouge": (0.0, 100.0)})
    assert not found.unknown and found.width == 100
    values = np.array([[35.0, 20.0]])
    assert found.values(values, np.array([27.5])) == pytest.approx(values[0])
    assert found.values(values, np.array([27.4])) is None, "no mean after all"
    assert found.values(np.array([[35.0, np.nan]]), np.array([35.0])) is None
