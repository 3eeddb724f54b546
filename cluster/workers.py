"""The crew: as many workers as there is work and room for, on nodes that come and go. What they are asked is the pool's
business (`cluster.pool`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from cluster.nodes import Node, alive_nodes
from cluster.pipeline import Room, stage_need
from cluster.queue import ATTEMPTS
from cluster.spec import Place, WorkerSpec
from cluster.worker import Worker
from orchestrator.core.errors import UserError
from orchestrator.core.records import Block

SAY = 60.0
"""Seconds between two lines about what is waited for."""
GIVE_UP = 3600.0
"""Seconds without any node that has room for a worker, after which the run ends."""


class EngineStartError(UserError):
    """There are no workers, and there will be none. `detail` is the whole story, for a file."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


@dataclass(eq=False)
class Slot:
    """One place for a worker: its current actor, and what that does."""

    index: int
    room: Room
    actor: Any = None
    place: Place | None = None
    """None while Ray looks for room."""
    holds: str | None = None
    """The recipe in its engine; None until there is an engine."""
    block: Block | None = None
    since: float = 0.0
    """When it began with what it does now; `time.monotonic`."""
    placed: float = 0.0
    failed_starts: int = 0

    @property
    def node(self) -> str:
        return self.place.node if self.place else ""


class Crew:
    """
    Args:
        limit: at most this many workers.
        tell: hears what happens to workers and nodes, a line each.

    Raises:
        EngineStartError: no node has room for one worker.
    """

    def __init__(self, spec: WorkerSpec, limit: int, tell: Callable[[str], None]) -> None:
        workers = spec.workers
        self.spec, self.limit, self.tell = spec, min(limit, workers.count or limit), tell
        self.need, self.stages = stage_need(workers), workers.engine.pipeline_parallel_size
        self.slots: list[Slot] = []
        self.calls: dict[Any, Slot] = {}
        """What is under way: Ray's reference → whose it is."""
        self.nodes: dict[str, Node] = alive_nodes()
        self.leaving: set[str] = set()
        """Nodes that were told to go, those that are gone included."""
        self._given_up: list[str] = []
        """A node's id for each place where no engine starts; empty where it never got to a node."""
        self._said = self._manned = time.monotonic()
        self._held = 0.0
        self._made = 0
        if self.limit and not self._places(self.nodes.values()):
            raise EngineStartError(self._no_room())

    def held_s(self) -> float:
        """Seconds that workers have been held so far, of all together."""
        now = time.monotonic()
        return self._held + sum(now - slot.placed for slot in self.slots if slot.place)

    # ---------------------------------------------------------------- workers
    def fill(self) -> None:
        """As many workers as there is work, and room on nodes that stay."""
        places = self._places(node for node in self.nodes.values() if not node.draining)
        given_up = sum(not node or node in self.nodes for node in self._given_up)
        wanted = min(self.limit, places) - given_up
        unplaced = [slot for slot in self.slots if slot.place is None]
        for slot in unplaced[: max(0, len(self.slots) - wanted)]:
            self.remove(slot)
        while len(self.slots) < wanted:
            self.slots.append(Slot(self._made, Room(self.spec.workers)))
            self._made += 1
            self.start(self.slots[-1])

    def start(self, slot: Slot) -> None:
        slot.actor = ray.remote(Worker).options(**slot.room.options).remote(self.spec, slot.index)
        slot.since = time.monotonic()
        self.calls |= {slot.actor.where.remote(): slot, slot.actor.start.remote(): slot}

    def dismiss(self, slot: Slot) -> None:
        """End its worker, whatever that does; nothing more is heard of it."""
        ray.kill(slot.actor)
        if slot.place:
            self._held += time.monotonic() - slot.placed
        slot.place = slot.holds = slot.block = None
        self.calls = {ref: other for ref, other in self.calls.items() if other is not slot}

    def remove(self, slot: Slot) -> None:
        self.dismiss(slot)
        self._close(slot)

    def _close(self, slot: Slot) -> None:
        slot.room.close()
        self.slots.remove(slot)

    def start_failed(self, slot: Slot, place: Place | None, message: str, detail: str) -> None:
        """Try again, a limited number of times; a node that is gone does not count.

        Args:
            slot: dismissed already.

        Raises:
            EngineStartError: it was the last one.
        """
        slot.failed_starts += place is None or self.stays(place)
        if slot.failed_starts < ATTEMPTS:
            self.start(slot)
            return
        # The others go on without it: there may be room for fewer engines than there are places.
        self._close(slot)
        self._given_up.append(place.node if place else "")
        if not self.slots:
            raise EngineStartError(f"no engine started in {ATTEMPTS} attempts; the last said: {message}", detail)
        self.tell(f"a place where no engine started in {ATTEMPTS} attempts is given up; the last said: {message}")

    # ---------------------------------------------------------------- nodes
    def _places(self, nodes: Iterable[Node]) -> int:
        """For how many engines there is room; one stage of an engine must fit on one node."""
        return sum(node.room(self.need) for node in nodes) // self.stages

    def stays(self, place: Place) -> bool:
        """Whether the node is alive and meant to stay."""
        return place.node in self.nodes and place.node not in self.leaving

    def look(self) -> None:
        """See which nodes there are now."""
        before, self.nodes = self.nodes, alive_nodes()
        for node in before.keys() - self.nodes:
            self.tell(f"node {before[node].name} ({node[:8]}) is gone")
        for node in self.nodes.keys() - before:
            self.tell(f"node {self.nodes[node].name} ({node[:8]}) joined")
        for node in [n for n in self.nodes if self.nodes[n].draining and n not in self.leaving]:
            self.tell(f"node {self.nodes[node].name} ({node[:8]}) is about to go: it gets no new blocks")
            self.leaving.add(node)

    def follow(self) -> None:
        """Workers on new nodes, none on those that are about to go; a word about what is waited for.

        Raises:
            EngineStartError: no node had room for a worker for an hour.
        """
        for slot in [slot for slot in self.slots if slot.node in self.leaving and slot.block is None]:
            self.remove(slot)
        self.fill()
        now = time.monotonic()
        self._manned = now if self.slots or not self.limit else self._manned
        if now - self._manned > GIVE_UP:
            raise EngineStartError(f"for {GIVE_UP / 60:.0f} minutes no worker had room: {self._no_room()}")
        for line in self._waiting(now) if now - self._said > SAY else ():
            self._said = now
            self.tell(line)

    def _waiting(self, now: float) -> Iterator[str]:
        if not self.slots and self.limit:
            yield f"waiting for a node: {self._no_room()}"
        waiting = sum(slot.place is None and now - slot.since > SAY for slot in self.slots)
        if waiting:
            yield f"{waiting} workers wait for room: others hold what they need ({self._needed()} each)"

    def _no_room(self) -> str:
        nodes = [node.resources for node in self.nodes.values()]
        have = "; ".join(", ".join(f"{node.get(key, 0):g} {key}" for key in self.need) for node in nodes)
        return (
            f"a worker needs {self._needed()} on one node, but the cluster's nodes have {have}; change workers.cpus, "
            "workers.gpus, workers.accelerator_type or workers.engine"
        )

    def _needed(self) -> str:
        each = ", ".join(f"{amount:g} {key}" for key, amount in self.need.items())
        return f"{self.stages} x {each}" if self.stages > 1 else each
