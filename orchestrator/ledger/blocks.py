"""A block of answers as it is stored: a Parquet file, and the marker that it is complete.

    <ledger>/<recipe>/<block>/answers-<random>.parquet
    <ledger>/<recipe>/<block>/SUCCESS                    JSON: that file's name, hash and row count; the
                                                         serving, the numeric profile, the seconds

The marker is written last and names its file, so a crash, a full disk or two concurrent writers can leave an orphan
file behind, but never half a block.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from orchestrator.core.records import Answer, Drafted
from orchestrator.core.store import Store
from orchestrator.core.text import one_line

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


READS = 5
"""Number of times that a marker is read before it counts as damaged."""


class Damaged(Exception):
    """A block does not match its marker, or the marker is malformed."""


class Marker(BaseModel):
    """The content of SUCCESS."""

    model_config = ConfigDict(frozen=True)

    file: str = Field(pattern=r"^answers-[0-9a-f]{8}\.parquet$")
    """Name of the Parquet file, which lies beside the marker."""
    sha256: str
    """Hash of the Parquet file, in hexadecimal."""
    rows: int = Field(ge=0)
    serving: str
    """Id of the serving."""
    profile: dict[str, Any]
    profile_id: str
    """Id of the numeric profile."""
    worker: str
    """host:pid"""
    written: float
    """Seconds since the epoch, by the driver's clock."""
    swap_s: float
    """Seconds until the recipe's weights were loaded."""
    answer_s: float
    """Seconds from then until the block was answered."""
    device: str = ""
    """Name of the worker's device; empty in blocks that were stored without it."""
    drafted: Drafted | None = None
    """What speculative decoding did; None where there was none."""


@dataclass(frozen=True)
class Stored:
    """A block as it is stored, checked against its marker."""

    folder: str
    """`<recipe>/<block>`"""
    marker: Marker
    data: bytes
    """Content of the Parquet file."""
    table: pa.Table
    """The answers, with `SCHEMA`."""

    @property
    def recipe_id(self) -> str:
        """Id of the recipe that gave the answers."""
        return self.folder.split("/")[0]

    @property
    def answers(self) -> list[Answer]:
        """The answers, in the order of the block's questions."""
        ids, *others = (column.to_pylist() for column in self.table.columns)
        # Thousands of recipes answer the same questions: one copy of a question's id serves them all.
        return [Answer(sys.intern(key), *rest) for key, *rest in zip(ids, *others, strict=True)]


def look(store: Store, folder: str, view: tuple[str, str] | None = None) -> Stored | Damaged | None:
    """Read a block and check it.

    Args:
        folder: `<recipe>/<block>`.
        view: ids of a serving and a numeric profile.

    Returns:
        The block; or what is wrong with it; or None where its serving or profile is another than in `view`.

    Raises:
        StorageError: the storage cannot be reached, which says nothing about the block.
    """
    try:
        marker = _read_marker(store, folder)
        if view not in (None, (marker.serving, marker.profile_id)):
            return None
        return _read_block(store, folder, marker)
    except Damaged as error:
        return Damaged(f"{store.location}/{folder}: {error}")


def _read_marker(store: Store, folder: str) -> Marker:
    def read() -> Marker:
        with _finding_damage():
            return Marker.model_validate_json(store.read(f"{folder}/{SUCCESS}"))

    # A client of object storage requests the length first: of a marker that another writer replaces then, a part is
    # read. What looks damaged is read again, a few times: others may be writing the same block over and over.
    for _ in range(READS - 1):
        with contextlib.suppress(Damaged):
            return read()
    return read()


def _read_block(store: Store, folder: str, marker: Marker) -> Stored:
    with _finding_damage():
        data = store.read(f"{folder}/{marker.file}")
        if hashlib.sha256(data).hexdigest() != marker.sha256:
            raise Damaged(f"{marker.file} does not match its SHA-256")
        # Not `read_table`, which plans as for a dataset: on files this small it takes ten times as long.
        table = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
    if table.schema != SCHEMA or table.num_rows != marker.rows:
        raise Damaged(f"{marker.file} has other columns or rows than its marker says")
    return Stored(folder, marker, data, table)


@contextlib.contextmanager
def _finding_damage() -> Iterator[None]:
    """Turn errors that a damaged block causes into `Damaged`.

    Errors of storage that cannot be reached stay as they are: they say nothing about the block.
    """
    try:
        yield
    except ValueError as error:  # pydantic's and pyarrow's errors among them
        raise Damaged(one_line(error, 200)) from None
    except OSError as error:
        if error.errno not in (None, errno.ENOENT, errno.EIO, errno.EISDIR):
            raise
        raise Damaged(str(error)[:200]) from None


def write_block(store: Store, folder: str, marker: Marker, data: bytes) -> None:
    """Write a block's file, then its marker; raises as `Store.write`."""
    store.write(f"{folder}/{marker.file}", data)
    store.write(f"{folder}/{SUCCESS}", marker.model_dump_json(indent=1).encode())


def block_folders(store: Store) -> list[str]:
    """List all complete blocks as `<recipe>/<block>`, sorted.

    Of two answers to a question, the one in the later block of this order counts.
    """
    names = (entry.name.split("/") for entry in store.list())
    return sorted(f"{parts[0]}/{parts[1]}" for parts in names if len(parts) == 3 and parts[2] == SUCCESS)
