"""Garbage collection: files in a results folder and its ledger that nothing refers to any more."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.store import Entry, Store
from orchestrator.ledger.blocks import SUCCESS, Stored, look
from orchestrator.results.layout import ID, Layout
from orchestrator.results.manifest import Manifest, ledger_location, read_manifest
from orchestrator.results.status import recipe_ids

GRACE_S = 3600.0
"""Younger files of a ledger are left alone: a writer may be about to write the marker that names them."""


@dataclass(frozen=True)
class Garbage:
    """A file or folder that can be deleted."""

    what: str
    """Its kind, in words."""
    name: str
    """A path, or the name of a file in the ledger."""
    size: int
    """Bytes."""
    in_ledger: bool


def find_garbage(layout: Layout) -> list[Garbage]:
    """List what nothing refers to any more, in a results folder and in its ledger; nothing is deleted.

    Raises:
        UserError: the folder has no sweep, or its ledger cannot be read.
    """
    manifest = read_manifest(layout)
    store = Store(ledger_location(manifest.config, layout))
    return [*_ledger_garbage(store), *_folder_garbage(layout, manifest)]


def collect(layout: Layout, garbage: Iterable[Garbage]) -> None:
    """Delete what `find_garbage` found; the caller has the folder's lock."""
    store = Store(ledger_location(read_manifest(layout).config, layout))
    # Markers first: an interruption leaves orphaned files, never a marker without its file.
    for each in sorted(garbage, key=lambda each: not each.name.endswith(f"/{SUCCESS}")):
        if each.in_ledger:
            store.delete(each.name)
        elif Path(each.name).is_dir():
            shutil.rmtree(each.name)
        else:
            Path(each.name).unlink(missing_ok=True)


def _ledger_garbage(store: Store) -> Iterator[Garbage]:
    blocks: dict[str, list[Entry]] = {}
    for entry in store.list():
        folder, _, name = entry.name.rpartition("/")
        if folder.count("/") == 1 and (name == SUCCESS or name.startswith("answers-") or name.endswith(".tmp")):
            blocks.setdefault(folder, []).append(entry)
    found = store.together(lambda item: list(_block_garbage(store, *item)), sorted(blocks.items()))
    yield from (each for part in found for each in part)


def _block_garbage(store: Store, folder: str, entries: Sequence[Entry]) -> Iterator[Garbage]:
    names = {entry.name for entry in entries}
    kept, what = set[str](), "of blocks that were never finished"
    if f"{folder}/{SUCCESS}" in names:
        block = look(store, folder)
        what = "of damaged blocks"
        if isinstance(block, Stored):
            kept, what = {f"{folder}/{SUCCESS}", f"{folder}/{block.marker.file}"}, "superseded or left over"
    for entry in entries:
        if entry.name not in kept and entry.written < time.time() - GRACE_S:
            yield Garbage(f"ledger: {what}", entry.name, entry.size, True)


def _folder_garbage(layout: Layout, manifest: Manifest) -> Iterator[Garbage]:
    known, runs = recipe_ids(layout, manifest), list(layout.runs())
    leftovers = [
        *((path, "half-written files") for path in layout.root.glob("**/.*.tmp")
          if not path.is_relative_to(layout.answers)),
        *((path, "scratch of engines") for path in (layout.scratch, layout.ray)),
        *((run.checkpoints, "checkpoints of finished training") for run in runs if run.is_finished),
        *((run.saving, "half-written tuned weights") for run in runs),
        *((path, "checkpoints of recipes that the sweep no longer has") for path in layout.checkpoints.glob(ID)
          if path.name not in known),
    ]  # fmt: skip
    for path, what in leftovers:
        if path.exists():
            files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
            yield Garbage(what, str(path), sum(file.lstat().st_size for file in files), False)


def summarise(garbage: Sequence[Garbage]) -> str:
    """Describe garbage in lines for a terminal: number, bytes and kind, and the sum."""
    kinds: dict[str, list[int]] = {}
    for each in garbage:
        kinds.setdefault(each.what, []).append(each.size)
    rows = [*kinds.items(), ("in all", [each.size for each in garbage])]
    return "\n".join(f"{len(sizes):8} {sum(sizes):15,} bytes  {what}" for what, sizes in rows)
