"""A Ray Tune trial, which submits its candidate and forwards the race scheduler's reports, rung by rung.

The questions are answered by the pool, which the driver feeds (`tune.scheduler`). In a joint search a trial has its
candidate fine-tuned first. Trials reserve no GPU and no CPU.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from typing import Any

import ray
from ray import tune as ray_tune

from cluster.errors import RemoteError
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
        """Leave a candidate's training run here before its trial starts.

        It is no part of the trial's config, because Ray Tune writes that to a folder, and examples may be patients'.
        """
        self.runs[recipe_id] = run

    async def get_run(self, recipe_id: str) -> Run | None:
        """Return a candidate's training run; None outside a joint search."""
        return self.runs.get(recipe_id)

    async def submit(self, recipe_id: str, failure: Failure | None) -> None:
        """Submit a candidate, or the failure of its fine-tuning."""
        self.submitted.append((recipe_id, failure))

    async def get_submitted(self) -> list[tuple[str, Failure | None]]:
        """Return the candidates submitted since the last call, each with the failure of its fine-tuning, if any."""
        submitted, self.submitted = self.submitted, []
        return submitted

    async def put_report(self, recipe_id: str, report: RungReport) -> None:
        """Leave a report for a candidate's trial."""
        self.reports[recipe_id].put_nowait(report)

    async def get_report(self, recipe_id: str) -> RungReport:
        """Wait for the next report for a candidate's trial, and return it."""
        return await self.reports[recipe_id].get()


def _train(run: Run, group: Group) -> Failure | None:
    """Fine-tune a candidate; whatever goes wrong is its failure, as Ray Tune would drop the reason with the trial."""
    try:
        return train_candidate(run, group)
    except Exception as error:
        known = RemoteError.of(error)
        return Failure(run.recipe.id, "failed", "train", str(known), known.detail)


class CandidateTrial(ray_tune.Trainable):  # type: ignore[misc]
    """The trial of one candidate.

    Its config has `recipe_id`; `with_parameters` gives it the mailbox's handle and, in a joint search, the worker group
    that trains.
    """

    def setup(self, config: dict[str, Any], mailbox: Any = None, group: Group | None = None) -> None:
        """Set the candidate that this actor works for."""
        self.recipe_id, self.mailbox, self.group = config["recipe_id"], mailbox, group
        self.submitted = False

    def step(self) -> RungReport:
        """Wait for the next report, and return it; the first step submits the candidate.

        Where the candidate is stopped early, the weights that its fine-tuning made are removed.
        """
        if not self.submitted:
            run = ray.get(self.mailbox.get_run.remote(self.recipe_id))
            failure = _train(run, self.group) if run and self.group else None
            ray.get(self.mailbox.submit.remote(self.recipe_id, failure))
            self.submitted = True
        report: RungReport = dict(ray.get(self.mailbox.get_report.remote(self.recipe_id)))
        if report["status"] == RecipeStatus.STOPPED_EARLY:
            # Its answers stay; its weights make room for others.
            run = ray.get(self.mailbox.get_run.remote(self.recipe_id))
            shutil.rmtree(run.files.model, ignore_errors=True) if run else None
        return report

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Set another candidate, and return True: the actor is used again (`reuse_actors`)."""
        self.setup(new_config)
        return True
