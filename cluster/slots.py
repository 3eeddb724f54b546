"""A slot for a worker, and the states it goes through: Waiting → Starting → Idle ⇄ Busy.

Each state has the fields that make sense in it, and the methods that lead out of it. A worker that ends, for whatever
reason, is replaced in its slot, which is Waiting again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from cluster.pipeline import Room
from cluster.spec import Place
from orchestrator.core.records import Block


@dataclass(frozen=True)
class Waiting:
    """Ray has not started the worker's process yet: it looks for room."""

    since: float = field(default_factory=time.monotonic)

    def placed(self, place: Place) -> Starting:
        """Return the next state: the process runs, its engine starts."""
        return Starting(place)


@dataclass(frozen=True)
class Placed:
    """What all states of a running process have in common."""

    place: Place
    placed_at: float = field(default_factory=time.monotonic, kw_only=True)
    """When its process was first seen running; seconds of `time.monotonic`, as all times here."""
    since: float = field(default_factory=time.monotonic, kw_only=True)
    """When this state began."""


@dataclass(frozen=True)
class Starting(Placed):
    """Its engine starts."""

    def ready(self) -> Idle:
        """Return the next state: the engine has started, and has no recipe's weights yet."""
        return Idle(self.place, None, placed_at=self.placed_at)


@dataclass(frozen=True)
class Idle(Placed):
    """It can take a block."""

    recipe_id: str | None
    """The recipe whose weights are loaded; None before the first block."""

    def busy(self, block: Block) -> Busy:
        """Return the next state: it has got a block."""
        return Busy(self.place, block, placed_at=self.placed_at)


@dataclass(frozen=True)
class Busy(Placed):
    """It evaluates a block."""

    block: Block

    def done(self) -> Idle:
        """Return the next state: the block is done, its recipe's weights stay loaded."""
        return Idle(self.place, self.block.recipe_id, placed_at=self.placed_at)


@dataclass(eq=False)
class Slot:
    """One slot for a worker: its room in the cluster, its present actor, and what that does."""

    index: int
    room: Room
    actor: Any = None
    state: Waiting | Starting | Idle | Busy = field(default_factory=Waiting)
    failed_starts: int = 0

    @property
    def place(self) -> Place | None:
        """Where its worker is; None while it waits for room."""
        return None if isinstance(self.state, Waiting) else self.state.place

    @property
    def node(self) -> str:
        """Ray's id of its worker's node; empty while it waits for room."""
        return self.place.node if self.place else ""

    @property
    def block(self) -> Block | None:
        """The block that its worker evaluates now."""
        return self.state.block if isinstance(self.state, Busy) else None

    @property
    def has_engine(self) -> bool:
        """Whether its engine has started."""
        return isinstance(self.state, Idle | Busy)
