"""From the sweep's objectives to lm-eval tasks, and from those to questions.

lm-eval builds the prompts. Its tasks are loaded once per sweep; `tasks.evaluation.judge` lays each recipe's answers
into them.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets.config
from lm_eval.api.task import ConfigurableTask

from orchestrator.config.generation import Generation
from orchestrator.config.measures import MEASURES
from orchestrator.config.objectives import Objective, TaskUse
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError, hint
from orchestrator.core.files import make_private
from orchestrator.core.records import Halving, Question, Serving
from orchestrator.core.text import count, one_line
from orchestrator.models.tokenizer import open_tokenizer
from tasks.benchmarks import splits
from tasks.benchmarks.overlaps import Overlap, clusters, find_overlaps
from tasks.benchmarks.questions import Asked, question_of
from tasks.benchmarks.splits import Chosen, Sides
from tasks.evaluation.chat import Chat
from tasks.evaluation.entries import Entry, load_entries, read_sides, use_of
from tasks.evaluation.gen_kwargs import overlaid, read_gen_kwargs
from tasks.evaluation.labels import check_documents, odd_prompts
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.measures import Yardstick, yardstick
from tasks.evaluation.prompts import build, chat_of, notes, settle_thinking
from tasks.evaluation.refusals import why_not_computed
from tasks.evaluation.task_index import building, loading, open_index
from tasks.evaluation.trust import check_trusted, close_downloads, close_templates
from tasks.generation.measured import Measured
from tasks.generation.metrics import open_encoder
from tasks.generation.sources import check_names, knows
from tasks.generation.task import GenerationTask


@dataclass
class SuiteTask:
    """One lm-eval task as one objective uses it."""

    objective: str
    name: str
    task: Any
    metrics: list[tuple[str, str]]
    """lm-eval's (metric, filter) pairs; the task's score is their mean."""
    documents: int
    questions: list[Question]
    document_of: list[int]
    """For each question, the number of its document."""
    shown: list[tuple[str, str]] = field(default_factory=list)
    """Metrics that are reported beside the score and are no part of it."""
    share: float = 1.0
    """Its part of the objective; used where a group counts as one task."""
    split: str = ""
    """Which questions of the data set these are, in words: `test`, or `half of test by hash`."""
    notes: Sequence[str] = ()
    """Sentences that a reader of its scores must know."""
    where: str = ""
    """The sweep file's key of the task, for messages."""
    asked: dict[int, Asked] = field(default_factory=dict)
    """Number of a document → its question, of the documents that are evaluated."""
    cluster_of: dict[int, int] = field(default_factory=dict)
    """Number of a document → that of its cluster: documents of a sweep that ask the same question have the same."""
    available: int = 0
    """Documents that the data set has on this side, whatever the limit."""

    @cached_property
    def yardstick(self) -> Yardstick:
        """What replies are compared with by the measures, read when the first recipe is scored."""
        return yardstick(self.task)


# -------------------------------------------------------------------- before anything is loaded
def offline(config: SweepConfig) -> None:
    """Keep this process, and those that it starts, from looking for data sets on the hub, if there is a data_root."""
    if config.data_root is not None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        wanted = os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
        # datasets read the variable when it was imported.
        datasets.config.HF_HUB_OFFLINE = wanted.upper() in datasets.config.ENV_VARS_TRUE_VALUES


def open_lm(config: SweepConfig, serving: Serving) -> LedgerLM:
    """Open lm-eval's model over the serving's tokenizer, with no answers yet.

    Raises:
        UserError: the tokenizer cannot be loaded.
    """
    offline(config)
    try:
        tokenizer = open_tokenizer(Path(serving.folder))
    except Exception as error:  # tokenizers raises nothing more specific
        raise UserError(
            f"parents.{serving.parent}.model: its tokenizer cannot be loaded ({type(error).__name__}: "
            f"{one_line(error)}); save it again, or set tokenizer to the parent that has a good one"
        ) from None
    return LedgerLM(serving, tokenizer, config.seed)


def keep_private(config: SweepConfig, cache: Path) -> None:
    """Keep what datasets caches of the user's own data in `cache`, unless HF_DATASETS_CACHE names another folder.

    What datasets makes of the files that the user's own lm-eval tasks read must be as private as they are. (The
    generation tasks keep their texts in memory.)
    """
    if config.include_path and "HF_DATASETS_CACHE" not in os.environ:
        datasets.config.HF_DATASETS_CACHE = make_private(cache)


# -------------------------------------------------------------------- suites
def load_suites(objectives: Mapping[str, Objective], config: SweepConfig, lm: LedgerLM) -> list[SuiteTask]:
    """Load every task of every objective, with its questions, as `load_rounds` for a single round."""
    return load_rounds([objectives], config, lm)[0]


