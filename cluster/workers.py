"""The worker slots: as many as there is work and room for, on nodes that come and go.

What the workers do is decided by the pool (`cluster.pool`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray

from cluster.errors import EngineStartError, RemoteError
from cluster.nodes import RayNode, alive_nodes
from cluster.pipeline import Room, stage_need
from cluster.queue import ATTEMPTS
from cluster.slots import Placed, Slot, Waiting
from cluster.spec import Place, WorkerSpec
from cluster.worker import Worker

SAY = 60.0
"""Seconds between two lines about what the run waits for."""
GIVE_UP = 3600.0
"""Seconds without any node that has room for a worker, after which the run ends."""


class WorkerSlots:
    """The slots of a pool's workers, and the nodes that they are on.

    Args:
        limit: at most this many workers.
        log: gets a line for each event of workers and nodes.

    Raises:
        EngineStartError: no node has room for one worker.
    """

    def __init__(self, spec: WorkerSpec, limit: int, log: Callable[[str], None]) -> None:
        workers = spec.workers
        self.spec, self.limit, self.log = spec, min(limit, workers.count or limit), log
        self.need, self.stages = stage_need(workers), workers.engine.pipeline_parallel_size
        self.slots: list[Slot] = []
        self.calls: dict[Any, Slot] = {}
        """Calls under way: Ray's reference → the slot of the worker that was called."""
        self.nodes: dict[str, RayNode] = alive_nodes()
        self.leaving: set[str] = set()
        """Ids of nodes that are being drained, those that have gone since included."""
        self._abandoned: list[str] = []
        """For each slot where no engine starts, the node's id; empty where its worker was never placed on a node."""
        self._last_line = self._last_worker = time.monotonic()
        self._ended_s = 0.0
        """Seconds of the workers that have ended."""
        self._created = 0
        if self.limit and not self._places(self.nodes.values()):
            raise EngineStartError(self._no_room())

    def seconds(self) -> float:
        """Sum up the seconds that each worker has run so far, those that have ended included."""
        now = time.monotonic()
        return self._ended_s + sum(now - slot.state.placed_at for slot in self.slots if isinstance(slot.state, Placed))

    # ---------------------------------------------------------------- workers
    def fill(self) -> None:
        """Open as many slots as there is work, and room on nodes that stay."""
        places = self._places(node for node in self.nodes.values() if not node.draining)
        abandoned = sum(not node or node in self.nodes for node in self._abandoned)
        wanted = min(self.limit, places) - abandoned
        waiting = [slot for slot in self.slots if isinstance(slot.state, Waiting)]
        for slot in waiting[: max(0, len(self.slots) - wanted)]:
            self.remove(slot)
        while len(self.slots) < wanted:
            self.slots.append(Slot(self._created, Room(self.spec.workers)))
            self._created += 1
            self.start(self.slots[-1])

    def start(self, slot: Slot) -> None:
        """Start a worker in an empty slot."""
        slot.actor = ray.remote(Worker).options(**slot.room.options).remote(self.spec, slot.index)
        slot.state = Waiting()
        self.calls |= {slot.actor.where.remote(): slot, slot.actor.start.remote(): slot}

    def end(self, slot: Slot) -> None:
        """Kill a slot's worker, whatever it does; its calls are forgotten."""
        ray.kill(slot.actor)
        if isinstance(slot.state, Placed):
            self._ended_s += time.monotonic() - slot.state.placed_at
        slot.state = Waiting()
        self.calls = {ref: other for ref, other in self.calls.items() if other is not slot}

    def remove(self, slot: Slot) -> None:
        """Kill a slot's worker, and close the slot."""
        self.end(slot)
        self._close(slot)

    def _close(self, slot: Slot) -> None:
        slot.room.close()
        self.slots.remove(slot)

    def start_failed(self, slot: Slot, place: Place | None, error: RemoteError) -> None:
        """Start another worker in the slot, a limited number of times; a node that is gone does not count.

        Args:
            slot: the slot, whose worker has been ended.
            error: where it is final, no other worker is started.

        Raises:
            EngineStartError: it was the last slot.
        """
        slot.failed_starts += place is None or self.stays(place)
        if slot.failed_starts < ATTEMPTS and not error.is_final:
            self.start(slot)
            return
        attempts = "" if error.is_final else f" in {ATTEMPTS} attempts; the last error"
        why = f"no engine started{attempts}: {error}"
        # The others continue without it: there may be room for fewer engines than there are slots.
        self._close(slot)
        self._abandoned.append(place.node if place else "")
        if not self.slots:
            raise EngineStartError(why, error.detail)
        self.log(f"a worker slot is given up: {why}")

    # ---------------------------------------------------------------- nodes
    def _places(self, nodes: Iterable[RayNode]) -> int:
        """Number of engines that there is room for; one stage of an engine must fit on one node."""
        return sum(node.room(self.need) for node in nodes) // self.stages

    def stays(self, place: Place) -> bool:
        """Whether the node is alive and not being drained."""
        return place.node in self.nodes and place.node not in self.leaving

    def refresh(self) -> None:
        """Read from Ray which nodes there are now."""
        before, self.nodes = self.nodes, alive_nodes()
        for node in before.keys() - self.nodes:
            self.log(f"node {before[node].name} ({node[:8]}) is gone")
        for node in self.nodes.keys() - before:
            self.log(f"node {self.nodes[node].name} ({node[:8]}) joined")
        for node in [n for n in self.nodes if self.nodes[n].draining and n not in self.leaving]:
            self.log(f"node {self.nodes[node].name} ({node[:8]}) is being drained: it gets no new blocks")
            self.leaving.add(node)

    def adjust(self) -> None:
        """Start workers on new nodes, remove idle ones from nodes that are drained, and log what the run waits for.

        Raises:
            EngineStartError: no node had room for a worker for an hour.
        """
        for slot in [slot for slot in self.slots if slot.node in self.leaving and slot.block is None]:
            self.remove(slot)
        self.fill()
        now = time.monotonic()
        self._last_worker = now if self.slots or not self.limit else self._last_worker
        if now - self._last_worker > GIVE_UP:
            raise EngineStartError(f"for {GIVE_UP / 60:.0f} minutes no worker had room: {self._no_room()}")
        for line in self._waited_for(now) if now - self._last_line > SAY else ():
            self._last_line = now
            self.log(line)

    def _waited_for(self, now: float) -> Iterator[str]:
        if not self.slots and self.limit:
            yield f"waiting for a node: {self._no_room()}"
        waiting = sum(isinstance(slot.state, Waiting) and now - slot.state.since > SAY for slot in self.slots)
        if waiting:
            yield f"{waiting} workers wait for room: other jobs use what they need ({self._needed()} each)"

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
