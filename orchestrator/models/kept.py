"""What libraries say of a model's small files, kept on this node: the libraries take seconds to import.

It is kept by everything that it depends on: the content, the versions of the libraries, and the code here that reads
them, so that neither another version of a library nor one of mergefront ever finds an answer that is not its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.core.files import write_json
from orchestrator.models.fetch import cache


def kept(kind: str, content: list[str], packages: list[str], make: Callable[[], Any]) -> Any:
    """Return what `make` returns, as JSON values, from this user's cache where it was made before.

    Args:
        kind: the folder in the cache.
        content: what it is made from.
        packages: the libraries that make it.
    """
    key = json.dumps([_code(), [version(package) for package in packages], content])
    note = cache() / kind / hashlib.sha256(key.encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        return json.loads(note.read_text(encoding="utf-8"))
    made = make()
    with contextlib.suppress(OSError):  # a home that cannot be written costs time, not correctness
        note.parent.mkdir(parents=True, exist_ok=True)
        write_json(note, made)
    return json.loads(json.dumps(made))


@lru_cache(maxsize=1)
def _code() -> str:
    """Digest the code of this package."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
