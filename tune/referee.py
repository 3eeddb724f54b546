"""The referee: gives each candidate rung after rung, and ends its race when it is beaten.

It runs in a thread of the driver, between the desk, where trials hand candidates in, and the pool, which answers. It
alone reads scores and decides; the ledger stays the truth, and a rung that is answered already costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.pool import Pool
from orchestrator.files import write_json
from orchestrator.ledger import COSTS, Ledger
from orchestrator.recipe import Recipe
from orchestrator.records import Asked, Failure
from orchestrator.scores import Score
from orchestrator.searchconfig import Search
from tasks.scoring import LedgerLM
from tune.racing import Answers, Race
from tune.rungs import Rungs
from tune.space import Params
from tune.study import Told

TICK = 0.05
"""Seconds between two looks at the desk."""


@dataclass
class Standing:
    """A recipe in the race."""

    recipe: Recipe
    params: Params | None
    number: int | None
    """In the order of proposals; None for the grid and the parents."""
    status: str = "open"
    """`open`, or what `tune.study.Told` says."""
    rung: int = -1
    """The last that is answered."""
    answers: Answers = ()
    scores: dict[str, Score] = field(default_factory=dict)
    evidence: float = 0.0
    """log capital against it, when it was last looked at."""

    def save(self, folder: Path) -> None:
        note = {"number": self.number, "params": self.params, "status": self.status, "rung": self.rung}
        write_json(folder / f"{self.recipe.id}.json", note)


@dataclass
class Referee:
    search: Search
    block: int
    gpus: float
    rungs: Rungs
    lm: LedgerLM
    ledger: Ledger
    folder: Path
    """DIR/search/candidates."""
    standings: dict[str, Standing]
    keep: Callable[[Asked | Failure | None], None]
    """Stores what came of a block."""
    tell: Callable[[str], None]
    closed: bool = False
    """No candidate will be handed in any more."""
    _waiting: dict[str, int] = field(default_factory=dict)
    """Recipe → blocks under way."""

    @property
    def proposals(self) -> list[Standing]:
        found = [standing for standing in list(self.standings.values()) if standing.number is not None]
        return sorted(found, key=lambda standing: standing.number or 0)

    @property
    def racers(self) -> dict[str, Answers]:
        return {key: each.answers for key, each in list(self.standings.items()) if each.answers}

    # ---------------------------------------------------------------- the budget, read off the ledger
    @property
    def spent(self) -> dict[str, float]:
        """What the proposals cost so far."""
        ids = [standing.recipe.id for standing in self.proposals]
        seconds = sum(sum(self.ledger.costs(key)[cost] for cost in COSTS) for key in ids)
        return {
            "candidates": len(ids),
            "questions": sum(len(self.ledger.answers(key)) for key in ids),
            "gpu_hours": seconds * (self.gpus or 1) / 3600,
        }

    @property
    def exhausted(self) -> bool:
        budget = self.search.budget.model_dump(exclude_none=True)
        return any(self.spent[key] >= limit for key, limit in budget.items())

    @property
    def candidates(self) -> int:
        """How many recipes the race may see at most."""
        budget, rung = self.search.budget, self.rungs.rungs[0].asked
        limits = [budget.candidates, budget.questions and -(-budget.questions // rung)]
        known = [limit for limit in limits if limit]
        return len(self.standings) - len(self.proposals) + (min(known) if known else 10 * len(self.standings))

    # ---------------------------------------------------------------- the work
    def work(self, pool: Pool, desk: Any) -> None:
        """Until `closed`, and nothing is under way any more."""
        for result in pool.run(Recipes(self.standings), [], more=lambda: not self.closed, tick=TICK):
            self.receive(result)
            for recipe_id in ray.get(desk.take.remote()):
                if recipe_id not in self._waiting:
                    self.advance(recipe_id, pool, desk)
            if isinstance(result, Asked | Failure) and not self._waiting.get(result_id(result), 1):
                del self._waiting[result_id(result)]
                self.advance(result_id(result), pool, desk)

    def receive(self, result: Asked | Failure | None) -> None:
        """Keep an answered block; a failure ends its recipe's race."""
        self.keep(result)
        if isinstance(result, Failure):
            self.standings[result.recipe_id].status = result.status
            self._waiting[result.recipe_id] = 0
        elif isinstance(result, Asked):
            self._waiting[result_id(result)] = self._waiting.get(result_id(result), 1) - 1

    def advance(self, recipe_id: str, pool: Pool, desk: Any) -> None:
        """Tell what is answered, and ask the next rung's new questions, if there is a next rung."""
        standing = self.standings[recipe_id]
        while standing.status == "open":
            blocks = self.ledger.missing(recipe_id, self.rungs.rungs[standing.rung + 1].questions, self.block)
            if blocks:
                self._waiting[recipe_id] = len(blocks)
                pool.add(blocks)
                return
            self.read(standing, standing.rung + 1)
            self.decide(standing)
            if standing.status == "open":
                desk.tell.remote(recipe_id, self._report(standing))
        standing.save(self.folder)
        if standing.status != "scored":
            told = "raced out" if standing.status == "raced" else standing.status
            self.tell(f"candidate {standing.number}: {told} after rung {standing.rung + 1} of {len(self.rungs.rungs)}")
        desk.tell.remote(recipe_id, self._report(standing))

    def read(self, standing: Standing, rung: int) -> None:
        """Scores from the ledger."""
        lm = self.lm.knowing(self.ledger.answers(standing.recipe.id))
        standing.answers, standing.scores = self.rungs.read(lm, rung)
        standing.rung = rung

    def decide(self, standing: Standing) -> None:
        if standing.rung == len(self.rungs.rungs) - 1:
            standing.status = "scored"
            return
        standing.evidence = self.race().evidence(standing.recipe.id, self.racers)
        if standing.recipe.id in self.race().decide({key: s.evidence for key, s in self.standings.items() if s.answers}):
            standing.status = "raced"

    def race(self) -> Race:
        """With the differences that were seen so far as bounds."""
        racers = list(self.racers.values())
        bounds = []
        for k, total in enumerate(self.rungs.documents(-1)):
            low, high = np.full(total, np.inf), np.full(total, -np.inf)
            for answers in racers:
                n = len(answers[k])
                low[:n], high[:n] = np.minimum(low[:n], answers[k]), np.maximum(high[:n], answers[k])
            bounds.append(float(np.max(np.where(high >= low, high - low, 0))))
        alpha = self.search.racing.alpha
        return Race(self.rungs.documents(-1), tuple(bounds), self.rungs.documents(0), alpha, self.candidates)

    # ---------------------------------------------------------------- what others are told
    def told(self, standing: Standing) -> Told:
        """For the study."""
        if not standing.scores or standing.status in ("invalid", "failed"):
            return Told(standing.status, notes={"recipe_id": standing.recipe.id})
        values = {name: score.value for name, score in standing.scores.items()}
        asked = sum(len(answers) for answers in standing.answers)
        notes = {"recipe_id": standing.recipe.id, "documents": asked, "raced_out": standing.status == "raced"}
        return Told(standing.status, tuple(values.values()), self._constraints(values), notes)

    def _constraints(self, values: Mapping[str, float]) -> dict[str, float]:
        """Above 0 by as much as the objective lacks."""
        found = {}
        for name, floor in self.search.constraints.items():
            parents = (s for s in self.standings.values() if parent_of(s.recipe, floor.parent))
            reached = next(parents).scores[name].value
            maximize = self.rungs.config.objectives[name].direction == "maximize"
            lacks = floor.share * reached - values[name] if maximize else values[name] - reached / floor.share
            found[f"{name} at least {floor.share:g} of {floor.parent}"] = lacks
        return found

    def _report(self, standing: Standing) -> dict[str, Any]:
        values = {name: score.value for name, score in standing.scores.items()}
        return {
            "rung": standing.rung,
            "status": standing.status,
            "done": standing.status != "open",
            "questions": len(self.ledger.answers(standing.recipe.id)),
            **values,
        }


class Recipes(Mapping[str, Recipe]):
    """The pool's view of the standings, which grow while it works."""

    def __init__(self, standings: dict[str, Standing]) -> None:
        self.standings = standings

    def __getitem__(self, recipe_id: str) -> Recipe:
        return self.standings[recipe_id].recipe

    def __iter__(self) -> Any:
        return iter(list(self.standings))

    def __len__(self) -> int:
        return len(self.standings)


def result_id(result: Asked | Failure) -> str:
    return result.block.recipe_id if isinstance(result, Asked) else result.recipe_id


def parent_of(recipe: Recipe, name: str) -> bool:
    return any(point.method == "parent" and dict(point.parameters)["name"] == name for point in recipe.points)


def stored(folder: Path) -> list[dict[str, Any]]:
    """What `Standing.save` wrote, in the order of proposals."""
    notes = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    return sorted(notes, key=lambda note: int(note["number"]))
