"""The keys of `generation:`: data, tasks of the user's own, and BERTScore's encoder."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from orchestrator.config.types import Location, Name, Strict


class Encoder(Strict):
    """What BERTScore compares words with."""

    model: Location = Field(min_length=1)
    """As a parent's."""
    revision: str | None = None
    """As a parent's."""
    layer: int = Field(ge=1)
    """The layer whose output is compared; bert-score recommends 17 for roberta-large, 40 for deberta-xlarge-mnli."""


class OwnTask(Strict):
    """A generation task of the user's own."""

    file: str = Field(min_length=1)
    """JSON Lines, an object a line."""
    prompt: str
    """With {{input}} where the input goes."""
    input: str = "input"
    """The field with the input."""
    reference: str = "reference"
    """The field with the text to compare with."""
    train: str | None = None
    """JSON Lines with the same fields: the examples that `finetune` may learn from."""
    truncate: Literal["left", "right"] = "right"
    """The side that an input loses where the prompt is too long."""

    @model_validator(mode="after")
    def _names_input(self) -> OwnTask:
        if not re.search(r"\{\{\s*input\s*\}\}", self.prompt):
            raise ValueError("prompt has no {{input}}; write it where the input goes")
        return self


PAPER_SEQUENCES = 16
"""`max_num_seqs` of sweeps with generation tasks that do not say another."""


class Generation(Strict):
    """What the generation tasks need besides their names in `objectives`."""

    data: dict[str, str] = {}
    """Clinical task (clinical_mts_dialog, …) → the folder with its data set's own files."""
    own: dict[Name, OwnTask] = {}
    """Tasks of your own, by the name that `objectives` calls them."""
    encoder: Encoder | None = None
    """BERTScore's; the metrics `bertscore` and `composite` need one."""
