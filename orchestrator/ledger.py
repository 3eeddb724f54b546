"""Every answer ever given: one Parquet file per block of questions, complete when its SUCCESS marker exists.

    <ledger>/<recipe>/<block>/answers-<random>.parquet
    <ledger>/<recipe>/<block>/SUCCESS                    JSON: that file's name, hash and row count; the
                                                         serving, the numeric profile, what it cost

The ledger is a folder (DIR/answers) or a prefix in object storage, and may be shared by many sweeps. The marker is
written last and names its file, so a crash, a full disk or two writers at once can leave an orphan file behind but
never half a block. Scores are not stored: they are views over the answers (`orchestrator.scores`). A block that does
not match its marker counts as never asked, and is reported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import io
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.config import Workers
from orchestrator.records import Answer, Asked, Block, Profile, Question, Serving
from orchestrator.store import Store

COSTS = ("swap_s", "answer_s")
"""What a block cost, in seconds of its worker's time: until the engine held its recipe, and until it was answered."""

SUCCESS = "SUCCESS"

SCHEMA = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("logprob", pa.float64()),
        pa.field("is_greedy", pa.bool_()),
        pa.field("text", pa.string()),
        pa.field("tokens", pa.int32(), nullable=False),
    ]
)
"""The fields of `Answer`, in their order."""


class Damaged(Exception):
    """A block that does not match its marker, or a marker that is none."""


class Marker(BaseModel):
    """What SUCCESS holds."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(pattern=r"^answers-[0-9a-f]{8}\.parquet$")
    """Beside the marker, and nowhere else."""
    sha256: str
    rows: int = Field(ge=0)
    serving: str
    """Its id."""
    profile: dict[str, Any]
    profile_id: str
    worker: str
    """host:pid"""
    written: float
    """Seconds since the epoch, by the driver's clock."""
    swap_s: float
    answer_s: float


@dataclass(frozen=True)
class Stored:
    """A block as it is stored, found sound."""

    recipe_id: str
    block: str
    """Its folder's name."""
    marker: Marker
    data: bytes
    """The Parquet file."""
    table: pa.Table
    """With `SCHEMA`."""

    @property
    def answers(self) -> list[Answer]:
        return [Answer(*row) for row in zip(*(column.to_pylist() for column in self.table.columns), strict=True)]


@contextlib.contextmanager
def _finding_damage() -> Iterator[None]:
    """What reading a broken block raises becomes `Damaged`; storage that cannot be had says nothing of the block."""
    try:
        yield
    except ValueError as error:  # pydantic's and pyarrow's errors among them
        raise Damaged(" ".join(str(error).split())[:200]) from None
    except OSError as error:
        if error.errno not in (None, errno.ENOENT, errno.EIO, errno.EISDIR):
            raise
        raise Damaged(str(error)[:200]) from None


def read_marker(store: Store, folder: str) -> Marker:
    """
    Args:
        folder: `<recipe>/<block>`.

    Raises:
        Damaged: it is none.
        StorageError: the storage cannot be had.
    """
    with _finding_damage():
        return Marker.model_validate_json(store.read(f"{folder}/{SUCCESS}"))


def read_block(store: Store, folder: str, marker: Marker) -> Stored:
    """The block behind a marker; raises as `read_marker`."""
    with _finding_damage():
        data = store.read(f"{folder}/{marker.file}")
        if hashlib.sha256(data).hexdigest() != marker.sha256:
            raise Damaged(f"{marker.file} does not match its SHA-256")
        table = pq.read_table(io.BytesIO(data))
    if table.schema != SCHEMA or table.num_rows != marker.rows:
        raise Damaged(f"{marker.file} holds other columns or rows than its marker says")
    recipe_id, block = folder.split("/")
    return Stored(recipe_id, block, marker, data, table)


class Ledger:
    """The answers in one store, seen through one serving and one numeric profile.

    Args:
        location: a folder, or an address of object storage.
    """

    def __init__(self, location: Path | str, serving: Serving, profile: Profile) -> None:
        self.store = Store(location)
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
                self.damaged.append(f"{self.store.location}/{folder}: {block}; this block's questions are asked again")
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
        names = [entry.name for entry in self.store.list(recipe_id)]
        for name in sorted(names, key=lambda name: not name.endswith(f"/{SUCCESS}")):
            self.store.delete(name)
        self._folders.pop(recipe_id, None)
        self._answers.pop(recipe_id, None)
        self._costs.pop(recipe_id, None)

    def _read(self, folder: str) -> tuple[Sequence[Answer], dict[str, float]] | Damaged | None:
        """None for what was asked through another serving or profile."""
        try:
            marker = read_marker(self.store, folder)
            if (marker.serving, marker.profile_id) != (self.serving.id, self.profile.id):
                return None
            return read_block(self.store, folder, marker).answers, {key: getattr(marker, key) for key in COSTS}
        except Damaged as error:
            return error

    def _add(self, recipe_id: str, answers: Sequence[Answer], costs: dict[str, float]) -> None:
        self._answers[recipe_id].update({answer.question_id: answer for answer in answers})
        for key in COSTS:
            self._costs[recipe_id][key] += costs[key]


def write_block(store: Store, folder: str, marker: Marker, data: bytes) -> None:
    """The file, then its marker; raises as `Store.write`."""
    store.write(f"{folder}/{marker.file}", data)
    store.write(f"{folder}/{SUCCESS}", marker.model_dump_json(indent=1).encode())


def block_folders(store: Store) -> list[str]:
    """All complete blocks as `<recipe>/<block>`, sorted: of two answers to a question, the later block's counts."""
    names = (entry.name.split("/") for entry in store.list())
    return sorted(f"{parts[0]}/{parts[1]}" for parts in names if len(parts) == 3 and parts[2] == SUCCESS)
