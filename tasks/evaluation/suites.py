"""From the sweep's objectives to lm-eval tasks, and from those to questions.

lm-eval builds the prompts. Its tasks are loaded once per sweep; `tasks.evaluation.judge` lays each recipe's answers
into them.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.config.objectives import Objective, TaskUse
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError, hint
from orchestrator.core.files import make_private
from orchestrator.core.records import Question, Serving
from tasks.benchmarks import splits
from tasks.evaluation.trust import check_trusted, close_templates
from tasks.generation.sources import FILES, check_names, knows

if TYPE_CHECKING:
    from tasks.evaluation.ledger_lm import LedgerLM
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
    """Per question, the number of its document."""
    shown: list[tuple[str, str]] = field(default_factory=list)
    """Metrics that are reported beside the score and are no part of it."""
    share: float = 1.0
    """Its part of the objective where groups count as one."""
    split: str = ""
    """Which questions of the data set these are, in words."""


def offline(config: SweepConfig) -> None:
    """With a data_root, no library asks the hub for data sets; they read this when they are imported."""
    if config.data_root is not None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")


def open_lm(config: SweepConfig, serving: Serving) -> LedgerLM:
    """lm-eval's model over the serving's tokenizer, knowing no answers yet."""
    offline(config)
    from transformers import AutoTokenizer

    from tasks.evaluation.ledger_lm import LedgerLM

    try:
        tokenizer = AutoTokenizer.from_pretrained(serving.folder, trust_remote_code=False)
    except Exception as error:  # tokenizers raises nothing more special
        reason = " ".join(str(error).split())[:500]
        raise UserError(
            f"parents.{serving.parent}.model: its tokenizer cannot be loaded ({type(error).__name__}: {reason}); save "
            "it again, or set tokenizer to the parent that has a good one"
        ) from None
    return LedgerLM(serving, tokenizer, config.seed)


def keep_private(config: SweepConfig, out: Path) -> None:
    """What datasets makes of the files that the user's own lm-eval tasks read is as private as they are: it stays in
    the results folder, unless HF_DATASETS_CACHE says where. (The generation tasks keep their texts in memory.)"""
    if config.include_path and "HF_DATASETS_CACHE" not in os.environ:
        import datasets

        datasets.config.HF_DATASETS_CACHE = make_private(out / "cache")


def remember(suites: Sequence[SuiteTask], config: SweepConfig, folder: Path) -> None:
    """Let the generation tasks measure with the sweep's encoder, and keep what they measure in `folder`.

    Raises:
        UserError: the encoder cannot be had.
    """
    if tasks := generation_tasks(suites):
        from tasks.generation.metrics import Measured, open_encoder

        measured = Measured(folder, open_encoder(config.generation.encoder if config.generation else None))
        for task in tasks:
            task.measured = measured


def generation_tasks(suites: Sequence[SuiteTask]) -> list[GenerationTask]:
    from tasks.generation.task import GenerationTask

    return [suite.task for suite in suites if isinstance(suite.task, GenerationTask)]


def load_suites(config: SweepConfig, lm: LedgerLM) -> list[SuiteTask]:
    """Every task of every objective, with its questions.

    Raises:
        UserError: an unknown task or metric, data that cannot be loaded, a prompt that does not fit.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    check_trusted(config)
    check_names(config.generation)
    close_templates()
    manager = _task_manager(config)
    suites = []
    for name, objective in config.objectives.items():
        for index, item in enumerate(objective.tasks):
            where = f"objectives.{name}.tasks[{index}]"
            use = _use(item)
            if knows(use.task, config.generation):
                from tasks.generation.task import load_task

                task = load_task(where, use.task, config.generation)
                suites.append(_suite_task(config, lm, name, index, task))
                suites[-1].share = 1 / len(objective.tasks)
                continue
            if use.task not in manager.all_tasks:
                close = hint(use.task, [*FILES, *manager.all_tasks])
                raise UserError(
                    f"{where}: lm-eval knows no task, group or tag {use.task!r}{close}; "
                    "list them with `lm-eval ls tasks`, or name the folder of your own in include_path"
                )
            for task, share in _load(manager, where, use.task, config.data_root):
                suites.append(_suite_task(config, lm, name, index, task))
                suites[-1].share = share / len(objective.tasks)
        _check_expect(name, objective, [suite.name for suite in suites if suite.objective == name])
    return suites


