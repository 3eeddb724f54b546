"""A run of fine-tuning: what a process needs to train it, and where its files are.

Nothing here needs torch or trl.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.recipes.recipe import Recipe
from orchestrator.recipes.tuning import RunFolder, Tuning
from tasks.finetuning.examples import Labelled


class Diverged(Exception):
    """The loss is not finite; the same run would end there again."""


class ExamplesChanged(Exception):
    """trl would train on other examples than it was given."""


@dataclass(frozen=True)
class Run:
    """One run, with its examples as tokens."""

    tuning: Tuning
    start: Path
    """A checkpoint folder."""
    folder: Path
    tokenizer: Path
    examples: tuple[Labelled, ...]
    dtype: str
    """Of the tuned weights."""
    save_steps: int
    """Optimiser steps from one checkpoint to the next."""
    gradient_checkpointing: bool = True
    general: tuple[Labelled, ...] = ()
    """ICFT's general instructions."""

    @property
    def files(self) -> RunFolder:
        """The files in its folder."""
        return RunFolder(self.folder)

    @property
    def is_finished(self) -> bool:
        """Whether it was trained to its end."""
        return self.files.is_finished

    @property
    def steps(self) -> int:
        """Optimiser steps from its start to its end."""
        return int(self.tuning.settings["steps"])

    @property
    def recipe(self) -> Recipe:
        """The tuned checkpoint, as a recipe."""
        return self.tuning.recipe(self.files.model, self.dtype)
