"""Merging one ledger into another."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.store import Store
from orchestrator.ledger.blocks import Stored, block_folders, look, write_block


@dataclass(frozen=True)
class MergeCounts:
    """The result of merging one ledger into another."""

    copied: int
    """Number of blocks that were copied."""
    there: int
    """Number of blocks that both ledgers have; where they differ, the older one is kept."""
    damaged: list[str]
    """A sentence for each damaged block of the other ledger; these were not copied."""


def merge(into: Store, other: Store) -> MergeCounts:
    """Copy every undamaged block of `other` that `into` lacks.

    The resulting answers are the same whichever of the two is merged into the other, and if it is done twice.
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
    return MergeCounts(copied, there, damaged)