def _check_expect(name: str, objective: Objective, tasks: list[str]) -> None:
    for task in objective.expect:
        if task not in tasks:
            raise UserError(
                f"objectives.{name}.expect: {task!r} is no task of this objective{hint(task, tasks)} (it has: "
                f"{', '.join(tasks)}); correct it or take it out"
            )


def _task_manager(config: SweepConfig) -> Any:
    """lm-eval's index of tasks. Its own 14,000 take seconds to read; they are left out when nothing needs them."""
    wanted = [_use(item).task for objective in config.objectives.values() for item in objective.tasks]
    names = {name for name in wanted if not knows(name, config.generation)}
    if config.include_path or not names:
        own = _index(tuple(config.include_path), False)
        if names <= set(own.all_tasks):
            return own
    return _index((str(splits.FOLDER), *config.include_path), True)


@cache
def _index(folders: tuple[str, ...], defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=list(folders), include_defaults=defaults)


def _load(manager: Any, where: str, name: str, data_root: str | None) -> list[tuple[Any, float]]:
    """The tasks behind a name, each with its share: the members of a group share equally."""
    spec: Any = name
    if name in splits.laid_over() and _is_lm_evals(manager, name):
        spec = {"group": f"{name} alone", "task": [splits.laid_over()[name]]}
    with _lm_evals_own(where, name, data_root):
        loaded = manager.load([spec])
    members = loaded["group_map"]

    def below(member: str, share: float) -> list[tuple[Any, float]]:
        if member not in members:
            return [(loaded["tasks"][member], share)]
        return [leaf for each in members[member] for leaf in below(each, share / len(members[member]))]

    tops = [top for top in (name, f"{name} alone") if top in members] or list(loaded["tasks"])
    return [leaf for top in tops for leaf in below(top, 1 / len(tops))]


def _is_lm_evals(manager: Any, name: str) -> bool:
    """Whether the task's file is lm-eval's, and not one of that name in include_path."""
    import lm_eval

    return bool(manager.task_index[name].yaml_path.is_relative_to(Path(lm_eval.__file__).parent))


@contextlib.contextmanager
def _lm_evals_own(where: str, name: str, data_root: str | None) -> Iterator[None]:
    """lm-eval and datasets raise whatever their loaders meet; to the user it is one thing: this task has no data.

    datasets takes `org/name` from the working directory when there is such a folder.
    """
    try:
        with _inside(data_root) if data_root else contextlib.nullcontext():
            yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or "no reason given"
        place = f"under data_root {data_root}" if data_root else "on the hub"
        raise UserError(
            f"{where}: task {name!r} could not be loaded ({type(error).__name__}: {reason}); its data is looked for "
            f"{place}; check the data set and num_fewshot, or set data_root to a folder that holds it as org/name"
        ) from error


@contextlib.contextmanager
def _inside(data_root: str) -> Iterator[None]:
    """datasets keeps a copy of what it reads under the data set's name alone, and would go on reading that copy when
    the files have changed: the state of the folder becomes part of where it is kept."""
    from datasets import config

    files = sorted(path for path in Path(data_root).rglob("*") if path.is_file())
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    usual = config.HF_DATASETS_CACHE
    config.HF_DATASETS_CACHE = usual / f"mergefront-{hashlib.sha256(repr(state).encode()).hexdigest()[:20]}"
    try:
        with contextlib.chdir(data_root):
            yield
    finally:
        config.HF_DATASETS_CACHE = usual