def load_rounds(
    rounds: Sequence[Mapping[str, Objective]], config: SweepConfig, lm: LedgerLM, halving: Halving = "question"
) -> list[list[SuiteTask]]:
    """Load every task of every objective of a sweep's rounds, with its questions.

    All of them are loaded first, because a question that several tasks have is on one side, and is one cluster.

    Args:
        rounds: name → objective: the sweep's own, its fine-tuning tasks, and the held-out side of a search.
        config: where tasks and data sets are found.
        halving: what decides the side of a question.

    Returns:
        The tasks of each round.

    Raises:
        UserError: an unknown task or metric, data that cannot be loaded, a prompt that does not fit.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    check_trusted(config)
    check_names(config.generation)
    close_templates()
    close_downloads()
    uses = [use.task for objectives in rounds for each in objectives.values() for use in map(use_of, each.tasks)]
    index = open_index((name for name in uses if not knows(name, config.generation)), config.include_path)
    entries = [list(load_entries(objectives, config, index)) for objectives in rounds]
    sides = read_sides([entry for each in entries for entry in each], config, halving)
    suites = [[_suite_task(entry, sides, config, lm) for entry in each] for each in entries]
    numbers = clusters(question for each in suites for suite in each for question in suite.asked.values())
    for suite in (suite for each in suites for suite in each):
        suite.cluster_of = {document: numbers[question] for document, question in suite.asked.items()}
        if again := suite.documents - len(set(suite.cluster_of.values())):
            again_note = f"{again} of {suite.documents} documents have the same question as an earlier one"
            suite.notes = [*suite.notes, f"{suite.objective}, {suite.name}: {again_note}."]
    return suites


def overlaps_of(suites: Iterable[SuiteTask]) -> list[Overlap]:
    """Find the questions that the tasks of a round share, or ask twice."""
    by_name: dict[str, list[int]] = {}
    for suite in suites:  # of a task in two objectives, that with more documents
        by_name[suite.name] = max(by_name.get(suite.name, []), list(suite.cluster_of.values()), key=len)
    return find_overlaps(by_name)


def remember(suites: Sequence[SuiteTask], config: SweepConfig, folder: Path) -> None:
    """Let the generation tasks measure with the sweep's encoder, and keep what they measure in `folder`.

    Raises:
        UserError: the encoder is not available, or has fewer layers than the sweep names.
    """
    if tasks := generation_tasks(suites):
        generation = config.generation or Generation()
        measured = Measured(folder, open_encoder(generation.encoder), stemming=generation.metrics.stemming)
        for task in tasks:
            task.measured = measured


def generation_tasks(suites: Sequence[SuiteTask]) -> list[GenerationTask]:
    """List the generation tasks among the suites."""
    return [suite.task for suite in suites if isinstance(suite.task, GenerationTask)]


def _suite_task(entry: Entry, sides: Sides, config: SweepConfig, lm: LedgerLM) -> SuiteTask:
    """A loaded task with its questions and metrics."""
    where, objective, use, task = entry.where, entry.objective, entry.use, entry.task
    _configure(where, task, use, objective, config.seed)
    chat = chat_of(lm, objective, where.rpartition(".")[0])
    chosen, odd = _build_requests(entry, sides, config, lm, chat)
    with building(where, task.task_name):
        documents = {instance.doc_id: instance.doc for instance in task.instances}
        asked = {number: question_of(task, document) for number, document in documents.items()}
    with naming(where, task):
        _check_gen_kwargs(task, objective.gen_kwargs, use.gen_kwargs)
        settle_thinking(task, lm, objective)
        pairs = [
            (question, instance.doc_id)
            for instance in task.instances
            for repeat in range(instance.repeats or 1)
            for question in lm.questions(instance, repeat)
        ]
    wanted = use.metric or objective.metric or splits.notes(task).get("metric")
    metrics = _metrics(where, task, wanted, objective.direction)
    shown = []
    if isinstance(task, GenerationTask):
        task.check(where, [metric for metric, _ in metrics])
        shown = [(metric, "none") for metric in task.shown() if (metric, "none") not in metrics]
    return SuiteTask(
        objective=entry.name,
        name=task.task_name,
        task=task,
        metrics=metrics,
        documents=len(documents),
        questions=[question for question, _ in pairs],
        document_of=[document for _, document in pairs],
        shown=shown,
        share=entry.share,
        split=chosen.split,
        where=where,
        notes=[f"{entry.name}, {task.task_name}: {note}." for note in (*notes(task, objective, chat), *odd)],
        asked=asked,
        available=len(task.eval_docs) if chosen.documents is None else len(chosen.documents),
    )


def _configure(where: str, task: Any, use: TaskUse, objective: Objective, seed: int) -> None:
    """Lay the sweep file's settings over the task file's."""
    shots = use.num_fewshot if use.num_fewshot is not None else objective.num_fewshot
    if shots is not None:
        if shots and task.get_config("num_fewshot") == 0:
            raise UserError(f"{where}: {use.task} fixes num_fewshot at 0, not {shots}; leave it out")
        task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=seed)
    if task.OUTPUT_TYPE == "generate_until":
        with naming(where, task):
            _configure_generation(task, objective.gen_kwargs, use.gen_kwargs)


def _configure_generation(task: Any, *settings: dict[str, Any]) -> None:
    """Lay the sweep file's settings of a generation over the task file's."""
    written = task.get_config("generation_kwargs") or {}
    merged = overlaid(written, *settings, delimiter=task.get_config("fewshot_delimiter"))
    read_gen_kwargs(merged)
    task.set_config(key="generation_kwargs", value=merged)


@contextlib.contextmanager
def naming(where: str, task: Any) -> Iterator[None]:
    """Name the entry of the sweep file, and the task, in an error about one of the task's requests."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where} ({task.task_name}): {error}") from None


