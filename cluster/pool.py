"""The pool: Ray actors that hold an engine each, and the queue of blocks that streams to whoever is free.

There is no barrier. A free worker goes on with the recipe that it holds, else takes one that nobody works on, else
helps with the recipe that has most left. A worker that dies is replaced and its block asked again; a block that
was on three workers when they died makes its recipe fail.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from cluster.stages import Place, stage_need
from cluster.worker import Worker, WorkerSpec
from orchestrator.config import UserError
from orchestrator.recipe import Recipe
from orchestrator.records import Asked, Block, Failure

ATTEMPTS = 3


class EngineStartError(UserError):
    """No worker could start its engine; nothing was asked. `detail` is the whole story, for a file."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


@dataclass
class Slot:
    """One place for a worker: its current actor, and what that does."""

    index: int
    place: Place
    actor: Any = None
    holds: str | None = None
    block: Block | None = None
    failed_starts: int = 0


class Pool:
    """
    Args:
        spec: what each worker is told.
        limit: at most this many workers, if there is less work than places.
    """

    def __init__(self, spec: WorkerSpec, limit: int) -> None:
        self.spec = spec
        room = self._room() if limit else 0
        count = min(limit, spec.workers.count or limit, room)
        self.slots = [Slot(index, Place(spec.workers)) for index in range(count)]
        self.pids: dict[int, int] = {}
        self._refs: dict[Any, Slot] = {}
        self._queue: dict[str, deque[Block]] = {}
        self._deaths: Counter[str] = Counter()
        self._lost: set[str] = set()
        """Recipes that have failed; blocks of theirs that were under way elsewhere are not asked again."""

    def __enter__(self) -> Pool:
        for slot in self.slots:
            self._start(slot)
        return self

    def __exit__(self, *_: object) -> None:
        for slot in self.slots:
            ray.kill(slot.actor)
            slot.place.close()

    def add(self, blocks: Sequence[Block]) -> None:
        """Put blocks at the end of the queue, while it runs too."""
        for block in blocks:
            self._queue.setdefault(block.recipe_id, deque()).append(block)

    def run(
        self,
        recipes: Mapping[str, Recipe],
        blocks: Sequence[Block],
        stop: Callable[[], bool] = lambda: False,
        more: Callable[[], bool] = lambda: False,
        tick: float = 1.0,
    ) -> Iterator[Asked | Failure | None]:
        """Ask all blocks; yields each as it is done, and None after `tick` seconds in which nothing is.

        Args:
            stop: once true, no further block is handed out, and those under way are waited for.
            more: while true, an empty queue is not the end: blocks will be added.
        """
        self.add(blocks)
        while self._queue or any(slot.block for slot in self.slots) or more():
            if not stop():
                self._hand_out(recipes)
            elif not any(slot.block for slot in self.slots):
                return
            ready: list[Any] = []
            if self._refs:
                ready, _ = ray.wait(list(self._refs), timeout=tick)
            else:
                time.sleep(tick)
            if not ready:
                yield None
            for ref in ready:
                result = self._collect(ref, self._refs.pop(ref))
                if isinstance(result, Failure):
                    if result.recipe_id in self._lost:
                        continue
                    self._lost.add(result.recipe_id)
                    self._queue.pop(result.recipe_id, None)
                if result is not None:
                    yield result

    # ---------------------------------------------------------------- workers
    def _room(self) -> int:
        """How many workers the living nodes have room for; one stage of a worker must fit on one node."""
        need, stages = stage_need(self.spec.workers), self.spec.workers.engine.pipeline_parallel_size
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(min(int(node.get(key, 0) // amount) for key, amount in need.items()) for node in nodes) // stages
        if room < 1:
            have = "; ".join(", ".join(f"{node.get(key, 0):g} {key}" for key in need) for node in nodes)
            asked = ", ".join(f"{amount:g} {key}" for key, amount in need.items())
            raise EngineStartError(
                f"a worker needs {f'{stages} x ' if stages > 1 else ''}{asked} on one node, but the cluster's nodes "
                f"have {have}; change workers.cpus, workers.gpus, workers.accelerator_type or workers.engine"
            )
        return room

    def _start(self, slot: Slot) -> None:
        slot.actor = ray.remote(Worker).options(**slot.place.options).remote(self.spec, slot.index)
        slot.holds, slot.block = None, None
        self._refs[slot.actor.start.remote()] = slot

    def _collect(self, ref: Any, slot: Slot) -> Asked | Failure | None:
        """What came of one call: a result to hand on, or None when there is nothing to tell."""
        block = slot.block
        try:
            result = ray.get(ref, timeout=60)
        except RayError as error:
            return self._died(slot, reason(error), str(error))
        if block is None:
            self.pids[slot.index] = result
            slot.failed_starts, slot.holds = 0, ""
            return None
        slot.block = None
        if isinstance(result, Failure) and result.status == "failed":
            # An engine that raised may be broken for good (CUDA errors are), and would fail every recipe from now on.
            return self._died(slot, result.message, result.detail)
        slot.holds = block.recipe_id
        assert isinstance(result, Asked | Failure)
        return result

    def _died(self, slot: Slot, message: str, detail: str) -> Failure | None:
        """Replace a worker that broke, and ask its block again, both a limited number of times."""
        block = slot.block
        ray.kill(slot.actor)
        if block is None:
            self._start_failed(slot, message, detail)
            return None
        self._start(slot)
        key = block.id + block.recipe_id
        self._deaths[key] += 1
        if self._deaths[key] < ATTEMPTS:
            if block.recipe_id not in self._lost:
                self._queue.setdefault(block.recipe_id, deque()).appendleft(block)
            return None
        told = f"block {block.id} was on {ATTEMPTS} workers that broke; the last said: {message}"
        return Failure(block.recipe_id, "failed", "worker", told, detail)

    def _start_failed(self, slot: Slot, message: str, detail: str) -> None:
        slot.failed_starts += 1
        if slot.failed_starts < ATTEMPTS:
            self._start(slot)
            return
        # The others go on without it: there may be room for fewer engines than there are places.
        slot.place.close()
        self.slots.remove(slot)
        if not self.slots:
            raise EngineStartError(f"no engine started in {ATTEMPTS} attempts; the last said: {message}", detail)

    # ---------------------------------------------------------------- the queue
    def _hand_out(self, recipes: Mapping[str, Recipe]) -> None:
        for slot in self.slots:
            if slot.holds is None or slot.block is not None:
                continue
            block = self._next(slot)
            if block is None:
                return
            slot.block = block
            self._refs[slot.actor.ask.remote(recipes[block.recipe_id], block)] = slot

    def _next(self, slot: Slot) -> Block | None:
        if not self._queue:
            return None
        busy = {other.block.recipe_id for other in self.slots if other.block}
        idle = [recipe_id for recipe_id in self._queue if recipe_id not in busy]
        if slot.holds in self._queue:
            chosen = str(slot.holds)
        elif idle:
            chosen = idle[0]
        else:
            chosen = max(self._queue, key=lambda recipe_id: len(self._queue[recipe_id]))
        block = self._queue[chosen].popleft()
        if not self._queue[chosen]:
            del self._queue[chosen]
        return block


def reason(error: RayError) -> str:
    """The line that tells a person what went wrong."""
    cause = error.cause if isinstance(error, RayTaskError) and error.cause is not None else error
    return f"{type(cause).__name__}: {cause}".splitlines()[0][:500]
