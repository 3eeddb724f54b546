"""The referee: gives each candidate rung after rung, and ends its race when it is beaten.

It runs in a thread of the driver, between the desk, where trials hand candidates in, and the pool, which answers. It
alone reads scores and decides; the ledger stays the truth, and a rung that is answered already costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.pool import Pool
from orchestrator.config.search import Search
from orchestrator.config.workers import Workers
from orchestrator.core.records import Asked, Failure
from orchestrator.ledger.ledger import COSTS, Ledger
from orchestrator.recipes.recipe import Recipe
from tasks.evaluation.ledger_lm import LedgerLM
from tune.racing import PARK, Answers, Race, front_of
from tune.rungs import Rungs
from tune.standings import Standing, parent_of
from tune.study import Told

TICK = 0.05
"""Seconds between two looks at the desk."""


@dataclass
class Referee:
    search: Search
    workers: Workers
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
    _under_way: dict[str, int] = field(default_factory=dict)
    """Recipe → questions under way (a block may come back in parts)."""

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
            "questions": sum(self.ledger.count(key) for key in ids),
            "gpu_hours": self.workers.gpu_hours(seconds),
        }

    @property
    def exhausted(self) -> bool:
        return any(self.spent[key] >= limit for key, limit in self._limits(("candidates", "questions", "gpu_hours")))

    def _limits(self, names: Sequence[str]) -> list[tuple[str, float]]:
        budget = self.search.budget.model_dump(exclude_none=True)
        return [(name, budget[name]) for name in names if name in budget]

    @property
    def candidates(self) -> int:
        """How many recipes the race may see at most."""
        known = len(self.standings) - len(self.proposals)
        return known + self.search.budget.at_most(self.rungs.rungs[0].asked, known)

    # ---------------------------------------------------------------- the work
    def work(self, pool: Pool, desk: Any) -> None:
        """Until `closed`, and nothing is under way any more."""
        for result in pool.run(Recipes(self.standings), [], more=lambda: not self.closed, tick=TICK):
            for recipe_id, failure in ray.get(desk.take.remote()):
                if failure is not None:  # it could not be trained
                    self.keep(failure)
                    self.standings[recipe_id].status = failure.status
                if recipe_id not in self._under_way:
                    self._tell(desk, recipe_id, self.advance(self.standings[recipe_id], pool))
            if result is not None and self.receive(result):
                recipe_id = result_id(result)
                self._tell(desk, recipe_id, self.advance(self.standings[recipe_id], pool))

    def finish(self, pool: Pool) -> None:
        """Ask those that wait the rest, the likeliest first, as long as the budget lasts."""
        waiting = sorted((s for s in self.proposals if s.status == "waiting"), key=lambda s: s.evidence)
        for standing in waiting:
            if any(self.spent[key] >= limit for key, limit in self._limits(("questions", "gpu_hours"))):
                return
            standing.status = "open"
            self.advance(standing, pool, park=np.inf)
            for result in pool.run(Recipes(self.standings), []):
                if result is not None and self.receive(result):
                    self.advance(standing, pool, park=np.inf)

    def receive(self, result: Asked | Failure) -> bool:
        """Keep an answered block. Returns whether it was the last of its recipe under way."""
        self.keep(result)
        recipe_id = result_id(result)
        if recipe_id not in self._under_way:
            return False  # another block of a recipe that has failed meanwhile
        if isinstance(result, Failure):
            self.standings[recipe_id].status = result.status
            self._under_way[recipe_id] = 0
        else:
            self._under_way[recipe_id] -= len(result.block.questions)
        if self._under_way[recipe_id] == 0:
            del self._under_way[recipe_id]
        return recipe_id not in self._under_way

    def advance(self, standing: Standing, pool: Pool, park: float = PARK) -> list[dict[str, Any]]:
        """Read what is answered, decide, and ask the next rung's new questions, if there is a next rung.

        Returns:
            A report for each rung that was read.
        """
        reports: list[dict[str, Any]] = []
        while standing.status == "open":
            blocks = self.ledger.missing(
                standing.recipe.id, self.rungs.rungs[standing.rung + 1].questions, self.workers
            )
            if blocks:
                self._under_way[standing.recipe.id] = sum(len(block.questions) for block in blocks)
                pool.add(blocks)
                return reports
            self.read(standing, standing.rung + 1)
            self.decide(standing, park)
            reports.append(self._report(standing))
        standing.save(self.folder)
        self.tell(
            f"candidate {standing.number}: {standing.status} after {standing.rung + 1} of {len(self.rungs.rungs)} rungs"
        )
        return reports or [self._report(standing)]

    @staticmethod
    def _tell(desk: Any, recipe_id: str, reports: list[dict[str, Any]]) -> None:
        for report in reports:
            desk.tell.remote(recipe_id, report)

    def read(self, standing: Standing, rung: int) -> None:
        """Scores from the ledger."""
        lm = self.lm.knowing(self.ledger.answers(standing.recipe.id))
        standing.answers, standing.scores = self.rungs.read(lm, rung)
        standing.rung = rung

    def decide(self, standing: Standing, park: float) -> None:
        """Whether it goes on: to the end, out, or, where a rival seems to beat it, behind the others."""
        full = {key: each.answers for key, each in list(self.standings.items()) if each.status == "scored"}
        if standing.rivals is None:
            standing.rivals = tuple(front_of(full))
        if standing.rung == len(self.rungs.rungs) - 1:
            standing.status = "scored"
            return
        race = self.race()
        standing.evidence = race.evidence(standing.answers, [full[key] for key in standing.rivals if key in full])
        others = [each.evidence for each in list(self.standings.values()) if each is not standing]
        if race.beaten(standing.evidence, others):
            standing.status = "raced"
        elif standing.evidence >= park:
            standing.status = "waiting"

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
        return Race(self.rungs.documents(-1), tuple(bounds), alpha, self.candidates)

    # ---------------------------------------------------------------- what others are told
    def told(self, standing: Standing) -> Told:
        """For the study."""
        if not standing.scores or standing.status in ("invalid", "failed"):
            return Told(standing.status, notes={"recipe_id": standing.recipe.id})
        values = {name: score.value for name, score in standing.scores.items()}
        asked = sum(len(answers) for answers in standing.answers)
        notes = {"recipe_id": standing.recipe.id, "documents": asked, "part": standing.status != "scored"}
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

    def feasible(self, standing: Standing) -> bool:
        """Whether it keeps the constraints, by what it was asked."""
        values = {name: score.value for name, score in standing.scores.items()}
        return all(lacks <= 0 for lacks in self._constraints(values).values())

    def _report(self, standing: Standing) -> dict[str, Any]:
        values = {name: score.value for name, score in standing.scores.items()}
        return {
            "rung": standing.rung,
            "status": standing.status,
            "done": standing.status != "open",
            "questions": self.ledger.count(standing.recipe.id),
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
