"""Where each recipe of a search stands: what it was asked, how it did, and whether it goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.files import write_json
from orchestrator.recipes.recipe import Recipe
from orchestrator.stats.scores import Score
from tune.racing import Answers
from tune.space import Params


@dataclass
class Standing:
    """A recipe in the race."""

    recipe: Recipe
    params: Params | None
    number: int | None
    """In the order of proposals; None for the grid and the parents."""
    status: str = "open"
    """`open`, `waiting` (the others go first), or what `tune.study.Told` says."""
    rung: int = -1
    """The last that is answered."""
    answers: Answers = ()
    scores: dict[str, Score] = field(default_factory=dict)
    rivals: tuple[str, ...] | None = None
    """Recipe ids; chosen when it comes, and kept."""
    evidence: float = 0.0
    """log capital against it, when it was last looked at."""

    def save(self, folder: Path) -> None:
        names = ("number", "params", "status", "rung", "rivals", "evidence")
        note = {name: getattr(self, name) for name in names}
        write_json(folder / f"{self.recipe.id}.json", note)


def parent_of(recipe: Recipe, name: str) -> bool:
    return any(point.method == "parent" and dict(point.parameters)["name"] == name for point in recipe.points)


def stored(folder: Path) -> list[dict[str, Any]]:
    """What `Standing.save` wrote, in the order of proposals."""
    notes = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    return sorted(notes, key=lambda note: int(note["number"]))
