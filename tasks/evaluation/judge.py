"""From answers to scores, by lm-eval's own filters, metrics and aggregations.

Every score keeps a number per document, its influence on the score, so that standard errors and paired differences
are computed without the answers. What is no number (NaN, infinity, an aggregation that raises) is no score: the recipe
has none, for a reason that is named.
"""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from langdetect import DetectorFactory

from orchestrator.core.errors import describe
from orchestrator.stats.aggregates import OfSums
from orchestrator.stats.estimates import Floats, Ints
from orchestrator.stats.scores import TaskScore
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.measures import AGGREGATIONS, count_places, measure
from tasks.evaluation.requests import group_by_document
from tasks.evaluation.suites import SuiteTask
from tasks.evaluation.thinking import measure_reasoning

# IFEval's checks guess: a reply's language by random sampling, and a setting of zero as if it were missing. Unseeded,
# the same answers would score differently from one report to the next.
DetectorFactory.seed = 0
# They log what they cannot read: the whole reply, which may be about a patient.
logging.getLogger("lm_eval.tasks.ifeval.instructions").disabled = True

JACKKNIFE_GROUPS = 200
"""Most groups of documents that are left out in turn; each costs one run of the metric's aggregation, such as a corpus
BLEU."""
Aggregate = Callable[[Any], float]
Metric = tuple[str, str]
"""lm-eval's (metric, filter)."""


class Sample(NamedTuple):
    """A metric of one recipe's answers to a task."""

    value: float
    influence: Floats
    """Of each document on the value; shape (documents,)."""
    documents: Floats
    """Each document's own value, NaN where it has none; shape (documents,)."""
    by_document: bool
    """Whether the influences are each document's own, rather than that of its group."""


class NoScore(Exception):
    """One recipe's answers to a task have no score; the message says why, without quoting them."""


def score_task(suite: SuiteTask, lm: LedgerLM) -> TaskScore:
    """Score one recipe's answers to a task with lm-eval's own filters and metrics.

    A metric that some documents lack is aggregated over those that have it, as in lm-eval.

    Raises:
        tasks.evaluation.ledger_lm.Unanswered: the ledger lacks some of the task's answers.
        NoScore: a metric of the score has no finite value, or no standard error.
    """
    instances = suite.task.instances
    _lay_in(suite, instances, lm)
    repeated = [instance for instance in instances for _ in range(instance.repeats or 1)]
    by_document = group_by_document(instances)
    judged_by = [key for key in (*suite.metrics, *suite.shown) if key[0] not in suite.yardstick.measures]
    values = judge_documents(suite, by_document, judged_by)
    measured_by = cache(partial(measure, suite.task, suite.yardstick, lm))
    measured = measured_by(suite.metrics[0][1])
    aggregate = {**suite.task.aggregation(), **{name: AGGREGATIONS[name] for name in measured}}
    clusters = np.array([suite.cluster_of[group[0].doc_id] for group in by_document], np.int64)
    groups = _groups(clusters)

    def sample(key: Metric) -> Sample:
        if key[0] in measured:
            items = dict(enumerate(map(tuple, measured_by(key[1])[key[0]])))
        else:
            items = {place: judged[key] for place, judged in enumerate(values) if key in judged}
        try:
            return _sample_of(items, aggregate[key[0]], groups)
        except NoScore as error:
            raise NoScore(f"{suite.name}: {key[0]}: {error}") from error.__cause__

    samples = {key: sample(key) for key in suite.metrics}
    for key in suite.shown:
        try:
            samples[key] = sample(key)
        except NoScore:  # it is no part of the score: the report has no number for it
            continue
    scored = [samples[key] for key in suite.metrics]
    return TaskScore(
        objective=suite.objective,
        task=suite.name,
        metrics={_label(key): each.value for key, each in samples.items()},
        value=float(np.mean([each.value for each in scored])),
        influence=np.mean([each.influence for each in scored], axis=0),
        documents=scored[0].documents,
        values=np.stack([each.documents for each in scored]),
        share=suite.share,
        reasoning=measure_reasoning(repeated, lm),
        counted={
            _label(key): sum(key in judged for judged in values) for key in suite.metrics if key[0] not in measured
        },
        clusters=clusters if all(each.by_document for each in scored) else groups,
        measures={name: AGGREGATIONS[name](items) for name, items in measured.items()},
        places=count_places(suite.task, suite.yardstick),
    )


