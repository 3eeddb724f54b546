"""Metrics of generated texts, on CPUs beside the generation: a Ray task for each finished block.

What a task that died leaves unmeasured is measured by the driver when it publishes.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.errors import described, portable
from orchestrator.core.records import Answer, Answered, Failure
from tasks.evaluation.ledger_lm import generated_text
from tasks.evaluation.suites import SuiteTask
from tasks.generation.measured import Measured
from tasks.generation.metrics import OpenEncoder, Reference, Values, measure
from tasks.generation.task import GenerationTask

Unmeasured = tuple[str, Reference, str, tuple[str, ...]]
"""A generated text, its reference or references, its source, and the groups of metrics that are not stored."""
Work = tuple[dict[str, Unmeasured], Measured]
"""Texts by their keys, and where their values are stored."""
Generated = dict[str, tuple[GenerationTask, Any]]
"""Question → its task and lm-eval's instance."""
PIECE = 64
"""Texts that are measured by one task."""
AT_ONCE = 4
"""Tasks under way, each of one process with an encoder of its own."""


@portable
def measure_all(texts: dict[str, Unmeasured], encoder: OpenEncoder | None) -> dict[str, Values]:
    """Measure texts, each under its key."""
    return {
        key: measure(output, reference, source, encoder, groups)
        for key, (output, reference, source, groups) in texts.items()
    }


@contextlib.contextmanager
def measuring(
    suites: Sequence[SuiteTask], before: Sequence[Work], log: Callable[[str], None]
) -> Iterator[Callable[[Answered | Failure | None], None]]:
    """Give the function that takes what the pool yields, and wait for open tasks on leaving without an exception.

    Args:
        before: texts of earlier runs, which are measured first.
    """
    generated = _generated(suites)
    work = deque(before)
    open_tasks: dict[Any, Measured] = {}
    # Without a CPU of its own: on machines without GPUs the engines reserve them all, and generation leaves some idle.
    # On the driver's node, which has the encoder.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    remote = ray.remote(num_cpus=0, scheduling_strategy=here, max_retries=1)(measure_all)

    def advance(timeout: float) -> None:
        if open_tasks:
            for reference in ray.wait(list(open_tasks), num_returns=len(open_tasks), timeout=timeout)[0]:
                measured = open_tasks.pop(reference)
                try:
                    measured.add(ray.get(reference))
                except RayError as error:
                    log(f"metrics are measured at the end instead of on the way: {described(error)}")
        while work and len(open_tasks) < AT_ONCE:
            texts, measured = work.popleft()
            open_tasks[remote.remote(texts, measured.encoder)] = measured

    def take(result: Answered | Failure | None) -> None:
        if isinstance(result, Answered):
            work.extend(_new_texts(result.answers, generated))
        advance(timeout=0)

    yield take
    while open_tasks or work:
        advance(timeout=1)


def unmeasured(suites: Sequence[SuiteTask], answers: Iterable[Answer]) -> list[Work]:
    """List the texts among stored answers that were never measured, or with another encoder or library."""
    return list(_new_texts(answers, _generated(suites)))


def _generated(suites: Sequence[SuiteTask]) -> Generated:
    return {
        question.id: (suite.task, instance)
        for suite in suites
        if isinstance(suite.task, GenerationTask)
        for instance, question in zip(suite.task.instances, suite.questions, strict=True)
    }


def _new_texts(answers: Iterable[Answer], generated: Generated) -> Iterator[Work]:
    """The texts that are not measured yet, in pieces of `PIECE`; a sweep's tasks share what was measured."""
    texts: dict[str, Unmeasured] = {}
    measured: Measured | None = None
    for answer in answers:
        if answer.question_id in generated:
            task, instance = generated[answer.question_id]
            measured = task.measured
            each = (generated_text(instance, answer), instance.doc["reference"], instance.doc["input"])
            if missing := measured.missing(*each):
                texts[measured.key(*each)] = (*each, missing)
    keys = list(texts)
    for start in range(0, len(keys), PIECE):
        assert measured is not None, "there are texts"
        yield {key: texts[key] for key in keys[start : start + PIECE]}, measured