def _suite_task(config: SweepConfig, lm: LedgerLM, objective: str, index: int, task: Any) -> SuiteTask:
    settings, where = config.objectives[objective], f"objectives.{objective}.tasks[{index}]"
    use, name = _use(settings.tasks[index]), task.task_name
    chat = settings.apply_chat_template
    if chat and not lm.tokenizer.chat_template:
        raise UserError(
            f"objectives.{objective}.apply_chat_template: the tokenizer of {lm.serving.parent} has no chat template; "
            "set tokenizer to the parent that has one, or switch this off"
        )
    _configure(where, task, use, settings, config.seed)
    limit = use.limit or settings.limit
    with _lm_evals_own(where, name, config.data_root):
        chosen, split = splits.choose_side(where, task, settings.split)
        splits.check_counts(where, task, settings.expect.get(name), config.data_root)
        task.build_all_requests(
            limit=limit,
            samples=chosen and chosen[:limit],
            apply_chat_template=chat,
            fewshot_as_multiturn=chat,
            chat_template=lm.apply_chat_template if chat else None,
            tokenizer_name=lm.tokenizer_name,
        )
    asked = [
        (question, instance.doc_id)
        for instance in task.instances
        for repeat in range(instance.repeats or 1)
        for question in lm.questions(instance, repeat)
    ]
    questions, document_of = [question for question, _ in asked], [document for _, document in asked]
    documents = len({instance.doc_id for instance in task.instances})
    from tasks.generation.task import GenerationTask

    wanted = use.metric or settings.metric or splits.notes(task).get("metric")
    metrics = _metrics(where, task, wanted, settings.direction)
    shown = []
    if isinstance(task, GenerationTask):
        task.check(where, [metric for metric, _ in metrics])
        shown = [(metric, "none") for metric in task.shown() if (metric, "none") not in metrics]
    return SuiteTask(objective, name, task, metrics, documents, questions, document_of, shown, split=split)


def _configure(where: str, task: Any, use: TaskUse, settings: Objective, seed: int) -> None:
    shots = use.num_fewshot if use.num_fewshot is not None else settings.num_fewshot
    if shots is not None:
        if shots and task.get_config("num_fewshot") == 0:
            raise UserError(f"{where}: {use.task} fixes num_fewshot at 0, but {shots} is asked for; leave it out")
        task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=seed)
    overrides = {**settings.gen_kwargs, **use.gen_kwargs}
    if overrides and task.OUTPUT_TYPE == "generate_until":
        task.set_config(key="generation_kwargs", value=overrides, update=True)


def _use(item: str | TaskUse) -> TaskUse:
    return item if isinstance(item, TaskUse) else TaskUse(task=item)


def _metrics(where: str, task: Any, wanted: str | list[str] | None, direction: str) -> list[tuple[str, str]]:
    """(metric, filter) pairs: `exact_match,flexible-extract` names both, `acc` takes the task's first filter."""
    known = list(task.aggregation())
    filters = [item.name for item in getattr(task, "_filters", [])] or ["none"]
    names = [wanted] if isinstance(wanted, str) else wanted or known[:1]
    found = []
    for name in names:
        metric, _, filter_ = name.partition(",")
        if metric not in known or (filter_ and filter_ not in filters):
            every = [f"{m},{f}" for m in known for f in filters] if len(filters) > 1 else known
            raise UserError(f"{where}: has no metric {name!r}{hint(name, every)} (it has: {', '.join(every)})")
        higher = task.higher_is_better().get(metric, True)
        if higher is not None and higher != (direction == "maximize"):
            better = "maximize" if higher else "minimize"
            raise UserError(
                f"{where}: {metric} is better when {'higher' if higher else 'lower'}, but the objective's direction "
                f"is {direction}; write direction: {better}"
            )
        found.append((metric, filter_ or filters[0]))
    return found