def _label(key: Metric) -> str:
    return ",".join(key) if key[1] != "none" else key[0]


# -------------------------------------------------------------------- documents
def _lay_in(suite: SuiteTask, instances: Sequence[Any], lm: LedgerLM) -> None:
    """Give every request its answers."""
    by_type: dict[str, list[Any]] = defaultdict(list)
    for instance in instances:
        instance.resps, instance.filtered_resps = [], {}
        by_type[instance.request_type].extend([instance] * (instance.repeats or 1))
    for kind, requests in by_type.items():
        for request, response in zip(requests, getattr(lm, kind)(requests), strict=True):
            request.resps.append(response)
        if kind != "generate_until":
            numbers = [
                response[0] if isinstance(response, tuple) else response for r in requests for response in r.resps
            ]
            if wrong := [number for number in numbers if not math.isfinite(number)]:
                raise NoScore(
                    f"{suite.name}: {len(wrong)} of {len(numbers)} log-probabilities are not finite ({wrong[0]})"
                )


def judge_documents(
    suite: SuiteTask, by_document: Sequence[Sequence[Any]], metrics: Sequence[Metric]
) -> list[dict[Metric, Any]]:
    """Compute what lm-eval's `process_results` gives for each document, under each filter that the metrics use.

    Args:
        by_document: the requests of each document, with their responses.
        metrics: where there are none, nothing is computed.

    Raises:
        NoScore: a filter or process_results raises, or the latter gives no dictionary.
    """
    instances = [instance for group in by_document for instance in group]
    filters = dict.fromkeys(filter_ for _, filter_ in metrics)
    try:
        for each in suite.task._filters:
            each.apply(instances)
    except Exception as error:  # lm-eval's and users' filters raise whatever they meet
        raise NoScore(f"{suite.name}: a filter raises {describe(error)}") from error
    found = []
    for group in by_document:
        judged: dict[Metric, Any] = {}
        for filter_ in filters:
            random.seed(0)
            np.random.seed(0)
            judged |= {(str(name), filter_): value for name, value in _process(suite, group, filter_).items()}
        found.append(judged)
    return found


def _process(suite: SuiteTask, group: Sequence[Any], filter_: str) -> Mapping[str, Any]:
    where = f"{suite.name}: process_results of document {group[0].doc_id}"
    try:
        values = suite.task.process_results(group[0].doc, [request.filtered_resps[filter_] for request in group])
    except (Exception, SystemExit) as error:  # metrics raise whatever they meet, and programs exit
        raise NoScore(f"{where} raises {describe(error)}") from error
    if not isinstance(values, Mapping):
        raise NoScore(f"{where} gives {type(values).__name__}, not a dictionary of metrics")
    return values


# -------------------------------------------------------------------- metrics
def _sample_of(items: Mapping[int, Any], aggregate: Aggregate, groups: Ints) -> Sample:
    """As `_sample`, for a metric that only some of the documents have.

    A document without it has no influence; the others have more, in the ratio of the numbers.

    Args:
        items: place of a document → what process_results gave.
        groups: of all documents.
    """
    documents = len(groups)
    if not items:
        raise NoScore(f"none of {documents} documents has it")
    some = _sample([*items.values()], aggregate, groups[[*items]])
    influence, own = np.zeros(documents), np.full(documents, np.nan)
    influence[[*items]], own[[*items]] = some.influence * (documents / len(items)), some.documents
    return some._replace(influence=influence, documents=own)


def _sample(items: Sequence[Any], aggregate: Aggregate, groups: Ints) -> Sample:
    """A metric's value, and per document its influence on the value and its own value.

    Nearly all of lm-eval's aggregations are a ratio of sums. The influence of document i on R = Σa/Σb is
    (a_i - R·b_i) / mean(b) (linearisation; Cochran, Sampling Techniques, §6.3). Our own functions of sums (corpus BLEU)
    leave out each document in turn. Any other aggregation gets jackknife influences (Efron 1982) of groups.
    """
    value = _aggregated(items, aggregate)
    if isinstance(aggregate, OfSums):
        return Sample(value, aggregate.influence(items), np.full(len(items), np.nan), True)
    a, b = as_ratio(items)
    scale = ratio_scale(items, aggregate)
    if scale is not None and math.isclose(scale * a.sum() / b.sum(), value, rel_tol=1e-9, abs_tol=1e-12):
        own = scale * np.divide(a, b, out=np.zeros_like(a), where=b > 0)
        return Sample(value, (scale * a - value * b) / b.mean(), own, True)
    return Sample(value, _jackknife(items, aggregate, value, groups), np.full(len(items), np.nan), False)


