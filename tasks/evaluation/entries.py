"""From a sweep's objectives to lm-eval's tasks, loaded, and the side that each of their questions is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config.objectives import Objective, TaskUse
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError, hint
from orchestrator.core.records import Halving
from tasks.benchmarks import splits
from tasks.benchmarks.questions import question_of
from tasks.benchmarks.splits import Place, Sides
from tasks.evaluation.task_index import building, load_named, loading
from tasks.generation.sources import FILES, knows
from tasks.generation.task import load_task


@dataclass(frozen=True)
class Entry:
    """A loaded task of an entry of an objective's `tasks`."""

    where: str
    """The sweep file's key of the entry, for messages."""
    name: str
    """Of the objective."""
    objective: Objective
    use: TaskUse
    task: Any
    share: float
    """Its part of the objective."""


def load_entries(objectives: Mapping[str, Objective], config: SweepConfig, index: Any) -> Iterator[Entry]:
    """Load the tasks of every objective.

    Args:
        index: lm-eval's, with the tasks that are no generation tasks.

    Raises:
        UserError: no such task, or it or its data cannot be loaded.
    """
    for name, objective in objectives.items():
        key, tasks = _key(name, config), []
        for number, use in enumerate(map(use_of, objective.tasks)):
            where = f"{key}.tasks[{number}]"
            for task, share in _tasks_behind(where, use, config, index):
                tasks.append(task.task_name)
                yield Entry(where, name, objective, use, task, share / len(objective.tasks))
        _check_expect(key, objective, tasks)


def read_sides(entries: Sequence[Entry], config: SweepConfig, halving: Halving) -> Sides:
    """Read which side each question is on, of the tasks that are split.

    Raises:
        UserError: a document is not what the task's own programs expect.
    """
    texts: dict[Place, list[str]] = {}
    for entry in entries if halving == "question" else ():
        task, name = entry.task, entry.task.task_name
        if entry.objective.split is None or (name, splits.used_split(task)) in texts:
            continue
        with loading(entry.where, name, config.data_root):
            found = splits.documents_by_split(task)
        with building(entry.where, name):
            for split, documents in found.items():
                texts[name, split] = [question_of(task, document).text for document in documents]
    return Sides(halving, texts)


def _key(name: str, config: SweepConfig) -> str:
    """The sweep file's key of an objective, for messages; no objective has the name of a fine-tuning task."""
    return f"finetune.tasks.{name}" if config.finetune and name in config.finetune.tasks else f"objectives.{name}"


def use_of(item: str | TaskUse) -> TaskUse:
    """Return an entry of an objective's `tasks` with its settings."""
    return item if isinstance(item, TaskUse) else TaskUse(task=item)


def _tasks_behind(where: str, use: TaskUse, config: SweepConfig, index: Any) -> list[tuple[Any, float]]:
    """The tasks that an entry of an objective's tasks names, each with its share of the entry."""
    if knows(use.task, config.generation):
        return [(load_task(where, use.task, config.generation), 1.0)]
    if use.task not in index.all_tasks:
        close = hint(use.task, [*FILES, *index.all_tasks])
        raise UserError(
            f"{where}: lm-eval knows no task, group or tag {use.task!r}{close}; "
            "list them with `lm-eval ls tasks`, or name the folder of your own in include_path"
        )
    return load_named(index, where, use.task, config.data_root)


def _check_expect(key: str, objective: Objective, tasks: list[str]) -> None:
    for task in objective.expect:
        if task not in tasks:
            raise UserError(
                f"{key}.expect: {task!r} is no task of this objective{hint(task, tasks)} (it has: "
                f"{', '.join(tasks)}); correct it or take it out"
            )
