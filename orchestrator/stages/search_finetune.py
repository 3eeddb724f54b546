"""A joint search: each candidate is a merge that is fine-tuned, and the search is over both.

Its learning task is an objective like the others, and the grid is evaluated on it too, without fine-tuning. A candidate
is trained by the same code as the runs of `finetune:`, and its checkpoint is a recipe again.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.training import Group
from orchestrator.core.files import make_private
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Recipe
from orchestrator.recipes.tuning import Tuning, settings
from orchestrator.stages.compute import finetune_group
from orchestrator.stages.finetune_runs import make_run
from orchestrator.stages.open import Sweep
from tasks.finetuning.examples import digest
from tasks.finetuning.run import Run
from tune.scheduler import RaceScheduler
from tune.space import SearchSpace


def open_space(sweep: Sweep) -> SearchSpace:
    """Open the sweep's search space; that of a joint search makes a run of fine-tuning from each point."""
    tuner = CandidateTuner(sweep) if sweep.config.joint else None
    return SearchSpace(sweep.config, sweep.sources, tuner)


@dataclass(frozen=True)
class CandidateTuner:
    """Makes the run that fine-tunes a merge, with the settings of a point of the search space."""

    sweep: Sweep

    def __call__(self, merge: Recipe, point: Mapping[str, Any]) -> Run:
        """Make the run of one candidate.

        Args:
            merge: the recipe that it starts from.
            point: `learning_rate`, `epochs`, `rank` and `examples`, as far as the search is over them.
        """
        config, examples = self.sweep.config, self.sweep.tasks.training.search
        assert config.search is not None and config.joint is not None
        searched, own = config.joint
        own = own.model_copy(update={key: point[key] for key in ("learning_rate", "epochs") if key in point})
        if "rank" in point:
            own = own.model_copy(update={"lora": own.lora.model_copy(update={"rank": point["rank"]})})
        part = examples[: point.get("examples", len(examples))]
        given = settings(own, own.steps(len(part), len(part), searched.method), searched.method)
        tuning = Tuning(
            merge, digest(part), searched.method, config.search.seed, given, searched.task, merge.label, len(part),
            str(len(part)),
        )  # fmt: skip
        # A starting checkpoint of its own, removed after training: other candidates may start from the same merge.
        start = self.sweep.layout.run(tuning.id).start / merge.id
        return make_run(self.sweep, own, tuning, part, start)


def training_group(sweep: Sweep) -> Group | None:
    """Make the worker group that trains the candidates of a joint search beside the engines; else None."""
    if sweep.config.joint is None:
        return None
    make_private(sweep.layout.ray_train)
    return finetune_group(sweep)


def tidy(sweep: Sweep, space: SearchSpace, scheduler: RaceScheduler, finalists: Collection[str]) -> None:
    """Remove the weights of candidates that need no further evaluation, but for those of the finalists.

    Args:
        finalists: recipe ids.
    """
    shutil.rmtree(sweep.layout.ray_train, ignore_errors=True)
    for standing in scheduler.proposals:
        run = space.run(standing.candidate) if standing.candidate else None
        is_done = standing.status not in (RecipeStatus.PENDING, RecipeStatus.DEFERRED)
        if run and is_done and standing.recipe.id not in finalists:
            shutil.rmtree(run.files.model, ignore_errors=True)
