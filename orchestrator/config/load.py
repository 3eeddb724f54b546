"""Reading sweep files and published figures: checked, with absolute paths, and one sentence about what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.config.complaint import explain
from orchestrator.config.finetune import Finetune
from orchestrator.config.generation import PAPER_SEQUENCES, Generation, OwnTask
from orchestrator.config.mergekit_form import from_mergekit
from orchestrator.config.models import Parent
from orchestrator.config.published import Published
from orchestrator.config.safe_yaml import read_yaml
from orchestrator.config.settings import KeyProblem
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.locations import is_remote

Model = TypeVar("Model", bound=BaseModel)
LONGEST = 1000
"""Maximum length of a message in characters: it shows the wrong value, which may be megabytes."""


def load_config(path: Path) -> SweepConfig:
    """Read, check and resolve a sweep file; relative folders become absolute.

    Raises:
        UserError: the file is missing or not YAML, or a key is unknown, missing, of a wrong type or out of range.
    """
    data = read_yaml(path, "a sweep has parents, recipes and objectives")
    folder = path.resolve().parent
    try:
        data = from_mergekit(data, folder)
    except KeyProblem as error:
        raise UserError(f"{path}: {str(error)[:LONGEST]}") from None
    return _absolute(_checked(path, SweepConfig, data), folder)


def load_published(path: Path) -> Published:
    """Read the published figures that `report --beside` compares a run with.

    Raises:
        UserError: as `load_config`.
    """
    return _checked(path, Published, read_yaml(path, "published figures have source and rows"))


def _checked(path: Path, model: type[Model], data: dict[Any, Any]) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, model, data)[:LONGEST]}") from None


def _path(folder: Path, value: str) -> Path:
    try:
        return (folder / Path(value).expanduser()).resolve()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{value!r} is not a path ({error}); correct it") from None


def _absolute(config: SweepConfig, folder: Path) -> SweepConfig:
    def local(value: str | None) -> str | None:
        """Make a folder absolute; a hub id or an address (no such folder exists) stays as it is."""
        if value is None or is_remote(value):
            return value
        path = _path(folder, value)
        return str(path) if path.exists() or value.startswith((".", "/", "~")) else value

    def place(value: str | None) -> str | None:
        return value if value is None or is_remote(value) else str(_path(folder, value))

    def parent(item: Parent) -> Parent:
        return item.model_copy(update={"model": local(item.model), "lora": local(item.lora)})

    def own_task(item: OwnTask) -> OwnTask:
        files = {key: str(_path(folder, file)) for key in ("file", "train") if (file := getattr(item, key))}
        return item.model_copy(update=files)

    def finetune(item: Finetune) -> Finetune:
        base = item.baseline and item.baseline.model_copy(update={"file": str(_path(folder, item.baseline.file))})
        icft = item.icft and item.icft.model_copy(update={"general": str(_path(folder, item.icft.general))})
        return item.model_copy(update={"baseline": base, "icft": icft})

    def generation(item: Generation) -> Generation:
        encoder = item.encoder and item.encoder.model_copy(update={"model": local(item.encoder.model)})
        data = {task: str(_path(folder, place)) for task, place in item.data.items()}
        own = {name: own_task(task) for name, task in item.own.items()}
        return item.model_copy(update={"data": data, "own": own, "encoder": encoder})

    workers, engine = config.workers, config.workers.engine
    if config.generation and "max_num_seqs" not in engine.model_fields_set:
        workers = workers.model_copy(update={"engine": engine.model_copy(update={"max_num_seqs": PAPER_SEQUENCES})})
    update: dict[str, Any] = {
        "workers": workers,
        "generation": config.generation and generation(config.generation),
        "finetune": config.finetune and finetune(config.finetune),
        "parents": {name: parent(item) for name, item in config.parents.items()},
        "candidates": {name: parent(item) for name, item in config.candidates.items()},
        "include_path": [str(_path(folder, item)) for item in config.include_path],
        "ledger": place(config.ledger),
        "data_root": str(_path(folder, config.data_root)) if config.data_root else None,
    }
    for key, items in (("include_path", update["include_path"]), ("data_root", [update["data_root"]])):
        for item in items:
            if item is not None and not Path(item).is_dir():
                raise UserError(f"{key}: the folder {item} does not exist; correct the path or create it")
    if pattern := next((mark for mark in "*?[" if mark in (update["data_root"] or "")), None):
        raise UserError(
            f"data_root: datasets takes {pattern!r} in {update['data_root']} for a pattern; rename the folder"
        )
    return config.model_copy(update=update)
