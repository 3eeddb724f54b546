"""What is known of a task's values before anything is answered: which values a document can have at all.

A race bets on how the documents that are left can turn out, so it needs ranges that hold whatever the answers are, not
those that were seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from orchestrator.config.measures import MEASURES
from orchestrator.stats.estimates import Floats, Ints
from tasks.evaluation.judge import Metric, as_ratio, ratio_scale
from tasks.evaluation.rehearsal import judged_made_up
from tasks.evaluation.requests import group_by_document
from tasks.evaluation.suites import SuiteTask
from tasks.generation.metrics import FAITHFULNESS, METRICS
from tasks.generation.task import GenerationTask

VERDICTS = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match")
"""lm-eval's own metrics that are 0 or 1 for a document, where no program of the task's own computes them."""
OWN = {name: (0.0, 1.0) for name in VERDICTS} | {"bits_per_byte": (0.0, math.inf)}
TEXT = dict.fromkeys(METRICS, (0.0, 1.0))
"""Those of the generation tasks."""
EACH = ("empty", "at_limit", "unread", "other_script", "repetition", "words", "brier")
"""Measures of replies that are a mean over documents."""
Range = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """A task's metrics as sums over its documents: in metric m, document g adds weights[m, g] times its own value."""

    weights: Floats
    """They sum to the number of documents for each metric; shape (metrics, documents)."""
    low: Floats
    """Least value of a document in each metric; infinite where none is known; shape (metrics,)."""
    high: Floats
    """Largest value of a document in each metric; infinite where none is known; shape (metrics,)."""
    unknown: str = ""
    """Which metric has no known range or is no mean over documents, and why; empty where there is none."""

    @property
    def width(self) -> float:
        """Range of a document's value, the mean over the metrics; infinite where it is not known."""
        return float((self.high - self.low).mean())

    def values(self, own: Floats, metrics: Floats) -> Floats | None:
        """Compute what each of the first documents adds to the sum over all; None where the metrics are no such sums.

        Args:
            own: value of each metric for each document; shape (metrics, documents).
            metrics: the metrics' values over these documents; shape (metrics,).
        """
        weights = self.weights[:, : own.shape[1]]
        if not np.isfinite(own).all():
            return None
        sums = (weights * own).sum(axis=1) / weights.sum(axis=1)
        return np.asarray((weights * own).mean(axis=0)) if np.allclose(sums, metrics, rtol=1e-9, atol=1e-12) else None

    def ordered(self, documents: Ints) -> Ranges:
        """Return the same with the documents in another order."""
        return Ranges(self.weights[:, documents], self.low, self.high, self.unknown)


def known_ranges(suite: SuiteTask, given: Mapping[str, Range]) -> Ranges:
    """Find out what is known of the values of a task's documents, in the order of their appearance.

    Args:
        given: metric → range of a document's value, for metrics of the user's own.
    """
    found = [_weights(suite, metric) for metric in suite.metrics]
    ranges = [_range(suite, metric, given) for metric in suite.metrics]
    unknown = ""
    for (name, _), (_, why), known in zip(suite.metrics, found, ranges, strict=True):
        why = why or ("" if known else "nothing is known that bounds its values (search.racing.ranges can say it)")
        unknown = unknown or (why and f"{suite.name}'s {name}: {why}")
    low, high = np.array([known or (-math.inf, math.inf) for known in ranges]).T
    return Ranges(np.stack([weights for weights, _ in found]), low, high, unknown)


def _range(suite: SuiteTask, metric: Metric, given: Mapping[str, Range]) -> Range | None:
    """The range of a document's value in a metric; None where nothing is known."""
    name, task = metric[0], suite.task
    if name in given:
        return given[name]
    if name in suite.yardstick.measures:
        return 0.0, MEASURES[name].most
    if isinstance(task, GenerationTask):
        return TEXT.get(name)
    if not callable(task.get_config("process_results")):
        function = getattr(task, "_metric_fn_list", {}).get(name)
        return OWN.get(name) if str(getattr(function, "__module__", "")).startswith("lm_eval.") else None
    items = [values[metric] for values in judged_made_up(suite, 0) if metric in values]
    each = [value for item in items for value in (item if isinstance(item, list) else [item])]
    return (0.0, 1.0) if each and all(isinstance(value, bool | np.bool_) for value in each) else None


def _weights(suite: SuiteTask, metric: Metric) -> tuple[Floats, str]:
    """The documents' weights in a metric, and why it is no such sum, if it is none."""
    documents, none = len(group_by_document(suite.task.instances)), "it is no mean over documents"
    equal = np.ones(documents)
    if metric[0] in suite.yardstick.measures:
        return equal, "" if metric[0] in EACH else none
    aggregate = suite.task.aggregation()[metric[0]]
    if isinstance(suite.task, GenerationTask):
        return equal, none if metric[0] == FAITHFULNESS or ratio_scale([0.0] * 9, aggregate) is None else ""
    items = [values.get(metric) for values in judged_made_up(suite, 0)]
    if any(item is None for item in items):
        return equal, "some documents may lack it"
    if ratio_scale(items, aggregate) is None:
        return equal, none
    if not isinstance(items[0], list | tuple):
        return equal, ""
    first, second = (
        as_ratio([values.get(metric) for values in judged_made_up(suite, turn, documents)])[1] for turn in (0, 1)
    )
    if len(first) != documents or not np.array_equal(first, second) or not first.min() > 0:
        return equal, "its denominators depend on the answers"
    return first / first.mean(), ""
