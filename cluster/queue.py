"""The queue: which block a free worker gets next, and when a block has broken enough of them.

No Ray is in it, so that `benchmarks.scale` drives the very same code by a simulated clock. A free worker continues with
the recipe whose weights it has loaded, else takes one that no worker is at, else helps with the recipe that has most
blocks left. Of a recipe's blocks, those with texts come first, the longest by what the same questions took before; and
when few recipes are left, texts of any of them come before the rest of a worker's own. So short blocks are left for the
end, when workers wait for one another. A block that broke a worker comes before all, and on a node where it broke
none, if there is one.

Texts are drafted from those of some recipes, the parents: a block that writes texts waits until these are answered.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from orchestrator.core.records import Block

ATTEMPTS = 3
"""Workers that may break at a block before its recipe fails; engines that may fail to start in one place."""
LAST = 5
"""Recipes a worker that are left when texts begin to come before the rest of every recipe."""
LOOK = 64
"""Most recipes without a worker that are looked at for a block that need not wait; all have much the same blocks."""


@dataclass(frozen=True)
class Break:
    """A worker that died, hung or raised while it was at a block."""

    node: str
    """Ray's id of it."""
    worker: str
    """`host:pid`, for messages."""
    message: str
    detail: str = ""


class Queue:
    """Blocks that wait; falsy when there are none.

    Every operation is O(blocks of a recipe), except helping at the end, which is O(recipes under way).
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[Block]] = {}
        """Recipe → its blocks; never empty ones."""
        self._awaited: dict[str, set[str]] = {}
        """Parent → questions whose texts are still to come."""
        self._seconds: dict[str, float] = {}
        """Block id → what its questions took, for the last recipe that answered them."""
        self._texts: Counter[str] = Counter()
        """Recipe → how many of its blocks write texts."""
        self._idle: dict[str, None] = {}
        """Those of the waiting recipes that no worker is at, in their order."""
        self._workers: Counter[str] = Counter()
        """Recipe → workers at it."""
        self._suspects: list[Block] = []
        self._breaks: defaultdict[tuple[str, str], list[Break]] = defaultdict(list)
        self._lost: set[str] = set()
        """Recipes that have failed: what is left of them is not evaluated."""

    def __bool__(self) -> bool:
        return bool(self._waiting or self._suspects)

    def await_texts(self, parents: Iterable[str]) -> None:
        """Hold back blocks that write texts until some recipes, which are added later, have written theirs."""
        self._awaited = {parent: self._awaited.get(parent, set()) for parent in parents}

    def add(self, blocks: Iterable[Block]) -> None:
        """Put blocks at the end."""
        for block in blocks:
            self._waiting.setdefault(block.recipe_id, []).append(block)
            self._texts[block.recipe_id] += block.writes > 0
            if block.recipe_id in self._awaited:
                self._awaited[block.recipe_id].update(q.id for q in block.questions if q.decoding)
            self._see(block.recipe_id)

    def take(self, node: str, loaded: str | None, nodes: Collection[str]) -> Block | None:
        """Choose the next block of a free worker; None when there is none for it.

        Args:
            node: where the worker is.
            loaded: the recipe whose weights are in its engine; None before its first.
            nodes: all that have workers now.
        """
        block = self._suspect(node, nodes)
        if block is None:
            block = self._choose(loaded)
            if block is None:
                return None
            self._waiting[block.recipe_id].remove(block)
            self._texts[block.recipe_id] -= block.writes > 0
            if not self._texts[block.recipe_id]:
                del self._texts[block.recipe_id]
            if not self._waiting[block.recipe_id]:
                del self._waiting[block.recipe_id]
        self._workers[block.recipe_id] += 1
        self._idle.pop(block.recipe_id, None)
        return block

    def answered(self, block: Block, seconds: float) -> None:
        """Note that a block is answered, and what its questions took."""
        self._seconds[block.id] = seconds
        if block.recipe_id in self._awaited:
            self._awaited[block.recipe_id].difference_update(question.id for question in block.questions)
        self.done(block)

    def done(self, block: Block) -> None:
        """Note that the worker at the block is free again."""
        self._workers[block.recipe_id] -= 1
        if not self._workers[block.recipe_id]:
            del self._workers[block.recipe_id]
        self._see(block.recipe_id)

    def give_back(self, block: Block) -> None:
        """Put a block back whose worker ended through no fault of the block: it comes before others of its recipe."""
        if (block.recipe_id, block.id) in self._breaks and block.recipe_id not in self._lost:
            self._suspects.append(block)
            self.done(block)
        else:
            self._again([block])

    def halve(self, block: Block) -> None:
        """Put a block back as two: it was too large for the memory of a worker, which has ended."""
        middle = len(block.questions) // 2
        assert middle, "a block of one question cannot be halved"
        self._again([Block(block.recipe_id, part) for part in (block.questions[:middle], block.questions[middle:])])

    def broke(self, block: Block, broken: Break) -> list[Break]:
        """Note that a block broke its worker; it is put back, or, after `ATTEMPTS`, its recipe is lost.

        Returns:
            All that it broke when its recipe is lost, else nothing.
        """
        self.done(block)
        breaks = self._breaks[block.recipe_id, block.id]
        breaks.append(broken)
        if block.recipe_id in self._lost:
            return []
        if len(breaks) < ATTEMPTS:
            self._suspects.append(block)
            return []
        self.lose(block.recipe_id)
        return breaks

    def lose(self, recipe_id: str) -> None:
        """Note that a recipe has failed: no block of it is assigned any more."""
        self._lost.add(recipe_id)
        self._awaited.pop(recipe_id, None)
        self._waiting.pop(recipe_id, None)
        self._texts.pop(recipe_id, None)
        self._idle.pop(recipe_id, None)
        self._suspects = [block for block in self._suspects if block.recipe_id != recipe_id]

    def is_lost(self, recipe_id: str) -> bool:
        """Whether the recipe has failed."""
        return recipe_id in self._lost

    def _again(self, blocks: list[Block]) -> None:
        recipe_id = blocks[0].recipe_id
        if recipe_id not in self._lost:
            self._waiting[recipe_id] = [*blocks, *self._waiting.get(recipe_id, ())]
            self._texts[recipe_id] += sum(block.writes > 0 for block in blocks)
        self.done(blocks[0])

    def _see(self, recipe_id: str) -> None:
        if recipe_id in self._waiting and recipe_id not in self._workers:
            self._idle[recipe_id] = None

    def _suspect(self, node: str, nodes: Collection[str]) -> Block | None:
        for index, block in enumerate(self._suspects):
            tried = {broken.node for broken in self._breaks[block.recipe_id, block.id]}
            if node not in tried or tried.issuperset(nodes):
                return self._suspects.pop(index)
        return None

    def _choose(self, loaded: str | None) -> Block | None:
        own = self._longest(loaded) if loaded in self._waiting else None
        if own and (own.writes or len(self._workers) < 2 or len(self._idle) > LAST * len(self._workers)):
            return own
        texts = (block for block in self._of_some(self._texts) if block.writes)
        if block := next(texts if own else self._of_some(self._idle), own):
            return block
        most_left = sorted(self._waiting, key=lambda recipe_id: -len(self._waiting[recipe_id]))
        return next(filter(None, map(self._longest, most_left)), None)

    def _of_some(self, recipe_ids: Iterable[str]) -> Iterator[Block]:
        return filter(None, map(self._longest, itertools.islice(recipe_ids, LOOK)))

    def _longest(self, recipe_id: str) -> Block | None:
        """Return the block of a recipe that is likely to take longest, texts before others; None where all wait."""
        ready = filter(self._is_ready, self._waiting[recipe_id])
        return max(ready, key=lambda b: (b.writes > 0, self._seconds.get(b.id, math.inf), b.writes), default=None)

    def _is_ready(self, block: Block) -> bool:
        if not block.writes or block.recipe_id in self._awaited:
            return True
        awaited = [ids for ids in self._awaited.values() if ids]
        return not any(question.id in ids for ids in awaited for question in block.questions)
