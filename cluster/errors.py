"""What can go wrong with workers, and the line that describes it."""

from __future__ import annotations

import errno

from orchestrator.core.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""A disk is full, or its quota is."""


class EngineStartError(UserError):
    """There are no workers, and none can be started; `detail` is the whole error, for a file."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class TooLarge(Exception):
    """The block did not fit into the worker's memory; a smaller one may."""


def reason(error: Exception) -> str:
    """Extract from one of Ray's errors the line that says what went wrong, of 500 characters at most."""
    from ray.exceptions import RayActorError, RayTaskError  # here: the driver imports this module for every command

    if isinstance(error, RayActorError):
        # The indented lines name the actor; what happened to it comes after them.
        return " ".join(line for line in str(error).splitlines() if not line.startswith("\t"))[:500]
    cause = error.cause if isinstance(error, RayTaskError) and error.cause is not None else error
    return f"{type(cause).__name__}: {cause}".splitlines()[0][:500]
