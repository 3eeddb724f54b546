"""Files that a reader sees as a whole or not at all, and that only their owner can read."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError


def make_private(folder: Path, mode: int = 0o700) -> Path:
    """Create a folder, and what is missing above it, readable by its owner only (0700) unless `mode` says more."""
    for missing in reversed([folder, *folder.parents]):
        try:
            missing.mkdir(mode=0o700)
        except OSError:
            if not missing.is_dir():
                raise
        else:
            missing.chmod(mode)  # mkdir's is cut by the umask
    return folder


def check_new(folder: Path) -> None:
    """Check that a folder that the user names with --to can be created.

    Raises:
        UserError: it exists, or lies below a file.
    """
    if folder.exists():
        raise UserError(f"--to {folder}: exists already; name a folder that does not")
    if any(parent.exists() and not parent.is_dir() for parent in folder.parents):
        raise UserError(f"--to {folder}: lies below a file; name a folder in a folder")


def write_atomic(path: Path, data: str | bytes, mode: int = 0o600, flush: bool = True) -> None:
    """Write a file as a whole: to a temporary name beside `path`, flushed to the disk, then renamed.

    Args:
        flush: False for a file that can be made again after a power failure.

    Raises:
        OSError: the disk is full or not writable; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if flush:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a stream does not say where it was written to
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; raises as `write_atomic`."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json_if_exists(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file that mergefront wrote; empty where there is no such file.

    Raises:
        ValueError: the file has something other than a JSON object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{path} has no JSON object")
    return value
