"""The pool: blocks from the queue to the crew, answers back. Who is asked next is decided in `cluster.queue`, who there
is to be asked in `cluster.workers`.

There is no barrier. Workers, nodes and calls may end at any time, with a word or without one:

- A worker that dies, raises or does not answer (`cluster.timeouts`) is replaced, and its block asked again elsewhere. A
  block that broke three workers is set aside: its recipe fails, with the evidence.
- A block that did not fit into memory is asked again in halves, before it counts.
- A node that joins gets workers; one that is about to go gets no more blocks, and what goes with it is nobody's fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from cluster.nodes import kill_on, oom_kills_on
from cluster.queue import Break, Queue
from cluster.spec import Place, WorkerSpec
from cluster.timeouts import Patience
from cluster.worker import FULL, TooLarge
from cluster.workers import Crew, Slot
from orchestrator.core.progress import say
from orchestrator.core.records import Asked, Block, Failure
from orchestrator.recipes.recipe import Recipe

LOOK = 1.0
"""Seconds between two looks at the nodes, and at who has not answered."""


class Pool:
    """
    Args:
        spec: what each worker is told.
        limit: at most this many workers, if there is less work than places.
        tell: hears what happens to workers and nodes, a line each.

    Raises:
        EngineStartError: no node has room for one worker.
    """

    def __init__(self, spec: WorkerSpec, limit: int, tell: Callable[[str], None] = say) -> None:
        self.crew = Crew(spec, limit, tell)
        self.queue = Queue()
        self.patience = Patience(spec.workers.patience)
        self.tell = tell
        self._looked = time.monotonic()

    def __enter__(self) -> Pool:
        self.crew.fill()
        return self

    def __exit__(self, *_: object) -> None:
        for slot in list(self.crew.slots):
            self.crew.remove(slot)

    def add(self, blocks: Sequence[Block]) -> None:
        """Put blocks at the end of the queue, while it runs too."""
        self.queue.add(blocks)

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

        Raises:
            EngineStartError: no engine starts, or no node had room for one for an hour.
            OSError: a worker's disk is full.
        """
        self.add(blocks)
        while self.queue or self._busy() or more():
            if not stop():
                self._hand_out(recipes)
            elif not self._busy():
                return
            ready = self._wait(tick)
            if not ready:
                yield None
            for ref in ready:
                # Not those of workers that were replaced for what another of their calls said.
                if ref in self.crew.calls and (result := self._answered(ref, self.crew.calls.pop(ref))):
                    yield result
            if time.monotonic() - self._looked > LOOK:
                yield from self._look()

    # ---------------------------------------------------------------- asking
    def _busy(self) -> bool:
        return any(slot.block for slot in self.crew.slots)

    def _hand_out(self, recipes: Mapping[str, Recipe]) -> None:
        ready = [slot for slot in self.crew.slots if slot.holds is not None and slot.node not in self.crew.leaving]
        nodes = {slot.node for slot in ready}
        for slot in ready:
            if not self.queue:
                return
            if slot.block is None and (block := self.queue.take(slot.node, slot.holds or "", nodes)):
                slot.block, slot.since = block, time.monotonic()
                self.crew.calls[slot.actor.ask.remote(recipes[block.recipe_id], block)] = slot

    def _wait(self, tick: float) -> list[Any]:
        """All calls that are answered, after `tick` seconds at most."""
        calls = list(self.crew.calls)
        if not calls:
            time.sleep(tick)
            return []
        ready, _ = ray.wait(calls, timeout=tick)
        return list(ray.wait(calls, num_returns=len(calls), timeout=0)[0]) if ready else []

    def _answered(self, ref: Any, slot: Slot) -> Asked | Failure | None:
        """What came of one call: a result to hand on, or None when there is nothing to tell."""
        now = time.monotonic()
        try:
            result = ray.get(ref, timeout=60)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, OSError) and cause.errno in FULL and slot.place:
                where = f"{cause.filename or 'a disk'} of {slot.place.name}"
                raise OSError(cause.errno, cause.strerror, where) from None
            return self._broke(slot, reason(error), str(error), isinstance(cause, TooLarge | OutOfMemoryError))
        if isinstance(result, Place):
            slot.place, slot.placed, slot.since = result, now, now
            return None
        if slot.block is None:
            slot.holds, slot.failed_starts = "", 0
            self.patience.started(now - slot.since)
            return None
        if isinstance(result, Failure) and result.status == "failed":
            # An engine that raised may be broken for good (CUDA errors are), and would fail every recipe from now on.
            return self._broke(slot, result.message, result.detail)
        return self._finished(slot, slot.block, result)

    def _finished(self, slot: Slot, block: Block, result: Asked | Failure) -> Asked | Failure | None:
        slot.holds, slot.block = block.recipe_id, None
        self.queue.done(block)
        if isinstance(result, Asked):
            self.patience.answered(result)
            return result
        was_lost = self.queue.is_lost(block.recipe_id)
        self.queue.lose(block.recipe_id)
        return None if was_lost else result

    # ---------------------------------------------------------------- what goes wrong
    def _broke(self, slot: Slot, message: str, detail: str = "", too_large: bool = False) -> Failure | None:
        """Replace a worker, and ask its block again."""
        block, place = slot.block, slot.place
        self.crew.look()
        self.crew.dismiss(slot)
        if block is None:
            self.crew.start_failed(slot, place, message, detail)
            return None
        assert place is not None, "it was asked"
        failure = None
        if place.node in self.crew.leaving:
            self.queue.give_back(block)
        elif len(block.questions) > 1 and (too_large or self._was_killed_for_memory(place)):
            self.tell(f"worker {place.name} had too little memory for {len(block.questions)} questions: halved")
            self.queue.halve(block)
        else:
            self.tell(f"worker {place.name} broke and is replaced: {message}")
            failure = self._count(block, Break(place.node, place.name, message, detail))
        self.crew.start(slot)
        return failure

    def _was_killed_for_memory(self, place: Place) -> bool:
        return self.crew.stays(place) and oom_kills_on(place.node) > place.oom_kills

    def _count(self, block: Block, broken: Break) -> Failure | None:
        """Once more to the block's account; its recipe's failure where that is too much."""
        breaks = self.queue.broke(block, broken)
        if not breaks:
            return None
        told = ", ".join(f"{each.worker} on node {each.node[:8]}" for each in breaks)
        message = f"block {block.id} broke {len(breaks)} workers ({told}); the last said: {broken.message}"
        detail = "\n\n".join(f"{each.worker} on node {each.node}:\n{each.detail or each.message}" for each in breaks)
        return Failure(block.recipe_id, "failed", "worker", message, detail)

    def _look(self) -> Iterator[Failure]:
        """What nobody tells: nodes that came or went, and workers that do not answer."""
        self.crew.look()
        answered = {self.crew.calls[ref] for ref in self._wait(0)}  # while the driver itself was busy, or stopped
        for slot in [slot for slot in self.crew.slots if slot not in answered]:
            waited = time.monotonic() - slot.since
            if slot.place and waited > self._limit(slot):
                message = f"no answer for {waited:.0f} s, far longer than the like of it took before"
                kill_on(slot.place.node, slot.place.pid)
                if failure := self._broke(slot, message):
                    yield failure
        self.crew.follow()
        self._looked = time.monotonic()

    def _limit(self, slot: Slot) -> float:
        """Seconds that it may go without an answer."""
        if slot.block is not None:
            return self.patience.for_block(slot.block)
        return self.patience.for_start() if slot.holds is None else float("inf")


def reason(error: RayError) -> str:
    """The line that tells a person what went wrong."""
    if isinstance(error, RayActorError):
        # The indented lines name the actor; what happened to it comes after them.
        return " ".join(line for line in str(error).splitlines() if not line.startswith("\t"))[:500]
    cause = error.cause if isinstance(error, RayTaskError) and error.cause is not None else error
    return f"{type(cause).__name__}: {cause}".splitlines()[0][:500]