def ratio_scale(items: Sequence[Any], aggregate: Aggregate) -> float | None:
    """The factor with which an aggregation is a ratio of sums; None where it is anything else.

    It is found with made-up items of the same form, and so is the same for all recipes. A recipe's own values may agree
    by chance: the median of equal values is their mean.
    """
    generator = random.Random(0)
    made_up: list[Any] = []
    for item, weight in zip(items, as_ratio(items)[1], strict=False):
        drawn = [generator.random() for _ in (item if isinstance(item, list) else [item])]
        made_up.append(drawn if isinstance(item, list) else (drawn[0], weight) if isinstance(item, tuple) else drawn[0])
    a, b = as_ratio(made_up)
    if not b.sum() > 0:
        return None
    try:
        value = _aggregated(made_up, aggregate)
    except NoScore:
        return None
    ratio = a.sum() / b.sum()
    scales = (1.0, -1.0 / math.log(2))  # the second: bits per byte
    return next((scale for scale in scales if math.isclose(scale * ratio, value, rel_tol=1e-9)), None)


def _aggregated(items: Sequence[Any], aggregate: Aggregate) -> float:
    """Run an aggregation, which is lm-eval's or the user's code.

    Raises:
        NoScore: it raises, or gives anything but a finite number.
    """
    over = f"its aggregation over {len(items)} documents"
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of a division by zero, say: a value that is no number is named below
            found = aggregate(list(items))
            value = number_of(found)
    except Exception as error:
        raise NoScore(f"{over} raises {describe(error)}") from error
    if value is None or not math.isfinite(value):
        raise NoScore(f"{over} gives {type(found).__name__ if value is None else value}, which is no score")
    return value


def number_of(found: Any) -> float | None:
    """Return what an aggregation gives as a number, numpy's and torch's included; None where it is none."""
    try:
        return None if isinstance(found, str | bytes) else float(found)
    except TypeError:
        return None


def _groups(clusters: Ints) -> Ints:
    """Join the clusters at random into the groups that a jackknife leaves out, each with the number of one of them.

    At random, because neighbours in a file are often alike. Every recipe has the same groups, and so have all metrics
    of a task: with a mean of metrics of which one needs groups, all are added up over them.
    """
    return _joined(clusters.tobytes())


@lru_cache(maxsize=256)
def _joined(clusters: bytes) -> Ints:
    """As `_groups`, once for all recipes; the clusters' bytes are those of int64."""
    numbers, places = np.unique(np.frombuffer(clusters, np.int64), return_inverse=True)
    joined = np.empty_like(numbers)
    order = np.random.default_rng(0).permutation(len(numbers))
    for group in np.array_split(order, min(len(numbers), JACKKNIFE_GROUPS)):
        joined[group] = numbers[group[0]]
    return np.asarray(joined[places])


def _jackknife(items: Sequence[Any], aggregate: Aggregate, value: float, groups: Ints) -> Floats:
    """Influences from leaving out one group of documents at a time; shape (documents,).

    Those of a group's d documents out of n are (n - d) / d · (R - R_without).
    """
    n, influence = len(items), np.zeros(len(items))
    numbers, places = np.unique(groups, return_inverse=True)
    if len(numbers) < 2:
        return influence  # one group says nothing about its spread

    def left_out(group: int) -> float:
        try:
            return _aggregated([item for item, place in zip(items, places, strict=True) if place != group], aggregate)
        except NoScore as error:
            raise NoScore(f"it depends on single documents, so that it has no standard error: {error}") from None

    for group, size in enumerate(np.bincount(places)):
        influence[places == group] = (n - size) / size * (value - left_out(group))
    return np.asarray(influence - influence.mean())


def as_ratio(items: Sequence[Any]) -> tuple[Floats, Floats]:
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
