"""Files in a folder, on this machine or NFS, or below a prefix in object storage (`s3://`, `gs://`).

Both have the same operations, through pyarrow's filesystems. A file is visible as a whole or not at all: in a folder it
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
from orchestrator.core.text import one_line

AT_ONCE = 32
"""Concurrent requests to object storage; most of a request's time is latency."""
PIECE_BYTES = 16 << 20
"""Bytes of a large file that are read in one piece."""
PATIENCE_S = 300.0
"""Seconds for which storage may be unreachable before a sweep stops."""

T = TypeVar("T")
R = TypeVar("R")


class StorageError(UserError):
    """Object storage cannot be reached, or refuses a request."""


@dataclass(frozen=True)
class Entry:
    """A file of a store."""

    name: str
    """Its path, relative to the store."""
    size: int
    """Bytes."""
    written: float
    """Seconds since the epoch, by the storage's clock."""


class Store:
    """The files below one folder or address.

    Args:
        location: a folder (created when it is written to, readable by its owner only; what is written into one that
            exists is as readable as that is), or an address of object storage.
        key: the sweep file's key for it, for messages.

    Raises:
        StorageError: there is no such bucket, or it cannot be reached, or the address is malformed.
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
        """Create the folder where it is missing, and return its mode; 0 for object storage.

        Raises:
            UserError: it cannot be created.
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
        """The filesystem of pyarrow, and the path of the store in it."""
        from pyarrow.fs import FileSystem, LocalFileSystem

        if not self.remote:
            return LocalFileSystem(), str(Path(self.location).absolute())
        address = self.location
        if address.startswith("s3:") and "allow_delayed_open" not in address:
            address += ("&" if "?" in address else "?") + "allow_delayed_open=true"  # one PUT a file instead of three
        with self._explained("opened"):
            filesystem, path = FileSystem.from_uri(address)
        return filesystem, path.rstrip("/")

    # ---------------------------------------------------------------- files
    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            FileNotFoundError: no such file.
            StorageError: the storage cannot be reached.
        """
        filesystem, base = self._found
        with self._explained("read"), filesystem.open_input_stream(f"{base}/{name}", compression=None) as stream:
            return bytes(stream.read())

    def write(self, name: str, data: bytes) -> None:
        """Write a file: on return all of it is stored, after an error none of it is visible.

        Raises:
            OSError: a folder's disk is full or not writable.
            StorageError: the storage cannot be reached.
        """
        if self.remote:
            filesystem, base = self._found
            with self._explained("written"):
                stream = filesystem.open_output_stream(f"{base}/{name}", compression=None)
                stream.write(data)
                stream.close()
        else:
            path, mode = Path(self.location, name), self.prepare()
            make_private(path.parent, mode)
            write_atomic(path, data, mode & 0o666)

    def copy(self, name: str, to: Path) -> str:
        """Copy a file of any size to this machine, and return the SHA-256 of the copy, in hexadecimal.

        Args:
            to: must not exist.

        Raises:
            FileNotFoundError, StorageError: as `read`.
            OSError: `to` cannot be written.
        """
        filesystem, base = self._found
        digest = hashlib.sha256()
        with (
            self._explained("read"),
            filesystem.open_input_stream(f"{base}/{name}", compression=None) as stream,
            to.open("xb") as target,
        ):
            while piece := stream.read(PIECE_BYTES):
                target.write(piece)
                digest.update(piece)
        return digest.hexdigest()

    def list(self, prefix: str = "") -> list[Entry]:
        """List all files, or those below a folder, in one pass over the storage (one request per 1,000 objects)."""
        from pyarrow.fs import FileSelector, FileType

        filesystem, base = self._found
        with self._explained("listed"):
            selector = FileSelector(f"{base}/{prefix}".rstrip("/"), recursive=True, allow_not_found=True)
            found = filesystem.get_file_info(selector)
        cut = len(base) + 1
        files = (each for each in found if each.type == FileType.File)
        return [Entry(each.path[cut:], each.size, (each.mtime_ns or 0) / 1e9) for each in files]

    def delete(self, name: str) -> None:
        """Delete a file, if it exists."""
        filesystem, base = self._found
        with self._explained("deleted"), contextlib.suppress(FileNotFoundError):
            filesystem.delete_file(f"{base}/{name}")

    def delete_folder(self, name: str) -> None:
        """Delete a folder with everything in it, if it exists."""
        filesystem, base = self._found
        with self._explained("deleted"), contextlib.suppress(FileNotFoundError):
            filesystem.delete_dir(f"{base}/{name}")

    def together(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield `work(item)` for each item, in order; in object storage, many run concurrently."""
        if not self.remote:
            yield from map(work, items)
            return
        left = iter(items)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while some := list(itertools.islice(left, 8 * AT_ONCE)):  # so many results wait for their turn in memory
                yield from pool.map(work, some)

    # ---------------------------------------------------------------- what goes wrong
    def _check_bucket(self) -> None:
        """Raise `StorageError` where there is no such bucket; listing it would only yield nothing."""
        from pyarrow.fs import FileType

        filesystem, base = self._found
        bucket = base.split("/")[0]
        with self._explained("opened"):
            missing = filesystem.get_file_info(bucket).type == FileType.NotFound
        if missing:
            raise StorageError(f"{self.key}: {self.location}: there is no bucket {bucket!r}; create it, or correct it")

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what object storage raises into a `StorageError` that names what could not be done."""
        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            # An errno is the kernel's: that of a disk here.
            if not self.remote or getattr(error, "errno", None) is not None:
                raise
            raise StorageError(
                f"{self.key}: {self.location} cannot be {what} ({one_line(error, 300)}); check the "
                "address, the network and the credentials; the same command resumes"
            ) from None


def patiently(work: Callable[[], None], say: Callable[[str], None], patience_s: float = PATIENCE_S) -> None:
    """Call `work`, and retry while object storage cannot be reached, for at most `patience_s` seconds.

    Args:
        say: prints a line for the user.

    Raises:
        StorageError: it could not be reached for longer.
    """
    started, pause_s = time.monotonic(), 1.0
    while True:
        try:
            return work()
        except StorageError as error:
            left_s = started + patience_s - time.monotonic()
            if left_s <= 0:
                raise
            if pause_s == 1.0:
                say(f"{error}; trying again for {patience_s:.0f} s")
            time.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, 30.0)
