"""Where files of a ledger lie: a folder, on this machine or NFS, or a prefix in object storage (`s3://`, `gs://`).

One set of operations for both, through pyarrow's filesystems. A file is there as a whole or not at all: in a folder it
is written under another name, flushed and renamed; an object appears when its upload is complete. Credentials are
found where the storage's own tools find them (environment, ~/.aws, the machine's role), never in the address.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private, write_atomic
from orchestrator.core.locations import check_location, is_remote

AT_ONCE = 32
"""Requests to object storage under way: what takes long there is the way to it."""
PIECE = 16 << 20
"""Bytes of a large file read at once."""
PATIENCE_S = 300.0
"""How long storage may be away before a sweep stops."""

T = TypeVar("T")
R = TypeVar("R")


class StorageError(UserError):
    """Object storage cannot be had, or refuses."""


@dataclass(frozen=True)
class Entry:
    name: str
    """Relative to the store."""
    size: int
    """Bytes."""
    written: float
    """Seconds since the epoch, by the storage's clock."""


class Store:
    """
    Args:
        location: a folder (created when it is written to, readable by its owner only; what is written into one that is
            there is as readable as that is), or an address of object storage.
        key: the sweep file's key that names it, for messages.

    Raises:
        StorageError: there is no such bucket, or it cannot be reached, or the address is none.
    """

    def __init__(self, location: Path | str, key: str = "ledger") -> None:
        self.location, self.key = str(location), key
        self.remote = is_remote(self.location)
        if self.remote:
            try:
                check_location(self.location)
            except ValueError as error:
                raise StorageError(f"{self.key}: {error}") from None
            self._check_bucket()

    def prepare(self) -> int:
        """Make sure that there is a folder to write to; returns its mode.

        Raises:
            UserError: there cannot be one.
        """
        if self.remote:
            return 0
        try:
            return make_private(Path(self.location)).stat().st_mode & 0o777
        except OSError as error:
            raise UserError(
                f"{self.key}: {self.location} cannot be created ({error.strerror}); choose another folder"
            ) from None

    @cached_property
    def _found(self) -> tuple[Any, str]:
        """pyarrow's filesystem, and the path of the store in it."""
        from pyarrow.fs import FileSystem, LocalFileSystem

        if not self.remote:
            return LocalFileSystem(), str(Path(self.location).absolute())
        address = self.location
        if address.startswith("s3:") and "allow_delayed_open" not in address:
            address += ("&" if "?" in address else "?") + "allow_delayed_open=true"  # one PUT a file instead of three
        with self._told("opened"):
            filesystem, path = FileSystem.from_uri(address)
        return filesystem, path.rstrip("/")

    # ---------------------------------------------------------------- files
    def read(self, name: str) -> bytes:
        """
        Raises:
            FileNotFoundError: no such file.
            StorageError: the storage cannot be had.
        """
        filesystem, base = self._found
        with self._told("read"), filesystem.open_input_stream(f"{base}/{name}", compression=None) as stream:
            return bytes(stream.read())

    def write(self, name: str, data: bytes) -> None:
        """On return all of it is stored; else nothing of it is seen.

        Raises:
            OSError: a folder's disk is full or not writable.
            StorageError: the storage cannot be had.
        """
        if self.remote:
            filesystem, base = self._found
            with self._told("written"):
                stream = filesystem.open_output_stream(f"{base}/{name}", compression=None)
                stream.write(data)
                stream.close()
        else:
            path, mode = Path(self.location, name), self.prepare()
            make_private(path.parent, mode)
            write_atomic(path, data, mode & 0o666)

    def copy(self, name: str, to: Path) -> str:
        """Copy a file to this machine, however large, and return the SHA-256 of what came; raises as `read`, and
        OSError where `to` cannot be written."""
        filesystem, base = self._found
        digest = hashlib.sha256()
        with (
            self._told("read"),
            filesystem.open_input_stream(f"{base}/{name}", compression=None) as stream,
            to.open("xb") as target,
        ):
            while piece := stream.read(PIECE):
                target.write(piece)
                digest.update(piece)
        return digest.hexdigest()

    def list(self, prefix: str = "") -> list[Entry]:
        """All files, or those below a folder, in one sweep over the storage (a request for each 1,000 objects)."""
        from pyarrow.fs import FileSelector, FileType

        filesystem, base = self._found
        with self._told("listed"):
            selector = FileSelector(f"{base}/{prefix}".rstrip("/"), recursive=True, allow_not_found=True)
            found = filesystem.get_file_info(selector)
        cut = len(base) + 1
        files = (each for each in found if each.type == FileType.File)
        return [Entry(each.path[cut:], each.size, (each.mtime_ns or 0) / 1e9) for each in files]

    def delete(self, name: str) -> None:
        filesystem, base = self._found
        with self._told("deleted"), contextlib.suppress(FileNotFoundError):
            filesystem.delete_file(f"{base}/{name}")

    def delete_folder(self, name: str) -> None:
        filesystem, base = self._found
        with self._told("deleted"), contextlib.suppress(FileNotFoundError):
            filesystem.delete_dir(f"{base}/{name}")

    def together(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """`work` for each item, in order; many at once where each is a request."""
        if not self.remote:
            yield from map(work, items)
            return
        left = iter(items)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while some := list(itertools.islice(left, 8 * AT_ONCE)):  # so many results wait for their turn in memory
                yield from pool.map(work, some)

    # ---------------------------------------------------------------- what goes wrong
    def _check_bucket(self) -> None:
        """Listing says nothing of a bucket that is not there."""
        from pyarrow.fs import FileType

        filesystem, base = self._found
        bucket = base.split("/")[0]
        with self._told("opened"):
            missing = filesystem.get_file_info(bucket).type == FileType.NotFound
        if missing:
            raise StorageError(f"{self.key}: {self.location}: there is no bucket {bucket!r}; create it, or correct it")

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            # An errno is the kernel's: that of a disk here.
            if not self.remote or getattr(error, "errno", None) is not None:
                raise
            raise StorageError(
                f"{self.key}: {self.location} cannot be {what} ({' '.join(str(error).split())[:300]}); check the "
                "address, the network and the credentials; the same command goes on"
            ) from None


def patiently(work: Callable[[], None], tell: Callable[[str], None], patience: float = PATIENCE_S) -> None:
    """Try again while object storage is away, at most `patience` seconds.

    Raises:
        StorageError: it was away for longer.
    """
    started, pause = time.monotonic(), 1.0
    while True:
        try:
            return work()
        except StorageError as error:
            left = started + patience - time.monotonic()
            if left <= 0:
                raise
            if pause == 1.0:
                tell(f"{error}; trying again for {patience:.0f} s")
            time.sleep(min(pause, left))
            pause = min(2 * pause, 30.0)
