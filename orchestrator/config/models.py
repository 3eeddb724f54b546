"""The keys of an entry of `parents:` and `candidates:`: a model, and where it lies."""

from __future__ import annotations

from pydantic import Field

from orchestrator.config.types import Location, Strict


class Parent(Strict):
    model: Location = Field(min_length=1)
    """Hub id, a folder (relative ones are taken from the sweep file's folder), or s3://bucket/folder or gs://…, fetched
    once per node."""
    revision: str | None = None
    """Commit, tag or branch on the hub; pin a commit to get the same weights tomorrow."""
    lora: Location | None = None
    """A LoRA adapter to merge into the model first (mergekit's `model+lora`): as `model`."""
