"""The keys of an entry of `parents:` and `candidates:`: a model, and where its files are."""

from __future__ import annotations

from pydantic import Field

from orchestrator.config.types import Location, Strict


class Parent(Strict):
    """A model on the hub, in a folder or in object storage."""

    model: Location = Field(min_length=1)
    """Hub id, folder (relative to the sweep file's) or address (s3://bucket/folder, gs://…); fetched once per node."""
    revision: str | None = None
    """Commit, tag or branch on the hub; name a commit, so that the weights cannot change."""
    lora: Location | None = None
    """A LoRA adapter that is merged into the model first (mergekit's `model+lora`); written as `model`."""
