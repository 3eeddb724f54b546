"""Fetching models to this node: folders as they are, hub models in the hub's cache, object storage in our own cache.

Every worker fetches every parent before its engine starts (`bring`), but a node downloads and hashes each once: the
second worker waits for a lock and finds the files. Each file on a node must equal the one that the driver resolved.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private, write_atomic, write_json
from orchestrator.core.locations import is_remote
from orchestrator.core.store import Entry, Store
from orchestrator.core.text import gigabytes, one_line
from orchestrator.recipes.recipe import Source

DESCRIBING = ("*.json", "*.jinja", "tokenizer.model", "README.md")
WEIGHTS = "*.safetensors"
LORA = "lora/"
"""Prefix of the names of an adapter's files in `Source.files`."""
SMALL_BYTES = 1 << 20
"""Size in bytes up to which a file's hash is not cached."""


def cache() -> Path:
    """Return the cache that this user's runs on this node share; it may be deleted while none of them runs."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mergefront"


def fetch(where: str, model: str, revision: str | None, weights: bool) -> tuple[Path, str | None]:
    """Fetch a model to this machine, and return its folder and, for a hub model, its commit.

    Args:
        where: the sweep file's key, for messages.
        model: hub id, folder or address of object storage.
        weights: False fetches only the small files, such as config and tokenizer, of what is not on this machine.

    Raises:
        UserError: there is no such folder, or the hub or the object storage does not provide it.
    """
    kind = "an address" if is_remote(model) else "a folder" if _is_folder(model) else ""
    if kind and revision is not None:
        raise UserError(f"{where}: {model} is {kind}, and revision {revision!r} is for hub ids; remove it")
    if is_remote(model):
        return _copy(where, model, [*DESCRIBING, *([WEIGHTS] if weights else [])]), None
    if not kind:
        return _from_hub(where, model, revision, weights)
    folder = Path(model)
    if not folder.is_dir():
        raise UserError(f"{where}: the folder {model} does not exist; correct the path, or give a hub id")
    return folder, None


def _is_folder(model: str) -> bool:
    return model.startswith(("/", ".", "~")) or Path(model).is_dir()


def _from_hub(where: str, model: str, revision: str | None, weights: bool) -> tuple[Path, str]:
    """Download from the hub, whose client locks and checks by itself; returns the folder and the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = [*DESCRIBING, *([WEIGHTS] if weights else [])]
    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (HFValidationError, OSError, ValueError) as error:
        raise UserError(
            f"{where}: {model!r} is no folder here, and the hub does not give it ({one_line(error)}); correct the "
            "path or the id, log in with `hf auth login` if it is gated, or download it first"
        ) from None
    return folder, folder.name


# -------------------------------------------------------------------- object storage
def _copy(where: str, address: str, patterns: list[str]) -> Path:
    """Copy the files of a model that match from object storage, once per node and state of its files.

    The folder is renamed to its final name when it is complete.
    """
    store = Store(address, where)
    entries = [entry for entry in store.list() if _is_wanted(entry.name, patterns)]
    if not entries:
        raise UserError(f"{where}: {address} has no file of a model; give the folder that has its config.json")
    state = [address, *sorted((entry.name, entry.size, entry.written) for entry in entries)]
    name = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:20]
    try:
        home = make_private(cache() / "models")
        folder, came = home / name, home / f"{name}.json"
        with FileLock(home / f"{name}.lock"):
            if not folder.exists():
                _check_room(where, home, sum(entry.size for entry in entries))
                write_json(came, _copy_files(where, store, entries, home / f".{name}.partial"))
                (home / f".{name}.partial").rename(folder)
    except OSError as error:
        raise UserError(
            f"{where}: {address} cannot be copied to {cache()} ({error.strerror}); free it, or set XDG_CACHE_HOME to a "
            "folder with room for the parents"
        ) from None
    hashes = json.loads(came.read_text(encoding="utf-8"))
    _compare(where, {folder / file: digest for file, digest in hashes.items()}, f"delete {folder} to fetch it again")
    return folder


def _is_wanted(name: str, patterns: list[str]) -> bool:
    return "/" not in name and any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _check_room(where: str, home: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(home).free
    if needed_bytes > free_bytes:
        raise UserError(
            f"{where}: needs {gigabytes(needed_bytes)} in {home}, but {gigabytes(free_bytes)} are free; free some, or "
            "set XDG_CACHE_HOME to a folder with more room"
        )


def _copy_files(where: str, store: Store, entries: list[Entry], folder: Path) -> dict[str, str]:
    """Copy files into a new folder, and return name → SHA-256."""
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed
    make_private(folder)

    def copy(entry: Entry) -> tuple[str, str]:
        digest = store.copy(entry.name, folder / entry.name)
        came = (folder / entry.name).stat().st_size
        if came != entry.size:
            raise UserError(
                f"{where}: {store.location}: {entry.name} has {entry.size} bytes there, but {came} arrived: it "
                "was changed during the copy, or the connection broke; run the same command again"
            )
        return entry.name, digest

    return dict(store.together(copy, entries))


# -------------------------------------------------------------------- what the driver resolved
def bring(sources: Mapping[str, Source]) -> None:
    """Fetch models to this node, and compare every file with what the driver resolved.

    Args:
        sources: the sweep file's key (such as parents.clinical) → the model.

    Raises:
        UserError: a model cannot be fetched here, or a file differs from the driver's.
    """
    for where, source in sources.items():
        folder, _ = fetch(f"{where}.model", source.model, source.revision, True)
        lora = fetch(f"{where}.lora", source.lora, None, True)[0] if source.lora else folder
        expected = {
            lora / name.removeprefix(LORA) if name.startswith(LORA) else folder / name: digest
            for name, digest in source.files
        }
        _compare(where, expected, "delete it there and fetch it again, or repair the copy")


def _compare(where: str, expected: Mapping[Path, str], way: str) -> None:
    for file, digest in expected.items():
        found = content_hash(file) if file.exists() else "nothing"
        if found != digest:
            raise UserError(
                f"{where}: {file}: expected SHA-256 {digest}, found {found}: it is damaged, cut off, or not the file "
                f"that was there before; {way}"
            )


def content_hash(path: Path) -> str:
    """Compute the SHA-256 of a file's content, in hexadecimal.

    That of a large file is cached by path, size and modification time, and computed by one process at a time.
    """
    stat = path.stat()
    if stat.st_size > SMALL_BYTES:
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        note = cache() / "digests" / hashlib.sha256(key.encode()).hexdigest()
        with contextlib.suppress(OSError):  # a home that cannot be written costs time, not correctness
            note.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{note}.lock"):
                if not note.exists():
                    write_atomic(note, _hash(path))
                return note.read_text()
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
