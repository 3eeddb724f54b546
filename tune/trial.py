"""A Ray Tune trial: thin. It hands its candidate in at the desk and passes on what it hears, rung by rung; who answers
is the pool, which the driver feeds (`tune.scheduler`). In a joint search it has its candidate trained first. Trials
hold no GPU and no CPU."""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from typing import Any

import ray
from ray import tune as ray_tune

from cluster.training import Group, train_candidate
from orchestrator.core.records import Failure
from tasks.finetuning.run import Run

Report = dict[str, Any]
"""`rung`, `status`, `questions`, each objective's estimate; `done` in the last one."""


class Desk:
    """A Ray actor between the trials' processes and the driver."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.entered: list[tuple[str, Failure | None]] = []
        self.reports: dict[str, asyncio.Queue[Report]] = defaultdict(asyncio.Queue)

    async def expect(self, recipe_id: str, run: Run) -> None:
        """Before the trial starts. Ray Tune writes its config to a folder, and examples may be patients'."""
        self.runs[recipe_id] = run

    async def run_of(self, recipe_id: str) -> Run | None:
        return self.runs.get(recipe_id)

    async def enter(self, recipe_id: str, failure: Failure | None) -> None:
        self.entered.append((recipe_id, failure))

    async def take(self) -> list[tuple[str, Failure | None]]:
        """Candidates that were handed in since the last call, and why one cannot be."""
        taken, self.entered = self.entered, []
        return taken

    async def tell(self, recipe_id: str, report: Report) -> None:
        self.reports[recipe_id].put_nowait(report)

    async def hear(self, recipe_id: str) -> Report:
        return await self.reports[recipe_id].get()


class Candidate(ray_tune.Trainable):  # type: ignore[misc]
    """config: `recipe_id`; `desk` (its handle) and `group` (of a joint search) by `with_parameters`."""

    def setup(self, config: dict[str, Any], desk: Any = None, group: Group | None = None) -> None:
        self.recipe_id, self.desk, self.group = config["recipe_id"], desk, group
        self.entered = False

    def step(self) -> Report:
        if not self.entered:
            run = ray.get(self.desk.run_of.remote(self.recipe_id))
            failure = train_candidate(run, self.group) if run and self.group else None
            ray.get(self.desk.enter.remote(self.recipe_id, failure))
            self.entered = True
        report: Report = dict(ray.get(self.desk.hear.remote(self.recipe_id)))
        if report["status"] == "raced":
            # Its answers stay; its weights make room for others.
            run = ray.get(self.desk.run_of.remote(self.recipe_id))
            shutil.rmtree(run.folder / "model", ignore_errors=True) if run else None
        return report

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True
