"""A run of fine-tuning with everything that it learns from; importing it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.recipes.recipe import Recipe
from orchestrator.recipes.tuning import Tuning
from tasks.finetuning.examples import Labelled


@dataclass(frozen=True)
class Run:
    """One run of fine-tuning: what `tasks.finetuning.train.train` needs to make its checkpoint."""

    tuning: Tuning
    start: Path
    """A checkpoint folder."""
    folder: Path
    tokenizer: Path
    examples: tuple[Labelled, ...]
    dtype: str
    """Of the fine-tuned weights."""
    save_steps: int
    gradient_checkpointing: bool = True
    general: tuple[Labelled, ...] = ()
    """ICFT's general instructions."""

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def recipe(self) -> Recipe:
        """The fine-tuned checkpoint, as a recipe."""
        return self.tuning.recipe(self.folder / "model", self.dtype)
