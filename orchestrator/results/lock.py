"""The lock that keeps a results folder to one driver at a time."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.results.layout import Layout


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Lock a results folder for this process, and create it if it is missing; the lock ends with the process.

    Raises:
        UserError: another process has the lock, or the folder cannot be written.
    """
    out = layout.root
    try:
        make_private(out)
        if layout.manifest.exists() or not any(out.iterdir()):
            out.chmod(0o700)  # made by hand, or by an older version; never a folder that has other things in it too
        stream = layout.lock.open("a")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--out {out}: another run is at work there; wait for it, or take another folder") from None
        yield
