"""A Ray Tune trial: thin. It submits its candidate and passes the race scheduler's reports on, rung by rung.

The questions are answered by the pool, which the driver feeds (`tune.scheduler`). In a joint search a trial has its
candidate fine-tuned first. Trials hold no GPU and no CPU.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from typing import Any

import ray
from ray import tune as ray_tune

from cluster.training import Group, train_candidate
from orchestrator.core.records import Failure, RecipeStatus
from tasks.finetuning.run import Run

RungReport = dict[str, Any]
"""`rung`, `status`, `questions`, each objective's estimate; `done` in the last one."""


class Mailbox:
    """A Ray actor between the trials' processes and the driver: training runs in, candidates out, reports back."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.submitted: list[tuple[str, Failure | None]] = []
        self.reports: dict[str, asyncio.Queue[RungReport]] = defaultdict(asyncio.Queue)

    async def put_run(self, recipe_id: str, run: Run) -> None:
        """Leave a candidate's training run here before its trial starts: Ray Tune writes a trial's config to a folder,
        and examples may be patients'."""
        self.runs[recipe_id] = run

    async def get_run(self, recipe_id: str) -> Run | None:
        """A candidate's training run; None outside a joint search."""
        return self.runs.get(recipe_id)

    async def submit(self, recipe_id: str, failure: Failure | None) -> None:
        """Submit a candidate, or the failure of its fine-tuning."""
        self.submitted.append((recipe_id, failure))

    async def get_submitted(self) -> list[tuple[str, Failure | None]]:
        """The candidates submitted since the last call, each with the failure of its fine-tuning, if it failed."""
        submitted, self.submitted = self.submitted, []
        return submitted

    async def put_report(self, recipe_id: str, report: RungReport) -> None:
        """Leave a report for a candidate's trial."""
        self.reports[recipe_id].put_nowait(report)

    async def get_report(self, recipe_id: str) -> RungReport:
        """The next report for a candidate's trial; waits for it."""
        return await self.reports[recipe_id].get()


class CandidateTrial(ray_tune.Trainable):  # type: ignore[misc]
    """The trial of one candidate; its config has `recipe_id`, and `with_parameters` gives it the mailbox's handle and,
    in a joint search, the worker group that trains."""

    def setup(self, config: dict[str, Any], mailbox: Any = None, group: Group | None = None) -> None:
        self.recipe_id, self.mailbox, self.group = config["recipe_id"], mailbox, group
        self.submitted = False

    def step(self) -> RungReport:
        if not self.submitted:
            run = ray.get(self.mailbox.get_run.remote(self.recipe_id))
            failure = train_candidate(run, self.group) if run and self.group else None
            ray.get(self.mailbox.submit.remote(self.recipe_id, failure))
            self.submitted = True
        report: RungReport = dict(ray.get(self.mailbox.get_report.remote(self.recipe_id)))
        if report["status"] == RecipeStatus.STOPPED_EARLY:
            # Its answers stay; its weights make room for others.
            run = ray.get(self.mailbox.get_run.remote(self.recipe_id))
            shutil.rmtree(run.folder / "model", ignore_errors=True) if run else None
        return report

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True
