"""The race scheduler: evaluates each candidate rung by rung, and stops it early when it is beaten.

It runs in a thread of the driver, between the mailbox, through which trials submit their candidates, and the pool,
whose workers answer the questions. It alone reads scores and decides. The ledger stays the truth: a rung that is
answered already costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.pool import Pool
from orchestrator.config.search import Search
from orchestrator.config.workers import Workers
from orchestrator.core.records import Answered, Failure, RecipeStatus
from orchestrator.ledger.ledger import COSTS, Ledger
from orchestrator.recipes.recipe import Recipe
from orchestrator.stats.estimates import Floats
from orchestrator.stats.front import pareto_front
from tasks.evaluation.judge import NoScore
from tasks.evaluation.ledger_lm import LedgerLM
from tune.racing import DEFER_ABOVE, RaceTest
from tune.rungs import Rungs
from tune.standings import Standing, parent_of
from tune.study import TrialResult

TICK = 0.05
"""Seconds between two checks of the mailbox."""


@dataclass
class RaceScheduler:
    """The race of a search: its budget, its decisions, and the standings of all recipes."""

    search: Search
    workers: Workers
    rungs: Rungs
    lm: LedgerLM
    ledger: Ledger
    folder: Path
    """DIR/search/candidates."""
    standings: dict[str, Standing]
    """Recipe id → standing; of the grid, the parents and all proposals."""
    record: Callable[[Answered | Failure | None], None]
    """Stores the answers to a block, or its failure."""
    log: Callable[[str], None]
    closed: bool = False
    """No candidate will be submitted any more."""
    _under_way: dict[str, int] = field(default_factory=dict)
    """Recipe id → number of its questions under way (a block may come back in parts)."""

    @property
    def proposals(self) -> list[Standing]:
        """The standings of the search's own candidates, in the order of their proposal."""
        found = [standing for standing in list(self.standings.values()) if standing.number is not None]
        return sorted(found, key=lambda standing: standing.number or 0)

    @property
    def next_number(self) -> int:
        """The number of the next proposal."""
        return 1 + max((standing.number or 0 for standing in self.proposals), default=-1)

    def point(self, standing: Standing) -> Floats:
        """A recipe's scores on the last rung that is answered, to be maximised; shape (objectives,)."""
        return np.array([axis.sign * standing.scores[name].value for name, axis in self.rungs.axes.items()])

    def front_of(self, standings: Iterable[Standing]) -> list[Standing]:
        """List the recipes that no other dominates, by their scores on the last rung that is answered."""
        found = {each.recipe.id: each for each in standings}
        return [found[key] for key in pareto_front({key: self.point(each) for key, each in found.items()})]

    # ---------------------------------------------------------------- the budget, read off the ledger
    @property
    def spent(self) -> dict[str, float]:
        """What the proposals have cost so far, in the units of the budget."""
        ids = [standing.recipe.id for standing in self.proposals]
        seconds = sum(sum(self.ledger.costs(key)[cost] for cost in COSTS) for key in ids)
        return {
            "candidates": len(ids),
            "questions": sum(map(self.answered, ids)),
            "gpu_hours": self.workers.gpu_hours(seconds),
        }

    def answered(self, recipe_id: str) -> int:
        """Count the questions of the search that a recipe has answered.

        A finalist has answers to the held-out questions too, in the same ledger, and all of the search's.
        """
        return min(self.ledger.count(recipe_id), self.rungs.rungs[-1].size)

    @property
    def can_finish_deferred(self) -> bool:
        """Whether the budget leaves room to evaluate deferred candidates on the remaining questions."""
        return not self._reached("questions", "gpu_hours")

    @property
    def exhausted(self) -> bool:
        """Whether the budget leaves no room for another candidate."""
        return self._reached("candidates", "questions", "gpu_hours")

    def _reached(self, *names: str) -> bool:
        """Whether one of these limits of the budget is reached."""
        spent, budget = self.spent, self.search.budget.model_dump(exclude_none=True)
        return any(spent[name] >= budget[name] for name in names if name in budget)

    @property
    def candidates(self) -> int:
        """The largest number of recipes that the race may see."""
        known = len(self.standings) - len(self.proposals)
        return known + self.search.budget.at_most(self.rungs.rungs[0].size, known)

    # ---------------------------------------------------------------- the work
    def work(self, pool: Pool, mailbox: Any, stop: Callable[[], bool]) -> None:
        """Evaluate what trials submit, until the search is closed and nothing is under way any more.

        Args:
            mailbox: the handle of a `tune.trial.Mailbox`.
            stop: once true, nothing more is evaluated; what is under way is stored.
        """

        def advance(recipe_id: str) -> None:
            for report in self.advance(self.standings[recipe_id], pool):
                mailbox.put_report.remote(recipe_id, report)

        for result in pool.run(Recipes(self.standings), [], stop, lambda: not self.closed, TICK):
            for recipe_id, failure in ray.get(mailbox.get_submitted.remote()):
                if failure is not None:  # its fine-tuning did not succeed
                    self.record(failure)
                    self.standings[recipe_id].status = RecipeStatus(failure.status)
                if recipe_id not in self._under_way:
                    advance(recipe_id)
            if result is not None and self.receive(result):
                advance(result_id(result))

    def finish(self, pool: Pool, stop: Callable[[], bool]) -> None:
        """Evaluate the deferred candidates on the remaining questions, the most promising first, within the budget."""
        deferred = [standing for standing in self.proposals if standing.status == RecipeStatus.DEFERRED]
        for standing in sorted(deferred, key=lambda each: each.evidence):
            if stop() or not self.can_finish_deferred:
                return
            standing.status = RecipeStatus.PENDING
            self.advance(standing, pool, defer_above=np.inf)
            for result in pool.run(Recipes(self.standings), [], stop):
                if result is not None and self.receive(result):
                    self.advance(standing, pool, defer_above=np.inf)

    def receive(self, result: Answered | Failure) -> bool:
        """Store an answered block, and return whether it was the last of its recipe under way."""
        self.record(result)
        recipe_id = result_id(result)
        if recipe_id not in self._under_way:
            return False  # another block of a recipe that has failed in the meantime
        if isinstance(result, Failure):
            self.standings[recipe_id].status = RecipeStatus(result.status)
            self._under_way[recipe_id] = 0
        else:
            self._under_way[recipe_id] -= len(result.block.questions)
        if self._under_way[recipe_id] == 0:
            del self._under_way[recipe_id]
        return recipe_id not in self._under_way

    def advance(self, standing: Standing, pool: Pool, defer_above: float = DEFER_ABOVE) -> list[dict[str, Any]]:
        """Read the rungs that are answered, decide, and send the next rung's new questions to the pool, if any.

        Returns:
            A report for each rung that was read.
        """
        reports: list[dict[str, Any]] = []
        while standing.status == RecipeStatus.PENDING:
            blocks = self.ledger.missing(
                standing.recipe.id, self.rungs.rungs[standing.rung + 1].questions, self.workers
            )
            if blocks:
                self._under_way[standing.recipe.id] = sum(len(block.questions) for block in blocks)
                pool.add(blocks)
                return reports
            self.read(standing, standing.rung + 1)
            if standing.answers:  # a metric that is undefined on some of the questions may be defined on more
                self.decide(standing, defer_above)
            reports.append(self._report(standing))
        standing.save(self.folder)
        self.log(
            f"candidate {standing.number}: {standing.status} after {standing.rung + 1} of {len(self.rungs.rungs)} rungs"
        )
        return reports or [self._report(standing)]

    def read(self, standing: Standing, rung: int) -> None:
        """Read a recipe's values and scores on a rung from the ledger, which has all its answers.

        On the last rung a recipe without a score is unscored for good; before, it has no values yet.
        """
        lm = self.lm.knowing(self.ledger.answers(standing.recipe.id))
        standing.rung, standing.reason = rung, ""
        try:
            standing.answers, standing.scores, standing.strays = self.rungs.read(lm, rung)
        except NoScore as error:
            standing.answers, standing.scores, standing.reason = (), {}, str(error)
            if rung == len(self.rungs.rungs) - 1:
                standing.status = RecipeStatus.UNSCORED

    def decide(self, standing: Standing, defer_above: float) -> None:
        """Set the status that follows from the last rung: scored, stopped early, deferred, or still pending."""
        if standing.rung == len(self.rungs.rungs) - 1:
            standing.status = RecipeStatus.SCORED
            return
        known = list(self.standings.values())
        # A rival that a guard rules out takes no candidate off the front; one that breaks an axis's constraint and
        # still beats a candidate everywhere shows that the candidate breaks it too.
        scored = [each for each in known if each.status == RecipeStatus.SCORED and self._passes_guards(each)]
        grid = self.front_of(each for each in scored if each.number is None)
        found = [each for each in self.front_of(scored) if each.number is not None]
        if not grid:
            return  # the guards rule out every recipe that it could be beaten by
        test = self.test()
        capitals = test.capitals(standing.answers, [each.answers for each in (*grid, *found)])
        standing.evidence = float(np.logaddexp.reduce(capitals) - np.log(len(capitals)))
        stopped = sum(each.status == RecipeStatus.STOPPED_EARLY for each in known)
        if test.beaten(capitals[: len(grid)], capitals[len(grid) :], stopped):
            standing.status = RecipeStatus.STOPPED_EARLY
        elif standing.evidence >= defer_above:
            standing.status = RecipeStatus.DEFERRED

    def test(self) -> RaceTest:
        """Make the race's test; where nothing is known that bounds a metric, with the differences that were seen."""
        draws = tuple(
            replace(each, tops=np.full(len(each.tops), np.inf)) if name in self.unbounded else each
            for name, each in zip(self.rungs.objectives, self.rungs.order.draws, strict=True)
        )
        spreads = tuple(0.0 if each.is_bounded else self._spread(k) for k, each in enumerate(draws))
        return RaceTest(draws, spreads, self.search.racing.alpha, self.candidates)

    @property
    def unbounded(self) -> dict[str, str]:
        """Objective → why the race guarantees nothing there."""
        strays = {name for each in list(self.standings.values()) for name in each.strays}
        found = dict.fromkeys(sorted(strays), "values were met that are not as its metrics' range says")
        return {**found, **self.rungs.unbounded}

    def _spread(self, objective: int) -> float:
        """The largest difference of two recipes' values of a draw, over its weight."""
        weights = self.rungs.order.draws[objective].weights
        low, high = np.full(len(weights), np.inf), np.full(len(weights), -np.inf)
        for standing in list(self.standings.values()):
            if standing.answers:
                values = standing.answers[objective]
                n = len(values)
                low[:n], high[:n] = np.minimum(low[:n], values), np.maximum(high[:n], values)
        return float(np.max(np.where(high >= low, high - low, 0) / weights))

    # ---------------------------------------------------------------- results
    def result_of(self, standing: Standing) -> TrialResult:
        """Return a recipe's result, for the study."""
        if not standing.scores or standing.status in (RecipeStatus.INVALID, RecipeStatus.FAILED, RecipeStatus.UNSCORED):
            return TrialResult(standing.status, notes={"recipe_id": standing.recipe.id})
        values = {name: score.value for name, score in standing.scores.items()}
        axes = tuple(values[name] for name in self.rungs.axes)
        part = standing.status != RecipeStatus.SCORED
        notes = {"recipe_id": standing.recipe.id, "questions": self.rungs.rungs[standing.rung].size, "part": part}
        return TrialResult(standing.status, axes, self._constraints(values), notes)

    def _constraints(self, values: Mapping[str, float]) -> dict[str, float]:
        """Constraint → how far the objective falls short of it; 0 or less where it is kept."""
        found = {}
        for name, floor in self.search.constraints.items():
            sign = self.rungs.scored[name].sign
            limit = floor.score or 0.0
            if floor.parent is not None:
                parents = (s for s in self.standings.values() if parent_of(s.recipe, floor.parent or ""))
                limit = floor.factor(sign) * next(parents).scores[name].value
            found[floor.words(name, sign)] = sign * (limit - values[name])
        return found

    def feasible(self, standing: Standing) -> bool:
        """Whether a recipe keeps the constraints, by its scores on the last rung that is answered."""
        values = {name: score.value for name, score in standing.scores.items()}
        return all(shortfall <= 0 for shortfall in self._constraints(values).values())

    def _passes_guards(self, standing: Standing) -> bool:
        values = {name: score.value for name, score in standing.scores.items()}
        guards = {self.search.constraints[name].words(name, each.sign) for name, each in self.rungs.guards.items()}
        return all(shortfall <= 0 for words, shortfall in self._constraints(values).items() if words in guards)

    def _report(self, standing: Standing) -> dict[str, Any]:
        values = {name: score.value for name, score in standing.scores.items()}
        return {
            "rung": standing.rung,
            "status": str(standing.status),
            "done": standing.status != RecipeStatus.PENDING,
            "questions": self.answered(standing.recipe.id),
            **values,
        }


class Recipes(Mapping[str, Recipe]):
    """The recipes of the standings, which grow while the pool works."""

    def __init__(self, standings: dict[str, Standing]) -> None:
        self.standings = standings

    def __getitem__(self, recipe_id: str) -> Recipe:
        return self.standings[recipe_id].recipe

    def __iter__(self) -> Any:
        return iter(list(self.standings))

    def __len__(self) -> int:
        return len(self.standings)


def result_id(result: Answered | Failure) -> str:
    """Return the id of the recipe that a result of the pool belongs to."""
    return result.block.recipe_id if isinstance(result, Answered) else result.recipe_id
