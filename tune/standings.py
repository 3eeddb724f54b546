"""The state of each recipe of a search: its status, its last rung and its scores there, and the evidence against it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.files import write_json
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Recipe
from orchestrator.stats.scores import Score
from tune.racing import Answers
from tune.space import Params


@dataclass
class Standing:
    """A recipe in the race."""

    recipe: Recipe
    params: Params | None
    """The point of the search space that it was proposed at."""
    number: int | None
    """Its place in the order of proposals, from 0; None for the grid and the parents."""
    status: RecipeStatus = RecipeStatus.PENDING
    """`PENDING` while its race is not over."""
    rung: int = -1
    """Index of the last rung that is answered."""
    answers: Answers = ()
    scores: dict[str, Score] = field(default_factory=dict)
    """Objective → score on that rung."""
    rivals: tuple[str, ...] | None = None
    """Recipe ids; chosen at the first decision, and kept."""
    evidence: float = 0.0
    """Log of the capital against it, at the last decision."""

    def save(self, folder: Path) -> None:
        """Write what cannot be derived from the ledger; `read_notes` reads it."""
        names = ("number", "params", "status", "rung", "rivals", "evidence")
        note = {name: getattr(self, name) for name in names}
        write_json(folder / f"{self.recipe.id}.json", note)


def parent_of(recipe: Recipe, name: str) -> bool:
    """Whether a recipe is the parent of this name."""
    return any(point.method == "parent" and dict(point.parameters)["name"] == name for point in recipe.points)


def read_notes(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the notes that `Standing.save` wrote, in the order of proposals.

    A status that is unknown here was written by an earlier version. Such a candidate is pending again from the first
    rung: its answers are in the ledger, so it is decided anew without another question.
    """
    notes = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    for note in notes:
        if note["status"] not in set(RecipeStatus):
            note |= {"status": RecipeStatus.PENDING, "rung": -1}
        note["status"] = RecipeStatus(note["status"])
    return sorted(notes, key=lambda note: int(note["number"]))
