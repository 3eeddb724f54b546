"""What a worker is given, and where it is."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.config.workers import Workers
from orchestrator.core.records import Serving
from orchestrator.recipes.recipe import Source


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs to know; it is sent through Ray, so that the nodes need no folder in common."""

    serving: Serving
    tokenizer_files: dict[str, bytes]
    boot: Source
    sources: dict[str, Source]
    """The sweep file's key → parent or candidate."""
    dtype: str
    workers: Workers
    models: int
    """How many checkpoints the sweep merges."""
    scratch: str
    keep: str | None


@dataclass(frozen=True)
class Place:
    """Where a worker is."""

    node: str
    """Ray's id of it."""
    name: str
    """Host and process id, for people."""
    pid: int
    oom_kills: int
    """On its machine, before it began."""
