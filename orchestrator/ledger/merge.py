"""Merging one ledger into another."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.store import Store
from orchestrator.ledger.blocks import Stored, block_folders, look, write_block


@dataclass(frozen=True)
class Merged:
    """What came of a merge."""

    copied: int
    """Blocks that were copied."""
    there: int
    """Blocks that both ledgers have; of two different ones the older stays."""
    damaged: list[str]
    """Blocks of the other ledger that were left out, a sentence each."""


def merge(into: Store, other: Store) -> Merged:
    """Copy every undamaged block of `other` that `into` lacks.

    Which of the two is merged into which makes no difference to the answers, nor does doing it twice.
    """
    mine, copied, there = set(block_folders(into)), 0, 0
    damaged: list[str] = []

    def age(block: Stored) -> tuple[float, str]:
        return block.marker.written, block.marker.sha256

    for theirs in other.together(lambda folder: look(other, folder), block_folders(other)):
        if not isinstance(theirs, Stored):
            damaged.append(str(theirs))
            continue
        own = look(into, theirs.folder) if theirs.folder in mine else None
        if isinstance(own, Stored) and age(own) <= age(theirs):
            there += 1
            continue
        write_block(into, theirs.folder, theirs.marker, theirs.data)
        copied += 1
    return Merged(copied, there, damaged)
