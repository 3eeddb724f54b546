"""The pool: blocks from the queue to the workers, answers back.

`cluster.queue` decides which block a worker gets, `cluster.workers` which workers there are. There is no barrier.
Workers, nodes and calls may end at any time, with an error or without one:

- A worker that dies, raises or hangs (`cluster.timeouts`) is replaced, and its block is evaluated again elsewhere. A
  block that broke three workers is set aside: its recipe fails, with the evidence.
- A block that did not fit into memory is evaluated again in halves, before it counts.
- A node that joins gets workers; one that is being drained gets no more blocks, and what ends with it is no failure of
  the block.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError

from cluster.errors import FULL, RemoteError, TooLarge, cause_of, described
from cluster.nodes import kill_on, oom_kills_on
from cluster.parent_texts import ParentTexts
from cluster.queue import Break, Queue
from cluster.slots import Busy, Idle, Placed, Slot, Starting, Waiting
from cluster.spec import Place, WorkerSpec
from cluster.timeouts import Timeouts
from cluster.workers import WorkerSlots
from orchestrator.core.progress import say
from orchestrator.core.records import Answered, Block, Failure
from orchestrator.recipes.recipe import Recipe
from tasks.serving.engine import QuestionRefused

CHECK_S = 1.0
"""Seconds between two checks of the nodes, and of workers that may hang."""


class Pool:
    """Workers, and the blocks that they evaluate.

    Args:
        spec: what each worker is given.
        limit: at most this many workers, if there is less work than room.
        log: gets a line for each event of workers and nodes.

    Raises:
        EngineStartError: no node has room for one worker.
    """

    def __init__(self, spec: WorkerSpec, limit: int, log: Callable[[str], None] = say) -> None:
        self.workers = WorkerSlots(spec, limit, log)
        self.texts = ParentTexts({})
        self.queue = Queue()
        self.timeouts = Timeouts(spec.workers.patience)
        self.log = log
        self._checked = time.monotonic()

    def __enter__(self) -> Pool:
        self.workers.fill()
        return self

    def __exit__(self, *_: object) -> None:
        for slot in list(self.workers.slots):
            self.workers.remove(slot)

    def draft_from(self, texts: ParentTexts) -> None:
        """Have texts drafted from what the parents wrote; their own blocks are then evaluated before the others'."""
        self.texts = texts
        self.queue.await_texts(texts.texts)

    def add(self, blocks: Sequence[Block]) -> None:
        """Put blocks at the end of the queue, also while it runs."""
        self.queue.add(blocks)

    def run(
        self,
        recipes: Mapping[str, Recipe],
        blocks: Sequence[Block],
        stop: Callable[[], bool] = lambda: False,
        more: Callable[[], bool] = lambda: False,
        tick: float = 1.0,
    ) -> Iterator[Answered | Failure | None]:
        """Evaluate all blocks; yields each as it is done, and None after `tick` seconds in which none is.

        Args:
            recipes: by id, those of the blocks.
            stop: once true, no further block is assigned, and those under way are finished.
            more: while true, an empty queue is not the end: blocks will be added.

        Raises:
            EngineStartError: no engine starts, or no node had room for one for an hour.
            QuestionRefused: the engine refuses a question, whatever the recipe.
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
                # Not those of workers that were replaced because another of their calls failed.
                if ref in self.workers.calls and (result := self._receive(ref, self.workers.calls.pop(ref))):
                    yield result
            if time.monotonic() - self._checked > CHECK_S:
                yield from self._check()

    # ---------------------------------------------------------------- blocks out, results in
    def _busy(self) -> bool:
        return any(isinstance(slot.state, Busy) for slot in self.workers.slots)

    def _hand_out(self, recipes: Mapping[str, Recipe]) -> None:
        ready = [slot for slot in self.workers.slots if slot.has_engine and slot.node not in self.workers.leaving]
        nodes = {slot.node for slot in ready}
        for slot in ready:
            if not self.queue:
                return
            if isinstance(slot.state, Idle) and (block := self.queue.take(slot.node, slot.state.recipe_id, nodes)):
                slot.state = slot.state.busy(block)
                call = slot.actor.evaluate.remote(recipes[block.recipe_id], block, self.texts.expected(block))
                self.workers.calls[call] = slot

    def _wait(self, tick: float) -> list[Any]:
        """All calls that have returned, after `tick` seconds at most."""
        calls = list(self.workers.calls)
        if not calls:
            time.sleep(tick)
            return []
        ready, _ = ray.wait(calls, timeout=tick)
        return list(ray.wait(calls, num_returns=len(calls), timeout=0)[0]) if ready else []

    def _receive(self, ref: Any, slot: Slot) -> Answered | Failure | None:
        """The result of one call; None where it is no block's."""
        try:
            result = ray.get(ref, timeout=60)
        except RayError as error:
            cause = cause_of(error)
            if isinstance(cause, QuestionRefused):
                raise cause from None
            if isinstance(cause, RemoteError) and cause.number in FULL and slot.place:
                where = f"{cause.filename or 'a disk'} of {slot.place.name}"
                raise OSError(cause.number, os.strerror(cause.number), where) from None
            return self._broke(slot, described(error), too_large=isinstance(cause, TooLarge | OutOfMemoryError))
        match slot.state:
            case Busy() as state:
                return self._finished(slot, state, result)
            case Waiting() if isinstance(result, Place):
                slot.state = slot.state.placed(result)
            case Waiting():  # the engine started so fast that Ray has not delivered yet where
                self.workers.calls[ref] = slot
            case Starting():
                self.timeouts.start.observe(time.monotonic() - slot.state.since)
                slot.state, slot.failed_starts = slot.state.ready(), 0
        return None

    def _finished(self, slot: Slot, state: Busy, result: Answered | Failure) -> Answered | Failure | None:
        if isinstance(result, Failure) and result.status == "failed":
            # An engine that raised may be broken for good (CUDA errors are), and would fail every recipe from now on.
            return self._broke(slot, RemoteError(result.message, result.detail))
        slot.state, block = state.done(), state.block
        if isinstance(result, Answered):
            self.queue.answered(block, result.answer_s)
            self.timeouts.observe_block(result)
            self.texts.add(result)
            return result
        self.queue.done(block)
        was_lost = self.queue.is_lost(block.recipe_id)
        self.queue.lose(block.recipe_id)
        return None if was_lost else result

    # ---------------------------------------------------------------- what goes wrong
    def _broke(self, slot: Slot, error: RemoteError, too_large: bool = False) -> Failure | None:
        """Replace a worker, and put its block back into the queue."""
        state = slot.state
        self.workers.refresh()
        self.workers.end(slot)
        if not isinstance(state, Busy):
            place = state.place if isinstance(state, Placed) else None
            self.workers.start_failed(slot, place, error)
            return None
        block, place, failure = state.block, state.place, None
        if place.node in self.workers.leaving:
            self.queue.give_back(block)
        elif len(block.questions) > 1 and (too_large or self._was_killed_for_memory(place)):
            self.log(f"worker {place.name} had too little memory for {len(block.questions)} questions: halved")
            self.queue.halve(block)
        else:
            self.log(f"worker {place.name} broke and is replaced: {error}")
            failure = self._count(block, Break(place.node, place.name, str(error), error.detail))
        self.workers.start(slot)
        return failure

    def _was_killed_for_memory(self, place: Place) -> bool:
        return self.workers.stays(place) and oom_kills_on(place.node) > place.oom_kills

    def _count(self, block: Block, broken: Break) -> Failure | None:
        """Count that a block broke its worker; the failure of its recipe where that was too often."""
        breaks = self.queue.broke(block, broken)
        if not breaks:
            return None
        listed = ", ".join(f"{each.worker} on node {each.node[:8]}" for each in breaks)
        message = f"block {block.id} broke {len(breaks)} workers ({listed}); the last error: {broken.message}"
        detail = "\n\n".join(f"{each.worker} on node {each.node}:\n{each.detail or each.message}" for each in breaks)
        return Failure(block.recipe_id, "failed", "worker", message, detail)

    def _check(self) -> Iterator[Failure]:
        """Find what Ray does not report: nodes that came or went, and workers that hang."""
        self.workers.refresh()
        returned = {self.workers.calls[ref] for ref in self._wait(0)}  # while the driver itself was busy, or stopped
        for slot in [slot for slot in self.workers.slots if slot not in returned]:
            waited = time.monotonic() - slot.state.since
            if slot.place and waited > self._limit(slot):
                message = f"no answer for {waited:.0f} s, far longer than it ever took before"
                kill_on(slot.place.node, slot.place.pid)
                if failure := self._broke(slot, RemoteError(message)):
                    yield failure
        self.workers.adjust()
        self._checked = time.monotonic()

    def _limit(self, slot: Slot) -> float:
        """Seconds that its worker may stay in its state."""
        match slot.state:
            case Starting():
                return self.timeouts.start.limit()
            case Busy(block=block):
                return self.timeouts.block_limit(block)
        return math.inf
