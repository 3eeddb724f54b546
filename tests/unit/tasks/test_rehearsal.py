"""A task that no answer can be scored on is refused before it is asked; what some answers can be scored on is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.errors import UserError
from tasks.evaluation.rehearsal import rehearse
from tests.helpers.tasks import CHOICE, TEXT, lm, load, rows, write_task

OWN = (
    TEXT.split("metric_list")[0]
    + "process_results: !function utils.judge\nmetric_list: [{metric: hit, aggregation: AGG, higher_is_better: true}]\n"
)
MEAN = OWN.replace("AGG", "mean")
TOTAL = OWN.replace("AGG", "!function utils.total")
ONE = "def judge(doc, results): return {'hit': 1.0}\n"


@pytest.mark.parametrize(
    ("settings", "code", "message"),
    [
        (MEAN, "def judge(doc, results): return {'hit': doc['gold']}", r"own: process_results of document 7 raises KeyError \(utils.py, line 1\), whatever"),
        (MEAN, "def judge(doc, results): return {'hit': nothing}", r"raises NameError: name 'nothing' is not defined"),
        (MEAN, "def judge(doc, results): return 1.0", r"process_results of document 7 gives float, not a dictionary"),
        (MEAN, "def judge(doc, results): return {'hit': 'yes'}", r"own: the aggregation of hit raises TypeError"),
        (MEAN, "def judge(doc, results): return {'hits': 1.0}", r"own: process_results gives hits, and hit for no document"),
        (MEAN, "def judge(doc, results): raise SystemExit('no key')", r"process_results of document 7 raises SystemExit"),
        (OWN.replace("AGG", "meen"), ONE, r"own: lm-eval has no aggregation of the name that the task file gives hit"),
        (TOTAL, ONE + "def total(items): return None", r"own: the aggregation of hit gives NoneType, which is no number"),
        (TOTAL, ONE + "def total(items): return open('/no/such/file')", r"the aggregation of hit raises FileNotFoundError"),
        (CHOICE.replace("metric: acc, aggregation: mean", "metric: f1, aggregation: f1"), "", r"own: the aggregation of f1 raises ValueError \(_classification.py"),
    ],
)  # fmt: skip
def test_what_no_answer_can_be_scored_on_is_refused(settings: str, code: str, message: str, tmp_path: Path) -> None:
    write_task(tmp_path, settings, rows(8), code)
    suites = load(tmp_path, lm())
    with pytest.raises(UserError, match=rf"^objectives\.x\.tasks\[0\]: .*{message}"):
        rehearse(suites)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        (MEAN, "def judge(doc, results): return {'hit': float(results[0]) * 0} if doc['answer'] else {}"),
        (MEAN, "def judge(doc, results): return {'hit': {'A': 1, 'B': 0, 'C': 0}[results[0]]}"),
        (TOTAL, ONE + "def total(items): return float('nan')"),
        (CHOICE, ""),
        (TEXT, ""),
    ],
)
def test_what_some_answers_can_be_scored_on_is_taken(settings: str, code: str, tmp_path: Path) -> None:
    write_task(tmp_path, settings, rows(8), code)
    rehearse(load(tmp_path, lm()))
