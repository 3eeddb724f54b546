"""The questions of a task that a sweep uses, and whether its data set is complete.

A sweep uses all questions, or those of one side where it searches on some and confirms on others. A data set is
complete when it has as many questions as its authors published.

The suites' task files (`lm_eval/`) say for each task, under `metadata.mergefront`, how many `questions` each split has,
and which split to `search` on where the benchmark has one to spare. Any other task is halved by a hash of each
question's content: the same question is on the same side whatever its place, its prompt or the model.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from orchestrator.core.errors import UserError

FOLDER = Path(__file__).parent / "lm_eval"
"""lm-eval task files that every sweep can name."""
Side = Literal["search", "confirm"]


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


def choose_side(where: str, task: Any, side: Side | None) -> tuple[list[int] | None, str]:
    """Set the task to the split that a side uses.

    Args:
        where: the sweep file's key of the task, for messages.
        side: None for all questions.

    Returns:
        Numbers of the documents on this side, from 0 (None: all of them), and the side in words.

    Raises:
        UserError: the task has so few documents that none is on this side.
    """
    spare = notes(task).get("search")
    if side == "search" and spare:
        task.set_config(key="test_split", value=spare)
    split = task.config.test_split or task.config.validation_split
    if side is None or spare:
        return None, split
    documents = [index for index, document in enumerate(task.eval_docs) if side_of(document) == side]
    if not documents:
        raise UserError(f"{where}: {task.task_name} has no question on the side {side!r}; leave out split")
    return documents, f"half of {split} by hash"


def side_of(document: dict[str, Any]) -> Side:
    """Return the side that a question is on, by a hash of its content."""
    content = json.dumps(document, sort_keys=True, default=str)
    return "confirm" if hashlib.sha256(content.encode()).digest()[0] % 2 else "search"


def check_counts(where: str, task: Any, expected: int | None, data_root: str | None) -> None:
    """Compare the number of questions with the expected one, or else that of every split with the published one.

    Args:
        where: the sweep file's key of the task, for messages.

    Raises:
        UserError: they differ.
    """
    name, used = task.task_name, task.config.test_split or task.config.validation_split
    published = notes(task).get("questions", {})
    source = "its authors published" if expected is None else "the sweep expects"
    process = task.config.process_docs or (lambda documents: documents)
    for split, number in (published if expected is None else {used: expected}).items():
        found = len(process(task.dataset[split]))
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
