"""One driver at a time in a results folder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a results folder; the lock dies with its process.

    Raises:
        UserError: another one is running, or the folder cannot be written.
    """
    try:
        make_private(out)
        if (out / "sweep.json").exists() or not any(out.iterdir()):
            out.chmod(0o700)  # made by hand, or by an older version; never a folder that holds other things too
        stream = (out / ".lock").open("a")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"--out {out}: another run is at work there; wait for it, or take another folder") from None
        yield
