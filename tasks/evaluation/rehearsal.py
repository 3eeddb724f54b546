"""A rehearsal of scoring with made-up answers: a task whose program fails on any answer is refused before it is asked.

A missing resource, a column that the data lacks or a metric that cannot take so many classes would otherwise be met
after the last question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.errors import NAMES_CODE, UserError, describe
from orchestrator.core.text import listed
from tasks.evaluation.judge import Metric, NoScore, judge_documents, number_of
from tasks.evaluation.requests import group_by_document
from tasks.evaluation.suites import SuiteTask
from tasks.generation.task import GenerationTask

TRIED, OF_A_PROGRAM = 200, 16
"""Documents that lm-eval's own metrics, and a task's own `process_results`, are tried on."""


def rehearse(suites: Sequence[SuiteTask]) -> None:
    """Score made-up answers, twice, with different ones.

    Raises:
        UserError: every document fails, or the aggregation does, both times.
    """
    for suite in suites:
        if not isinstance(suite.task, GenerationTask):  # its metrics are ours, and take time
            first, second = (_fault(suite, turn) for turn in (0, 1))
            if first and second:
                raise UserError(
                    f"{suite.where}: {first}, whatever the answers are; correct the task file or its data, or name "
                    "another metric"
                )


def _fault(suite: SuiteTask, turn: int) -> str | None:
    """Why made-up answers have no score; None where they have one, or where the documents may be too few to tell."""
    groups = group_by_document(suite.task.instances)
    metrics = own_metrics(suite)
    judged: list[dict[Metric, Any]] = []
    fault = None
    for group in groups[: _tried(suite)]:
        try:
            judged.append(_judge_made_up(suite, group, turn))
        except NoScore as error:
            fault = str(error)
    return _aggregation_fault(suite, metrics, judged, len(groups)) if judged else fault


def judged_made_up(suite: SuiteTask, turn: int, documents: int | None = None) -> list[dict[Metric, Any]]:
    """Judge made-up answers to a task's first documents; a document that they cannot be judged for has no metric.

    Args:
        turn: 0 or 1, for different answers.
        documents: how many; by default as many as the rehearsal tries.
    """
    found: list[dict[Metric, Any]] = []
    for group in group_by_document(suite.task.instances)[: documents or _tried(suite)]:
        try:
            found.append(_judge_made_up(suite, group, turn))
        except NoScore:
            found.append({})
    return found


def own_metrics(suite: SuiteTask) -> list[Metric]:
    """List the metrics that the task itself computes; the measures of replies are ours."""
    return [key for key in suite.metrics if key[0] in suite.task.aggregation()]


def _tried(suite: SuiteTask) -> int:
    return OF_A_PROGRAM if callable(suite.task.get_config("process_results")) else TRIED


def _judge_made_up(suite: SuiteTask, group: Sequence[Any], turn: int) -> dict[Metric, Any]:
    for request in group:
        answer = _made_up(suite.task, request, turn)
        request.resps, request.filtered_resps = [answer] * (request.repeats or 1), {}
    (judged,) = judge_documents(suite, [group], own_metrics(suite))
    return judged


def _aggregation_fault(
    suite: SuiteTask, metrics: Sequence[Metric], judged: Sequence[Mapping[Metric, Any]], documents: int
) -> str | None:
    """Why a metric of the score has no value; a small part of the documents proves only faults of the code."""
    given = dict.fromkeys(name for values in judged for name, _ in values)
    for key in metrics:
        items = [values[key] for values in judged if key in values]
        aggregate = suite.task.aggregation()[key[0]]
        if not items and (len(judged) == documents or not given.keys() <= suite.task.aggregation().keys()):
            return f"{suite.name}: process_results gives {listed(given) or 'nothing'}, and {key[0]} for no document"
        if not callable(aggregate):
            return f"{suite.name}: lm-eval has no aggregation of the name that the task file gives {key[0]}"
        try:
            if items and number_of(found := aggregate(items)) is None:
                return f"{suite.name}: the aggregation of {key[0]} gives {type(found).__name__}, which is no number"
        except Exception as error:  # lm-eval's and users' aggregations raise whatever they meet
            if len(judged) >= min(TRIED, documents) or isinstance(error, NAMES_CODE):
                return f"{suite.name}: the aggregation of {key[0]} raises {describe(error)}"
    return None


def _made_up(task: Any, request: Any, turn: int) -> Any:
    """An answer as lm-eval's model gives it: a log-probability, or the target as text in the first turn."""
    place = (request.idx + turn * request.doc_id) % 3
    if request.request_type == "loglikelihood":
        return -1.0 - place, place == 0
    if request.request_type == "loglikelihood_rolling":
        return -10.0 - place
    target = task.doc_to_target(request.doc) if turn == 0 else "ABC"[request.doc_id % 3]
    return str(target[0] if isinstance(target, list) and target else target)
