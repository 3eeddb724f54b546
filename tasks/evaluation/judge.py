"""From answers to scores, by lm-eval's own filters, metrics and aggregations.

Every score keeps a number per document, its influence on the score, so that standard errors and paired differences
are computed without the answers.
"""

from __future__ import annotations

import logging
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from langdetect import DetectorFactory

from orchestrator.stats.scores import Floats, TaskScore
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.suites import SuiteTask

# IFEval's checks guess: a reply's language by random sampling, and a setting of zero as if it were missing. Unseeded,
# the same answers would score differently from one report to the next.
DetectorFactory.seed = 0
# They log what they cannot read: the whole reply, which may be about a patient.
logging.getLogger("lm_eval.tasks.ifeval.instructions").disabled = True

JACKKNIFE_GROUPS = 200
"""Groups of documents that are left out in turn; each costs one run of the metric's aggregation, such as a corpus
BLEU."""


def score_task(suite: SuiteTask, lm: LedgerLM) -> TaskScore:
    """Score one recipe's answers to a task with lm-eval's own filters and metrics.

    Raises:
        tasks.evaluation.ledger_lm.Unanswered: the ledger lacks some of the task's answers.
    """
    instances = suite.task.instances
    by_type: dict[str, list[Any]] = defaultdict(list)
    for instance in instances:
        instance.resps, instance.filtered_resps = [], {}
        by_type[instance.request_type].extend([instance] * (instance.repeats or 1))
    for kind, requests in by_type.items():
        for request, response in zip(requests, getattr(lm, kind)(requests), strict=True):
            request.resps.append(response)
    suite.task.apply_filters()
    by_document: dict[int, list[Any]] = defaultdict(list)
    for instance in instances:
        by_document[instance.doc_id].append(instance)
    wanted = [*suite.metrics, *suite.shown]
    items: dict[tuple[str, str], list[Any]] = {metric: [] for metric in wanted}
    for group in by_document.values():
        group.sort(key=lambda instance: instance.idx)
        for filter_ in dict.fromkeys(filter_ for _, filter_ in wanted):
            random.seed(0)
            values = suite.task.process_results(group[0].doc, [i.filtered_resps[filter_] for i in group])
            for key in wanted:
                if key[1] == filter_:
                    items[key].append(values[key[0]])
    aggregate = suite.task.aggregation()
    samples = {key: _sample(values, aggregate[key[0]]) for key, values in items.items()}
    scored = [samples[key] for key in suite.metrics]
    return TaskScore(
        objective=suite.objective,
        task=suite.name,
        metrics={",".join(key) if key[1] != "none" else key[0]: value for key, (value, _, _) in samples.items()},
        value=float(np.mean([value for value, _, _ in scored])),
        influence=np.mean([influence for _, influence, _ in scored], axis=0),
        documents=scored[0][2],
        share=suite.share,
    )


def _sample(items: Sequence[Any], aggregate: Callable[[Any], float]) -> tuple[float, Floats, Floats]:
    """A metric's value, and per document its influence on the value and its own value.

    Nearly all of lm-eval's aggregations are a ratio of sums; whether one is, is checked against its own value. The
    influence of document i on R = Σa/Σb is (a_i - R·b_i) / mean(b) (linearisation; Cochran, Sampling Techniques,
    §6.3). Any other aggregation gets jackknife influences (Efron 1982): n·R - (n-1)·R_without_i - R.
    """
    value = float(aggregate(items))
    a, b = _as_ratio(items)
    if b.sum() > 0:
        for scale in (1.0, -1.0 / math.log(2)):  # the second: bits per byte
            ratio = scale * a.sum() / b.sum()
            if math.isclose(ratio, value, rel_tol=1e-9, abs_tol=1e-12):
                own = scale * np.divide(a, b, out=np.zeros_like(a), where=b > 0)
                return value, (scale * a - value * b) / b.mean(), own
    return value, _jackknife(items, aggregate), np.full(len(items), np.nan)


def _jackknife(items: Sequence[Any], aggregate: Callable[[Any], float]) -> Floats:
    """Influences from leaving out one document at a time; of many documents, one group of neighbours at a time."""
    n = len(items)
    if n < 2:
        return np.zeros(n)  # one document says nothing about its spread
    groups = np.array_split(np.arange(n), min(n, JACKKNIFE_GROUPS))
    without = np.array([aggregate([items[i] for i in range(n) if i < g[0] or i > g[-1]]) for g in groups])
    influence: Floats = np.empty(n)
    for group, left_out in zip(groups, without, strict=True):
        # √d, because d documents that share one number carry the variance of one.
        influence[group] = (n - len(group)) / len(group) ** 0.5 * (without.mean() - left_out)
    return np.asarray(influence - influence.mean())


def _as_ratio(items: Sequence[Any]) -> tuple[Floats, Floats]:
    """Numerators and denominators of lm-eval's items, in the order of the items.

    An item is a number, a list of verdicts (IFEval's instructions), or a (sum, weight) pair. The arrays are empty where
    one is anything else.
    """

    def is_number(value: Any) -> bool:
        return isinstance(value, bool | int | float | np.number)

    pairs: list[tuple[float, float]] = []
    for item in items:
        if is_number(item):
            pairs.append((float(item), 1.0))
        elif isinstance(item, list) and all(map(is_number, item)):
            pairs.append((float(sum(item)), float(len(item))))
        elif isinstance(item, tuple) and len(item) == 2 and all(map(is_number, item)):
            pairs.append((float(item[0]), float(item[1])))
        else:
            return np.zeros(0), np.zeros(0)
    return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
