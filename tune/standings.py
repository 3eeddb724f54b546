"""The state of each recipe of a search: its status, its last rung and its scores there, and the evidence against it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.core.files import write_json
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Recipe, recipe_from_json, recipe_to_json
from orchestrator.stats.scores import Score
from tune.racing import Answers
from tune.space import Candidate, SearchSpace


@dataclass
class Standing:
    """A recipe in the race."""

    recipe: Recipe
    candidate: Candidate | None
    """What was proposed; None for the grid and the parents."""
    number: int | None
    """Its place in the order of proposals, from 0; None for the grid and the parents."""
    status: RecipeStatus = RecipeStatus.PENDING
    """`PENDING` while its race is not over."""
    rung: int = -1
    """Index of the last rung that is answered."""
    answers: Answers = ()
    scores: dict[str, Score] = field(default_factory=dict)
    """Objective → score on that rung."""
    strays: frozenset[str] = frozenset()
    """Objectives with values beyond what was known of their metrics."""
    evidence: float = 0.0
    """Log of the mean capital of the bets against it, at the last decision."""
    reason: str = ""
    """Why it has no score on the last rung that is answered."""

    def save(self, folder: Path) -> None:
        """Write what cannot be derived from the ledger; `read_standings` reads it."""
        assert self.candidate is not None, "only candidates are stored"
        names = ("number", "status", "rung", "evidence")
        note = {name: getattr(self, name) for name in names}
        proposed = {
            "params": self.candidate.params,
            "merge": recipe_to_json(self.candidate.merge),
            "finetune": self.candidate.finetune,
        }
        write_json(folder / f"{self.recipe.id}.json", {**proposed, **note})


def parent_of(recipe: Recipe, name: str) -> bool:
    """Whether a recipe is the parent of this name."""
    return any(point.method == "parent" and dict(point.parameters)["name"] == name for point in recipe.points)


def read_candidates(files: Sequence[Path], space: SearchSpace) -> tuple[list[Standing], int]:
    """Read the standings that `Standing.save` wrote, in the order of proposals, whatever the search space is now.

    Args:
        files: `layout.proposals()`.
        space: gives the models, and in a joint search the runs.

    Returns:
        The standings, and the number of candidates that are left out: their models have other weights now, or are
        gone, and the point that they were proposed at is not in the space.

    Raises:
        UserError: a file was written by an earlier version, which stored no merge, and the space has changed since.
    """
    notes = [(file, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    found = []
    for file, note in sorted(notes, key=lambda each: int(each[1]["number"])):
        candidate = _candidate(note, space)
        if candidate is None and "merge" not in note:
            raise UserError(
                f"{file} was proposed from another search.space than the present one, by a version that stored no "
                "more than its point; restore that search.space, or name a new --out"
            )
        if candidate is not None:
            recipe = space.recipe(candidate)
            found.append(Standing(recipe, candidate, **_state(note)))
    return found, len(notes) - len(found)


def _candidate(note: Mapping[str, Any], space: SearchSpace) -> Candidate | None:
    """The candidate of a file; over changed models, the candidate at the same point of the space."""
    stored = note.get("merge")
    merge = recipe_from_json(stored, space.sources) if stored else None
    if merge is not None and merge.dtype == space.config.dtype:
        return Candidate(note["params"], merge, note["finetune"])
    return space.candidate(note["params"]) if space.config.search and space.has(note["params"]) else None


def _state(note: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a candidate's race.

    A status that is unknown here was written by an earlier version. Such a candidate is pending again from the first
    rung: its answers are in the ledger, so it is decided anew without another question.
    """
    names = ("number", "status", "rung", "evidence")
    state = {name: note[name] for name in names if name in note}
    if state["status"] not in set(RecipeStatus):
        state |= {"status": RecipeStatus.PENDING, "rung": -1}
    return {**state, "status": RecipeStatus(state["status"])}
