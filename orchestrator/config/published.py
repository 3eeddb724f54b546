"""The keys of a file of published figures (`report --beside`)."""

from __future__ import annotations

from pydantic import Field

from orchestrator.config.types import Strict


class Published(Strict):
    """Figures that others have published, for the report to lay beside a run's."""

    source: str = Field(min_length=1)
    """Where they stand: a paper, its table."""
    rows: dict[str, dict[str, float]] = Field(min_length=1)
    """A recipe's name, as `compare` takes it, or any other → an objective's name → its value as the sweep counts it (an
    accuracy in [0, 1])."""
