"""The keys of a file of published figures (`report --beside`)."""

from __future__ import annotations

from pydantic import Field

from orchestrator.config.types import Strict


class Published(Strict):
    """Figures that others have published, which the report compares with a run's."""

    source: str = Field(min_length=1)
    """Where they were published: a paper, its table."""
    rows: dict[str, dict[str, float]] = Field(min_length=1)
    """Name of a recipe (as for `compare`) or of any other model → name of an objective → its value in the sweep's units
    (an accuracy lies in [0, 1])."""
