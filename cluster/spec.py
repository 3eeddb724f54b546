"""What a worker is given, and where it is."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.config.workers import Workers
from orchestrator.core.records import Serving
from orchestrator.recipes.recipe import Source


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs; it is sent through Ray, so that the nodes need no folder in common."""

    serving: Serving
    tokenizer_files: dict[str, bytes]
    """Name → content."""
    boot: Source
    """The parent that the engine starts with."""
    sources: dict[str, Source]
    """The sweep file's key → parent or candidate."""
    dtype: str
    """Of the merged weights."""
    workers: Workers
    models: int
    """How many checkpoints the sweep merges."""
    scratch: str
    """Folder for temporary files; each worker has one of its own below it."""
    keep: str | None
    """Folder to keep merged checkpoints in; None to write none."""
    drafts: bool = False
    """Whether texts are written with drafts."""


@dataclass(frozen=True)
class Place:
    """Where a worker is."""

    node: str
    """Ray's id of it."""
    name: str
    """`host:pid`, for messages."""
    pid: int
    oom_kills: int
    """Processes that Linux had killed for lack of memory on its machine, before it started."""
