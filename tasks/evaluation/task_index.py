"""lm-eval's tasks, groups and tags: found by name, and loaded with their data sets."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets.config
import lm_eval
import numpy as np
from datasets.exceptions import DatasetGenerationError, DatasetsError
from lm_eval.tasks import TaskManager

from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from tasks.benchmarks import splits
from tasks.evaluation.data_root import DataSet, check_single, data_sets, found_instead
from tasks.evaluation.refusals import files_behind, why_refused


def open_index(names: Iterable[str], include_path: Sequence[str]) -> TaskManager:
    """Open lm-eval's index of its own tasks, mergefront's, and those of the folders in `include_path`.

    lm-eval's 14,000 entries take seconds to read; they are left out where all of `names` are found without them.
    """
    wanted = set(names)
    if include_path or not wanted:
        own = _index(tuple(include_path), False)
        if wanted <= set(own.all_tasks):
            return own
    return _index((str(splits.FOLDER), *include_path), True)


@cache
def _index(folders: tuple[str, ...], defaults: bool) -> TaskManager:
    return TaskManager(include_path=list(folders), include_defaults=defaults)


def load_named(index: TaskManager, where: str, name: str, data_root: str | None) -> list[tuple[Any, float]]:
    """Load the tasks behind a name, each with its share of it: the members of a group share equally.

    Args:
        where: the sweep file's key, for messages.

    Raises:
        UserError: a task needs more than a model's text, or it or its data set cannot be loaded.
    """
    for task, settings in files_behind(index, name):
        if refusal := why_refused(settings):
            raise UserError(f"{where}: task {task!r} {refusal.reason}; take it out, or name another task")
    spec: Any = name
    if name in splits.laid_over() and _is_lm_evals(index, name):
        spec = {"group": f"{name} alone", "task": [splits.laid_over()[name]]}
    sets = data_sets(index, name)
    if data_root:
        check_single(Path(data_root), sets)
    # As lm-eval before it loads tasks: their programs may draw at random, GPQA's the order of its choices.
    random.seed(0)
    np.random.seed(1234)
    with loading(where, name, data_root, sets):
        loaded = index.load([spec])
    members = loaded["group_map"]

    def below(member: str, share: float) -> list[tuple[Any, float]]:
        if member not in members:
            return [(loaded["tasks"][member], share)]
        return [leaf for each in members[member] for leaf in below(each, share / len(members[member]))]

    tops = [top for top in (name, f"{name} alone") if top in members] or list(loaded["tasks"])
    return [leaf for top in tops for leaf in below(top, 1 / len(tops))]


def _is_lm_evals(index: TaskManager, name: str) -> bool:
    """Whether the task's file is lm-eval's, and not one of that name in include_path."""
    return bool(index.task_index[name].yaml_path.is_relative_to(Path(lm_eval.__file__).parent))


@contextlib.contextmanager
def loading(where: str, name: str, data_root: str | None, sets: Sequence[DataSet] = ()) -> Iterator[None]:
    """Let lm-eval read a task's file and data set in the block: from `data_root` if given, else from the hub.

    datasets reads `org/name` from the working directory when there is such a folder.

    Args:
        sets: the data sets that are read, for the error.

    Raises:
        UserError: the data set is not there, or cannot be read as the task file says.
    """
    place = f"under data_root {data_root}" if data_root else "on the hub"
    try:
        with _inside(data_root) if data_root else contextlib.nullcontext():
            yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # lm-eval and datasets raise whatever their loaders meet; programs exit
        # datasets' own error only says that there was one.
        reason = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        found = found_instead(Path(data_root), sets) if data_root else ""
        wanted = sets[0][0] if len(sets) == 1 else "org/name"
        way_out = (
            f"its data is looked for {place}; check the data set, or set data_root to a folder that has it as {wanted}"
            if isinstance(reason, OSError | DatasetsError)
            else "correct its task file or the data set that it names"
        )
        if isinstance(reason, StopIteration) or "size 0" in str(reason):
            way_out = "it has no documents: check the data set, and process_docs of the task file"
        elif isinstance(reason, IndexError) and "dataset of size" not in str(reason):  # it tries the first document
            way_out = (
                "lm-eval tries its first document, which has a label that names none of its choices, or an empty "
                "choice: labels count from 0 (doc_to_target)"
            )
        raise UserError(f"{where}: task {name!r} could not be loaded ({_words(reason)}); {way_out}{found}") from error


@contextlib.contextmanager
def building(where: str, name: str) -> Iterator[None]:
    """Let lm-eval make a loaded task's prompts in the block.

    Raises:
        UserError: the task file, its programs or the chat template do not go together with the data.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{where} ({name}): {error}") from None
    except Exception as error:  # a task's own programs may raise anything
        raise UserError(
            f"{where}: the prompts of task {name!r} cannot be made ({_words(error)}); correct its task file, or "
            "num_fewshot"
        ) from error


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error) or 'no reason given'}"


@contextlib.contextmanager
def _inside(data_root: str) -> Iterator[None]:
    """The working directory is `data_root`, and datasets' cache is one that belongs to the state of its files.

    datasets keeps a copy of what it reads under the data set's name alone, and would continue to read that copy when
    the files have changed.
    """
    files = sorted(path for path in Path(data_root).rglob("*") if path.is_file())
    state = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    usual = datasets.config.HF_DATASETS_CACHE
    folder = f"mergefront-{hashlib.sha256(repr(state).encode()).hexdigest()[:20]}"
    datasets.config.HF_DATASETS_CACHE = usual / folder
    try:
        with contextlib.chdir(data_root):
            yield
    finally:
        datasets.config.HF_DATASETS_CACHE = usual
