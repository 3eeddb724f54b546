"""Why recipes have no score: DIR/failures, a file a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.errors import UserError
from orchestrator.core.records import Failure

if TYPE_CHECKING:
    pass


def failure_file(out: Path, recipe_id: str) -> Path:
    return out / "failures" / f"{recipe_id}.json"


def stored_failures(out: Path) -> dict[str, Failure]:
    """Recipe id → why it has no score.

    Raises:
        UserError: a file there is none of ours.
    """
    found = {}
    for file in sorted((out / "failures").glob("*.json")):
        try:
            found[file.stem] = Failure(**read_json_if_exists(file))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{file}: is damaged ({error}); delete it, and `run` finds out again") from None
    return found


def read_json_if_exists(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
