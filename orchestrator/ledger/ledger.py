"""The ledger: all stored answers, block by block (`orchestrator.ledger.blocks`), in a folder or in object storage.

A ledger belongs to one sweep (DIR/answers) or is shared by many. Scores are not stored: they are computed from the
answers (`orchestrator.stats.scores`). The questions of a block that does not match its marker count as unanswered, and
the block is reported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.config.workers import Workers
from orchestrator.core.records import Answer, Answered, Block, Profile, Question, Serving
from orchestrator.core.store import Store
from orchestrator.ledger.blocks import SCHEMA, SUCCESS, Damaged, Marker, Stored, block_folders, look, write_block
from orchestrator.ledger.spent import Spent

COSTS = ("swap_s", "answer_s")
"""The costs of a block in seconds of its worker's time: until the recipe's weights were loaded, and from then until the
block was answered."""
ROOM = 2_000_000
"""Maximum number of answers in memory (about 300 bytes each): those of the most recently used recipes."""
AHEAD = 64
"""Number of recipes whose blocks are read at once."""


class Ledger:
    """The answers in one store that belong to one serving and one numeric profile.

    Args:
        location: a folder, or an address of object storage.
        room: maximum number of answers in memory.
    """

    def __init__(self, location: Path | str, serving: Serving, profile: Profile, room: int = ROOM) -> None:
        self.store = Store(location)
        self.store.prepare()
        self.serving = serving
        self.profile = profile
        self.room = room
        self.damage: dict[str, str] = {}
        """Folder of a damaged block → what is wrong with it."""
        self._answers: dict[str, dict[str, Answer]] = {}
        """Recipe → question id → answer, for some recipes; the most recently used one is last."""
        self._spent: dict[str, list[Spent]] = {}
        self._counts: dict[str, int] = {}
        self._kept = 0

    @property
    def damaged(self) -> list[str]:
        """A sentence for each block that was found damaged."""
        return [f"{why}; this block's questions are evaluated again" for why in self.damage.values()]

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        """Recipe → its complete blocks as `<recipe>/<block>`, from one listing at the first use."""
        found: dict[str, list[str]] = {}
        for folder in block_folders(self.store):
            found.setdefault(folder.split("/")[0], []).append(folder)
        return found

    def ahead(self, recipe_ids: Iterable[str]) -> Iterator[str]:
        """Yield the recipes one by one, their answers in memory; blocks in object storage are read concurrently."""
        left = iter(recipe_ids)
        while some := list(itertools.islice(left, AHEAD)):
            self._load([recipe_id for recipe_id in dict.fromkeys(some) if recipe_id not in self._answers])
            yield from some

    def answers(self, recipe_id: str) -> dict[str, Answer]:
        """Return all answers of a recipe: question id → answer."""
        if recipe_id not in self._answers:
            self._load([recipe_id])
        self._answers[recipe_id] = self._answers.pop(recipe_id)
        return self._answers[recipe_id]

    def count(self, recipe_id: str) -> int:
        """Return the number of answers that a recipe has."""
        return self._counts[recipe_id] if recipe_id in self._counts else len(self.answers(recipe_id))

    def costs(self, recipe_id: str) -> dict[str, float]:
        """Return the seconds spent on a recipe so far: `swap_s` and `answer_s`, as in `COSTS`."""
        spent = self.spent(recipe_id)
        return {key: sum((getattr(block, key) for block in spent), 0.0) for key in COSTS}

    def spent(self, recipe_id: str) -> tuple[Spent, ...]:
        """Return what each stored block of a recipe took."""
        if recipe_id not in self._spent:
            self._load([recipe_id])
        return tuple(self._spent[recipe_id])

    def missing(self, recipe_id: str, suites: Iterable[Iterable[Question]], workers: Workers) -> list[Block]:
        """Return the unanswered questions of one recipe, in blocks; see `missing_of`."""
        return self.missing_of([recipe_id], suites, workers)

    def missing_of(
        self, recipe_ids: Iterable[str], suites: Iterable[Iterable[Question]], workers: Workers
    ) -> list[Block]:
        """Return the unanswered questions of several recipes, in blocks.

        A block has at most `workers.block` questions, and `workers.text_block` where texts are generated. All questions
        are divided into blocks first, suite by suite, and answered ones are then removed. So after an interruption the
        blocks that are left are exactly those that there would have been without it.

        Args:
            suites: the questions of each suite.
        """
        parts, blocks = list(_cut(suites, workers)), []
        for recipe_id in self.ahead(recipe_ids):
            known = self.answers(recipe_id)
            for part in parts:
                # Whole parts are shared: thousands of recipes answer the same questions.
                left = tuple(q for q in part if q.id not in known) if known else part
                if left:
                    blocks.append(Block(recipe_id, left))
        return blocks

    def write(self, answered: Answered) -> None:
        """Store a block's answers; on return they are on the disk, or in the bucket.

        Raises:
            OSError: the disk is full or not writable; nothing of the block is stored then.
            StorageError: object storage cannot be reached; nothing of the block is stored then.
        """
        self.put(answered)
        self.note(answered)

    def put(self, answered: Answered) -> None:
        """Store a block's answers without counting them yet; raises as `write`.

        This is the half of `write` that waits for the disk, and several threads may call it concurrently.
        """
        expected = [question.id for question in answered.block.questions]
        assert [answer.question_id for answer in answered.answers] == expected, "an answer for each question, in order"
        buffer = io.BytesIO()
        columns = {name: [getattr(answer, name) for answer in answered.answers] for name in SCHEMA.names}
        pq.write_table(pa.table(columns, schema=SCHEMA), buffer)
        data = buffer.getvalue()
        marker = Marker(
            file=f"answers-{uuid.uuid4().hex[:8]}.parquet",
            sha256=hashlib.sha256(data).hexdigest(),
            rows=len(answered.answers),
            serving=self.serving.id,
            profile=dataclasses.asdict(self.profile),
            profile_id=self.profile.id,
            worker=answered.worker,
            device=answered.device,
            drafted=answered.drafted,
            written=time.time(),
            **{key: getattr(answered, key) for key in COSTS},
        )
        write_block(self.store, self._folder(answered.block), marker, data)

    def note(self, answered: Answered) -> None:
        """Count a block that `put` has stored: the other half of `write`."""
        recipe_id = answered.block.recipe_id
        folders = self._folders.setdefault(recipe_id, [])
        if recipe_id in self._answers or not folders:
            self._add(recipe_id, answered.answers, [_spent(answered, time.time())])
            self._make_room(1)
        else:
            self._drop(recipe_id)
        folders[:] = sorted({*folders, self._folder(answered.block)})

    def _folder(self, block: Block) -> str:
        """Name the folder of a block: the same questions under another serving or profile are another block."""
        name = hashlib.sha256(f"{block.id}{self.serving.id}{self.profile.id}".encode()).hexdigest()[:20]
        return f"{block.recipe_id}/{name}"

    def forget(self, recipe_id: str) -> None:
        """Delete a recipe's answers, because its weights will be made again.

        Markers are deleted first, so that no block is ever incomplete.
        """
        for entry in self.store.list(recipe_id):
            if entry.name.endswith(f"/{SUCCESS}"):
                self.store.delete(entry.name)
        self.store.delete_folder(recipe_id)
        self._folders.pop(recipe_id, None)
        self._drop(recipe_id)

    # ---------------------------------------------------------------- memory
    @contextlib.contextmanager
    def shared_room(self, processes: int) -> Iterator[None]:
        """Keep so many times fewer answers in memory meanwhile: each of so many copies of this process keeps some."""
        room, self.room = self.room, self.room // processes
        try:
            yield
        finally:
            self.room = room

    def _load(self, recipe_ids: Sequence[str]) -> None:
        folders = [folder for recipe_id in recipe_ids for folder in self._folders.get(recipe_id, ())]
        blocks = list(self.store.together(self._read, folders))
        for recipe_id in recipe_ids:
            self._drop(recipe_id)
            self._add(recipe_id, (), [])
        for folder, block in zip(folders, blocks, strict=True):
            if isinstance(block, Damaged):
                self.damage[folder] = str(block)
            elif block is not None:
                self._add(folder.split("/")[0], *block)
        self._make_room(len(recipe_ids))

    def _read(self, folder: str) -> tuple[Sequence[Answer], list[Spent]] | Damaged | None:
        """Read a block's answers and what it took; None where it belongs to another serving or profile."""
        found = look(self.store, folder, (self.serving.id, self.profile.id))
        if isinstance(found, Stored):
            return found.answers, [_spent(found.marker, found.marker.written)]
        return found

    def _add(self, recipe_id: str, answers: Sequence[Answer], spent: list[Spent]) -> None:
        known = self._answers.setdefault(recipe_id, {})
        before = len(known)
        known.update({answer.question_id: answer for answer in answers})
        self._counts[recipe_id] = len(known)
        self._kept += len(known) - before
        self._spent.setdefault(recipe_id, []).extend(spent)

    def _drop(self, recipe_id: str) -> None:
        self._kept -= len(self._answers.pop(recipe_id, {}))
        self._spent.pop(recipe_id, None)
        self._counts.pop(recipe_id, None)

    def _make_room(self, keep: int) -> None:
        """Drop the answers of the least recently used recipes from memory, except for the last `keep`; costs stay."""
        while self._kept > self.room and len(self._answers) > keep:
            self._kept -= len(self._answers.pop(next(iter(self._answers))))


def _spent(block: Answered | Marker, written: float) -> Spent:
    return Spent(block.worker, block.device, written, block.swap_s, block.answer_s, block.drafted)


def _cut(suites: Iterable[Iterable[Question]], workers: Workers) -> Iterator[tuple[Question, ...]]:
    """Yield each question once, in blocks."""
    seen = set[str]()
    for questions in suites:
        unique = [question for key, question in {q.id: q for q in questions}.items() if key not in seen]
        seen.update(question.id for question in unique)
        size = workers.text_block if any(question.decoding for question in unique) else workers.block
        for start in range(0, len(unique), size):
            yield tuple(unique[start : start + size])