def _check_gen_kwargs(task: Any, *settings: dict[str, Any]) -> None:
    """Refuse settings that do not reach the requests, because the task's own program makes them without its config."""
    wanted = overlaid({}, *settings)
    for made in (instance.args[1] for instance in task.instances if instance.request_type == "generate_until"):
        if lost := [key for key, value in wanted.items() if made.get(key) != value]:
            raise UserError(f"gen_kwargs: {lost[0]} has no effect, as the task's own program sets {made}; leave it out")


def _build_requests(
    entry: Entry, sides: Sides, config: SweepConfig, lm: LedgerLM, chat: Chat | None
) -> tuple[Chosen, list[str]]:
    """Let lm-eval build the task's requests, of the chosen side and up to the limit.

    Returns:
        The chosen documents, and what is odd about them.
    """
    where, objective, task = entry.where, entry.objective, entry.task
    limit = entry.use.limit or objective.limit
    with loading(where, task.task_name, config.data_root):
        chosen = sides.choose(where, task, objective.split)
        splits.check_counts(where, task, objective.expect.get(task.task_name), config.data_root)
        used = range(len(task.eval_docs)) if chosen.documents is None else chosen.documents
    with building(where, task.task_name):
        odd = check_documents(task, used[:limit])
        samples = chosen.documents and chosen.documents[:limit]
        build(task, lm, chat, objective.system_prompt, limit=limit, samples=samples)
        odd += odd_prompts(task)
    if sides.halving == "document" and chosen.documents is not None:
        odd.append(
            "it was halved by a hash of its documents, as this results folder began with an earlier mergefront; a "
            "question that two tasks have may be on both sides (a new folder keeps it on one)"
        )
    if chosen.left_out:
        odd.append(
            f"{count(chosen.left_out, 'document')} of {splits.used_split(task)} are left out, because their questions "
            "are on the other side, where another task or split has them"
        )
    return chosen, odd


def _why_not_computed(task: Any, metric: str) -> str | None:
    if not isinstance(task, ConfigurableTask) or callable(task.config.process_results):
        return None  # it computes them itself
    listed = {str(item["metric"]): item for item in task.config.metric_list or []}
    return why_not_computed(task.OUTPUT_TYPE, metric, callable(listed.get(metric, {}).get("aggregation")))


def _metrics(where: str, task: Any, wanted: str | list[str] | None, direction: str) -> list[tuple[str, str]]:
    """(metric, filter) pairs: `exact_match,flexible-extract` names both, `acc` takes the task's first filter."""
    own = list(task.aggregation())
    filters = [item.name for item in getattr(task, "_filters", [])] or ["none"]
    names = [wanted] if isinstance(wanted, str) else wanted or own[:1]
    is_own = all(name.partition(",")[0] in own for name in names)
    known = own if is_own else [*own, *yardstick(task).measures]
    found = []
    for name in names:
        metric, _, filter_ = name.partition(",")
        if metric not in known or (filter_ and filter_ not in filters):
            every = [f"{m},{f}" for m in known for f in filters] if len(filters) > 1 else known
            raise UserError(f"{where}: has no metric {name!r}{hint(name, every)} (it has: {', '.join(every)})")
        higher = task.higher_is_better().get(metric, True) if metric in own else MEASURES[metric].higher_is_better
        if not isinstance(higher, bool | None):
            raise UserError(
                f"{where}: {task.task_name} says higher_is_better: {higher!r} of {metric}; write true or "
                "false there, without quotes"
            )
        if higher is not None and higher != (direction == "maximize"):
            better = "maximize" if higher else "minimize"
            raise UserError(
                f"{where}: {metric} is better when {'higher' if higher else 'lower'}, but the objective's direction "
                f"is {direction}; write direction: {better}"
            )
        if metric in own and (why := _why_not_computed(task, metric)):
            raise UserError(f"{where}: {task.task_name} {why}; name another metric (it has: {', '.join(known)})")
        found.append((metric, filter_ or filters[0]))
    return found
