"""Every answer ever given, block by block (`orchestrator.blocks`), in a folder or in object storage.

A ledger is one sweep's (DIR/answers) or shared by many. Scores are not stored: they are views over the answers
(`orchestrator.scores`). A block that does not match its marker counts as never asked, and is reported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import time
import uuid
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.blocks import SCHEMA, SUCCESS, Damaged, Marker, Stored, block_folders, look, write_block
from orchestrator.config import Workers
from orchestrator.records import Answer, Asked, Block, Profile, Question, Serving
from orchestrator.store import Store

COSTS = ("swap_s", "answer_s")
"""What a block cost, in seconds of its worker's time: until the engine held its recipe, and until it was answered."""


class Ledger:
    """The answers in one store, seen through one serving and one numeric profile.

    Args:
        location: a folder, or an address of object storage.
    """

    def __init__(self, location: Path | str, serving: Serving, profile: Profile) -> None:
        self.store = Store(location)
        self.store.prepare()
        self.serving = serving
        self.profile = profile
        self.damaged: list[str] = []
        """What was found wrong, a sentence each."""
        self._answers: dict[str, dict[str, Answer]] = {}
        self._costs: dict[str, dict[str, float]] = {}

    @cached_property
    def _folders(self) -> dict[str, list[str]]:
        """Recipe → its complete blocks, as `<recipe>/<block>`; from one listing, at the first question."""
        found: dict[str, list[str]] = {}
        for folder in block_folders(self.store):
            found.setdefault(folder.split("/")[0], []).append(folder)
        return found

    def load(self, recipe_ids: Iterable[str]) -> None:
        """Read what is stored of these recipes; from object storage many blocks at once."""
        new = [recipe_id for recipe_id in dict.fromkeys(recipe_ids) if recipe_id not in self._answers]
        folders = [folder for recipe_id in new for folder in self._folders.get(recipe_id, ())]
        blocks = list(self.store.together(self._read, folders))
        for recipe_id in new:
            self._answers[recipe_id], self._costs[recipe_id] = {}, dict.fromkeys(COSTS, 0.0)
        for folder, block in zip(folders, blocks, strict=True):
            if isinstance(block, Damaged):
                self.damaged.append(f"{block}; this block's questions are asked again")
            elif block is not None:
                self._add(folder.split("/")[0], *block)

    def answers(self, recipe_id: str) -> dict[str, Answer]:
        """All answers of a recipe, by question id."""
        self.load([recipe_id])
        return self._answers[recipe_id]

    def costs(self, recipe_id: str) -> dict[str, float]:
        """Seconds spent on a recipe so far: `swap_s`, `answer_s`."""
        self.load([recipe_id])
        return dict(self._costs[recipe_id])

    def missing(self, recipe_id: str, suites: Iterable[Iterable[Question]], workers: Workers) -> list[Block]:
        """The unanswered questions, in blocks of at most `workers.block`, and of `workers.text_block` where texts are
        to be written.

        Blocks are cut suite by suite from all the questions first and then thinned, so that what is left after an
        interruption is composed exactly as it would have been without one.
        """
        known, seen, blocks = self.answers(recipe_id), set[str](), []
        for questions in suites:
            unique = [q for q in dict.fromkeys(questions) if q.id not in seen]
            seen.update(question.id for question in unique)
            size = workers.text_block if any(question.decoding for question in unique) else workers.block
            for start in range(0, len(unique), size):
                part = tuple(q for q in unique[start : start + size] if q.id not in known)
                if part:
                    blocks.append(Block(recipe_id, part))
        return blocks

    def write(self, asked: Asked) -> None:
        """Store a block's answers; on return they are on the disk, or in the bucket.

        Raises:
            OSError: the disk is full or not writable; the block is then not there at all.
            StorageError: object storage cannot be had; likewise.
        """
        recipe_id = asked.block.recipe_id
        self.load([recipe_id])
        expected = [question.id for question in asked.block.questions]
        assert [answer.question_id for answer in asked.answers] == expected, "an answer for each question, in order"
        # The same questions asked through another serving or profile are another block.
        name = hashlib.sha256(f"{asked.block.id}{self.serving.id}{self.profile.id}".encode()).hexdigest()[:20]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([dataclasses.asdict(a) for a in asked.answers], schema=SCHEMA), buffer)
        data, costs = buffer.getvalue(), {key: getattr(asked, key) for key in COSTS}
        marker = Marker(
            file=f"answers-{uuid.uuid4().hex[:8]}.parquet",
            sha256=hashlib.sha256(data).hexdigest(),
            rows=len(asked.answers),
            serving=self.serving.id,
            profile=dataclasses.asdict(self.profile),
            profile_id=self.profile.id,
            worker=asked.worker,
            written=time.time(),
            **costs,
        )
        write_block(self.store, f"{recipe_id}/{name}", marker, data)
        self._add(recipe_id, asked.answers, costs)

    def forget(self, recipe_id: str) -> None:
        """Delete a recipe's answers: its weights are made anew. Markers go first, so no block is ever half there."""
        for entry in self.store.list(recipe_id):
            if entry.name.endswith(f"/{SUCCESS}"):
                self.store.delete(entry.name)
        self.store.delete_folder(recipe_id)
        self._folders.pop(recipe_id, None)
        self._answers.pop(recipe_id, None)
        self._costs.pop(recipe_id, None)

    def _read(self, folder: str) -> tuple[Sequence[Answer], dict[str, float]] | Damaged | None:
        """None for what was asked through another serving or profile."""
        found = look(self.store, folder, (self.serving.id, self.profile.id))
        if isinstance(found, Stored):
            return found.answers, {key: getattr(found.marker, key) for key in COSTS}
        return found

    def _add(self, recipe_id: str, answers: Sequence[Answer], costs: dict[str, float]) -> None:
        self._answers[recipe_id].update({answer.question_id: answer for answer in answers})
        for key in COSTS:
            self._costs[recipe_id][key] += costs[key]
