"""A joint search: each candidate is a merge that is fine-tuned, and how is searched for beside the merge.

Its learning task is an objective like the others, asked of the grid too, whose recipes stay untuned. A candidate is
trained by the same code as the second phase's runs, and is a recipe again.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.recipe import Recipe
from orchestrator.recipes.tuning import Tuning, settings
from orchestrator.stages.finetune import learning_suites, make_run, training_examples
from orchestrator.stages.open import Sweep

if TYPE_CHECKING:
    from cluster.training import Group
    from tasks.finetuning.examples import Labelled
    from tasks.finetuning.run import Run
    from tune.scheduler import RaceScheduler
    from tune.space import SearchSpace


def with_learning(sweep: Sweep) -> Sweep:
    """The sweep with its joint search's learning task among the objectives; any other sweep as it is."""
    if sweep.config.joint is None:
        return sweep
    suites = [*sweep.suites, *learning_suites(sweep, sweep.config.learned)]
    return replace(sweep, config=sweep.config.learning(), suites=suites)


def open_space(sweep: Sweep) -> SearchSpace:
    """Where the sweep searches; a joint search's space makes runs of its points.

    Args:
        sweep: `with_learning`.

    Raises:
        UserError: the learning task has too few training examples, or is no generation task.
    """
    from tune.space import SearchSpace

    config = sweep.config
    if config.joint is None or config.search is None:
        return SearchSpace(config, sweep.sources)
    tuned, given = config.joint
    finetune = given.model_copy(update={"examples": tuned.examples} if tuned.examples else {})
    suite = next(suite for suite in sweep.suites if suite.objective == tuned.task)
    examples = training_examples(sweep.lm, finetune, suite, config.search.seed)
    return SearchSpace(config, sweep.sources, Tuner(sweep, tuple(examples)))


@dataclass(frozen=True)
class Tuner:
    sweep: Sweep
    examples: tuple[Labelled, ...]
    """As many as the largest budget; smaller ones are their first."""

    def __call__(self, merge: Recipe, point: Mapping[str, Any]) -> Run:
        """
        Args:
            point: `learning_rate`, `epochs`, `rank`, `examples`, those that are searched for.
        """
        from tasks.finetuning.examples import digest

        config = self.sweep.config
        assert config.search is not None and config.joint is not None
        tuned, own = config.joint
        own = own.model_copy(update={key: point[key] for key in ("learning_rate", "epochs") if key in point})
        if "rank" in point:
            own = own.model_copy(update={"lora": own.lora.model_copy(update={"rank": point["rank"]})})
        part = self.examples[: point.get("examples", len(self.examples))]
        given = settings(own, own.steps(len(part), len(part), tuned.method), tuned.method)
        tuning = Tuning(
            merge, digest(part), tuned.method, config.search.seed, given, tuned.task, merge.label, len(part),
            str(len(part)),
        )  # fmt: skip
        # A start of its own, which is removed when it is trained: others may come to the same merge meanwhile.
        start = self.sweep.out / "tuning" / tuning.id / "start" / merge.id
        return make_run(self.sweep, own, tuning, part, start)


def training_group(sweep: Sweep) -> Group | None:
    """What trains the candidates of a joint search, beside the engines."""
    from cluster.training import group_of
    from orchestrator.core.files import make_private

    if sweep.config.joint is None:
        return None
    _, finetune = sweep.config.joint
    workers = sweep.config.workers
    home = make_private(sweep.out / "tuning" / "ray")
    return group_of(finetune, finetune.gpus_of_a_run(workers.gpus), home, workers.patience)


def tidy(sweep: Sweep, space: SearchSpace, referee: RaceScheduler, finalists: Collection[str]) -> None:
    """Weights of candidates that will be asked nothing more make room; those of the finalists (recipe ids) stay."""
    shutil.rmtree(sweep.out / "tuning" / "ray", ignore_errors=True)
    for standing in referee.proposals:
        run = space.run(standing.params or {})
        open_ = standing.status in (RecipeStatus.PENDING, RecipeStatus.DEFERRED)
        if run and not open_ and standing.recipe.id not in finalists:
            shutil.rmtree(run.folder / "model", ignore_errors=True)
