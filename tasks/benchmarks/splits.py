"""The questions of a task that a sweep uses, and whether its data set is complete.

A sweep uses all questions, or those of one side where it searches on some and confirms on others. A data set is
complete when it has as many questions as its authors published.

The suites' task files (`lm_eval/`) say for each task, under `metadata.mergefront`, how many `questions` each split has,
and which split to `search` on where the benchmark has one to spare. Any other task is halved by a hash of each
question's text (`tasks.benchmarks.questions`): the same question is on the same side in every task, whatever its
options, its place, its prompt or the model. Where a spare split shares a question with another task of the sweep, or
with its own task's test split, the hash decides too: the question is left out where it would be on the other side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from orchestrator.core.errors import UserError
from orchestrator.core.records import Halving
from tasks.benchmarks.questions import digest

FOLDER = Path(__file__).parent / "lm_eval"
"""lm-eval task files that every sweep can name."""
Side = Literal["search", "confirm"]
Place = tuple[str, str]
"""Name of a task, and one of its splits."""


@cache
def laid_over() -> dict[str, dict[str, Any]]:
    """Read lm-eval's own tasks → the settings by which mergefront's suites override their files."""
    groups = (
        yaml.safe_load((FOLDER / f"{name}.yaml").read_text()) for name in ("mmlu_medical", "medical", "instruction")
    )
    return {item["task"]: item for group in groups for item in group["task"] if isinstance(item, dict)}


def notes(task: Any) -> dict[str, Any]:
    """Return the entries under `metadata.mergefront` in a task's file."""
    return dict((task.config.metadata or {}).get("mergefront", {}))


# -------------------------------------------------------------------- sides
@dataclass(frozen=True)
class Chosen:
    """The documents of a task that a sweep uses."""

    documents: list[int] | None
    """Their numbers in the split, from 0; None for all."""
    split: str
    """The side in words."""
    left_out: int = 0
    """Documents of a spare or a test split that are on the other side elsewhere, and are used on neither here."""


@dataclass(frozen=True)
class Sides:
    """Which side every question of a sweep is on."""

    halving: Halving = "question"
    texts: Mapping[Place, Sequence[str]] = field(default_factory=dict)
    """The text of every question of the tasks that are split, by place."""

    @cached_property
    def shared(self) -> frozenset[str]:
        """The questions that more than one split has."""
        seen: set[str] = set()
        again: set[str] = set()
        for texts in self.texts.values():
            again |= seen.intersection(texts)
            seen.update(texts)
        return frozenset(again)

    def choose(self, where: str, task: Any, side: Side | None) -> Chosen:
        """Set the task to the split that a side uses, and choose the documents of that side.

        Args:
            where: the sweep file's key of the task, for messages.
            side: None for all questions.

        Raises:
            UserError: the task has no document on this side.
        """
        spare = notes(task).get("search")
        if side == "search" and spare:
            task.set_config(key="test_split", value=spare)
        split = used_split(task)
        if side is None or (spare and self.halving == "document"):
            return Chosen(None, split)
        if self.halving == "document":
            documents = [n for n, document in enumerate(task.eval_docs) if _side_of_document(document) == side]
        else:
            texts = self.texts[task.task_name, split]
            documents = [n for n, text in enumerate(texts) if self._is_on(text, side, bool(spare))]
        if not documents:
            raise UserError(f"{where}: {task.task_name} has no question on the side {side!r}; leave out split")
        total = len(task.eval_docs)
        if spare and len(documents) == total:
            return Chosen(None, split)
        words = f"the rest of {split}" if spare else f"half of {split} by hash"
        return Chosen(documents, words, total - len(documents) if spare else 0)

    def _is_on(self, text: str, side: Side, spare: bool) -> bool:
        return (spare and text not in self.shared) or side_of(text) == side


def used_split(task: Any) -> str:
    """Return the split that a task is evaluated on."""
    return str(task.config.test_split or task.config.validation_split)


def documents_by_split(task: Any) -> dict[str, Any]:
    """Return the documents that a task may be evaluated on: split → documents, the spare one included."""
    spare = notes(task).get("search")
    return {split: _documents(task, split) for split in (used_split(task), *([spare] if spare else []))}


def _documents(task: Any, split: str) -> Any:
    return (task.config.process_docs or (lambda documents: documents))(task.dataset[split])


def side_of(text: str) -> Side:
    """Return the side that a question is on, by a hash of its text."""
    return "confirm" if digest(text)[0] % 2 else "search"


def _side_of_document(document: dict[str, Any]) -> Side:
    return side_of(json.dumps(document, sort_keys=True, default=str))


# -------------------------------------------------------------------- complete data sets
def check_counts(where: str, task: Any, expected: int | None, data_root: str | None) -> None:
    """Compare the number of questions with the expected one, or else that of every split with the published one.

    Args:
        where: the sweep file's key of the task, for messages.

    Raises:
        UserError: they differ.
    """
    name, used = task.task_name, used_split(task)
    published = notes(task).get("questions", {})
    source = "its authors published" if expected is None else "the sweep expects"
    for split, number in (published if expected is None else {used: expected}).items():
        found = len(_documents(task, split))
        if found != number:
            raise UserError(
                f"{where}: {name} has {found} questions, but {source} {number}: split {split} of "
                f"{_data(task, data_root)}; get the data set again, or, if this is the one you mean, write "
                f"`expect: {{{name}: {len(task.eval_docs)}}}` beside tasks"
            )


def _data(task: Any, data_root: str | None) -> str:
    """The data set's name, and the place it was read from."""
    name = task.config.dataset_path or notes(task).get("data")
    if name is None:
        return "its own data set"
    part = f" ({task.config.dataset_name})" if task.config.dataset_name else ""
    revision = (task.config.dataset_kwargs or {}).get("revision", "main")
    return f"{name}{part} " + (f"in {Path(data_root) / name}" if data_root else f"on the hub at {revision}")
