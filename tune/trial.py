"""A Ray Tune trial: thin. It hands its candidate in at the desk and passes on what it hears, rung by rung; who answers
is the pool, which the driver feeds (`tune.referee`). Trials hold no GPU and no CPU."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import ray
from ray import tune as ray_tune

Report = dict[str, Any]
"""`rung`, `status`, `questions`, each objective's estimate; `done` in the last one."""


class Desk:
    """A Ray actor between the trials' processes and the driver."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.reports: dict[str, asyncio.Queue[Report]] = defaultdict(asyncio.Queue)

    async def enter(self, recipe_id: str) -> None:
        self.entered.append(recipe_id)

    async def take(self) -> list[str]:
        """Candidates that were handed in since the last call."""
        taken, self.entered = self.entered, []
        return taken

    async def tell(self, recipe_id: str, report: Report) -> None:
        self.reports[recipe_id].put_nowait(report)

    async def hear(self, recipe_id: str) -> Report:
        return await self.reports[recipe_id].get()


class Candidate(ray_tune.Trainable):  # type: ignore[misc]
    """config: `recipe_id`; `desk` (its handle) by `with_parameters`."""

    def setup(self, config: dict[str, Any], desk: Any = None) -> None:
        self.recipe_id, self.desk = config["recipe_id"], desk
        ray.get(self.desk.enter.remote(self.recipe_id))

    def step(self) -> Report:
        return dict(ray.get(self.desk.hear.remote(self.recipe_id)))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True
