"""One driver at a time in a results folder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.results.layout import Layout


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Take a results folder for this process alone; the lock dies with its process.

    Raises:
        UserError: another one is running, or the folder cannot be written.
    """
    out = layout.root
    try:
        make_private(out)
        if layout.manifest.exists() or not any(out.iterdir()):
            out.chmod(0o700)  # made by hand, or by an older version; never a folder that holds other things too
        stream = layout.lock.open("a")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--out {out}: another run is at work there; wait for it, or take another folder") from None
        yield
