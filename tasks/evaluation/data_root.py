"""What a folder of data sets has in the place of one that cannot be read there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager

from orchestrator.core.errors import UserError
from orchestrator.core.folders import contents, is_residue, near_names, plain_name, stem_of, visible_files

DataSet = tuple[str, str | None]
"""Its name on the hub (`cais/mmlu`), and that of its configuration (`anatomy`)."""


def data_sets(index: TaskManager, name: str) -> list[DataSet]:
    """List the data sets of a task, or of those behind a group or tag, as far as their files name them."""
    return list(dict.fromkeys(_data_sets(index, name, {name})))


def _data_sets(index: TaskManager, name: str, seen: set[str]) -> Iterator[DataSet]:
    entry = index.task_index.get(name)
    settings: dict[str, Any] = (entry and entry.cfg) or {}
    notes = (settings.get("metadata") or {}).get("mergefront") or {}
    if path := settings.get("dataset_path") or notes.get("data"):
        yield str(path), settings.get("dataset_name")
    members = settings.get("task", []) if "group" in settings else sorted(entry.tags) if entry and not settings else []
    for member in [members] if isinstance(members, str) else members:
        below = member.get("task") if isinstance(member, dict) else member
        if isinstance(below, str) and below not in seen:
            yield from _data_sets(index, below, seen | {below})


def check_single(root: Path, sets: Sequence[DataSet]) -> None:
    """Refuse a data set with two forms or versions of a file: datasets would read them together, or one of them.

    Raises:
        UserError: there are such files below `root`.
    """
    for path, _ in sets:
        first: dict[Path, Path] = {}
        for file in visible_files(root / path):
            other = first.setdefault(file.with_name(stem_of(file.name)), file)
            if other != file and stem_of(file.name) != plain_name(file.name):
                names = " and ".join(str(each.relative_to(root)) for each in (other, file))
                raise UserError(
                    f"data_root: {names} are forms or versions of one file, of which datasets reads any; keep the one "
                    "that is meant"
                )


def found_instead(root: Path, sets: Sequence[DataSet]) -> str:
    """Say what `root` has where the first of these data sets that is not as it should be is looked for.

    Returns:
        `; data_root has 'CAIS/MMLU': rename it to cais/mmlu`, or "" where nothing helps.
    """
    for path, configuration in sets:
        folder = root / path
        if not folder.is_dir():
            return f"; {_elsewhere(root, path)}"
        deeper = [each for each in folder.rglob(configuration) if each.parent != folder] if configuration else []
        if configuration and deeper and not (folder / configuration).exists():
            return (
                f"; {deeper[0].relative_to(root)} is a folder too deep: move it, so that its files are in "
                f"{path}/{configuration}"
            )
    if len(sets) == 1:
        folder = root / sets[0][0]
        return f"; {sets[0][0]} is there: {contents(folder, visible_files(folder))}"
    return ""


def _elsewhere(root: Path, path: str) -> str:
    owner, _, name = path.rpartition("/")
    folders = [each for each in sorted(root.rglob("*")) if each.is_dir() and not is_residue(each.name)]
    alike = [each for each in folders if plain_name(each.name) in (plain_name(name), f"datasets--{owner}--{name}")]
    if alike:
        return f"data_root has {str(alike[0].relative_to(root))!r}: move or rename it to {path}"
    if plain_name(root.name) in (plain_name(name), plain_name(owner)):
        return f"data_root is itself named {root.name}: name the folder that has {path} in it"
    near = near_names(root / owner, name) if (root / owner).is_dir() else near_names(root, owner)
    return (
        f"data_root has no {path}{near}" if near else f"data_root has no {path}: {contents(root, visible_files(root))}"
    )
