"""Why recipes have no score: DIR/failures, with a file for each such recipe."""

from __future__ import annotations

import dataclasses

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private, read_json_if_exists, write_json
from orchestrator.core.records import Failure
from orchestrator.results.layout import Layout


def write_failure(layout: Layout, failure: Failure) -> None:
    """Write why a recipe has no score, in place of an earlier reason."""
    file = layout.failure(failure.recipe_id)
    make_private(file.parent)
    write_json(file, dataclasses.asdict(failure))


def read_failures(layout: Layout) -> dict[str, Failure]:
    """Read all failures, by recipe id.

    Raises:
        UserError: a file is damaged.
    """
    found = {}
    for file in layout.failures():
        try:
            found[file.stem] = Failure(**read_json_if_exists(file))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{file}: is damaged ({error}); delete it, and `run` tries that recipe again") from None
    return found
