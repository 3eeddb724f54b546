"""The search: Optuna proposes, Ray Tune runs the trials, the race scheduler decides.

The path of a candidate: `study.ask` → recipe → trial → mailbox → race scheduler → pool → ledger; its scores return by
race scheduler → mailbox → trial → `study.tell`.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import ray
from optuna.trial import Trial, TrialState
from ray import tune as ray_tune
from ray.tune.search import Searcher

from cluster.pool import Pool
from cluster.training import Group
from orchestrator.core.records import RecipeStatus
from tune.scheduler import RaceScheduler
from tune.space import SearchSpace
from tune.standings import Standing
from tune.study import SamplerChoice, add_finished, choose_sampler, finish, open_study
from tune.trial import CandidateTrial, Mailbox

ATTEMPTS = 50
"""Number of known recipes proposed in a row after which the space counts as used up."""


class StudySearcher(Searcher):  # type: ignore[misc]
    """Ray Tune's searcher over the study.

    Ray's own OptunaSearch cannot warm-start a space with conditions, raises on several objectives' results, and leaves
    a trial that reported nothing RUNNING for ever (Ray 2.60).
    """

    def __init__(
        self, study: optuna.Study, space: SearchSpace, scheduler: RaceScheduler, choice: SamplerChoice, mailbox: Any
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.study, self.space, self.scheduler, self.sampler = study, space, scheduler, choice.name
        self.mailbox = mailbox
        self.trials: dict[str, tuple[Trial | None, Standing]] = {}
        for standing in scheduler.standings.values():
            candidate = standing.candidate
            params = space.params_of(candidate) if candidate else space.params_of_merge(standing.recipe)
            if params is not None and standing.status != RecipeStatus.PENDING:
                add_finished(study, space, params, scheduler.result_of(standing), self.sampler)
        self.left = [standing for standing in scheduler.proposals if standing.status == RecipeStatus.PENDING]
        """Proposed by an earlier run that was interrupted: their answers are stored, so they come first."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Propose the next candidate.

        Returns:
            The config of its trial: `recipe_id`. `Searcher.FINISHED` where there is none.
        """
        trial: Trial | None
        if self.left:
            standing = self.left.pop(0)
            trial = self._again(standing)
        elif self.scheduler.closed or self.scheduler.exhausted:
            return str(Searcher.FINISHED)
        else:
            found = self._propose()
            if found is None:
                return str(Searcher.FINISHED)
            trial, standing = found
        self.trials[trial_id] = (trial, standing)
        assert standing.candidate is not None, "only candidates are proposed"
        run = self.space.run(standing.candidate)
        if run is not None:
            ray.get(self.mailbox.put_run.remote(standing.recipe.id, run))
        return {"recipe_id": standing.recipe.id}

    def _again(self, standing: Standing) -> Trial | None:
        """The trial of a candidate of an earlier run; None where it is no point of the space any more."""
        assert standing.candidate is not None, "only candidates are proposed"
        params = self.space.params_of(standing.candidate)
        if params is None:
            return None
        self.study.enqueue_trial(params)
        trial = self.study.ask()
        self.space.suggest(trial)
        return trial

    def _propose(self) -> tuple[Trial, Standing] | None:
        """A new candidate; where the study proposes a known recipe, its trial gets the known result."""
        for _ in range(ATTEMPTS):
            trial = self.study.ask()
            candidate = self.space.candidate(self.space.suggest(trial))
            recipe = self.space.recipe(candidate)
            known = self.scheduler.standings.get(recipe.id)
            if known is None:
                standing = Standing(recipe, candidate, self.scheduler.next_number)
                standing.save(self.scheduler.folder)
                self.scheduler.standings[recipe.id] = standing
                return trial, standing
            self._finish(trial, known)
        return None

    def _finish(self, trial: Trial | None, standing: Standing) -> None:
        """Give a trial its result; one without (still under way, or abandoned by this run) has failed for Optuna."""
        if trial is None:
            return
        if standing.status == RecipeStatus.PENDING:
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            finish(self.study, trial, self.scheduler.result_of(standing), self.sampler)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Give the study the result of a trial that has ended."""
        self._finish(*self.trials.pop(trial_id))

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Ray Tune pickles its searcher to resume after a crash; ours is rebuilt from the ledger."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: see `__getstate__`."""


def run_search(
    scheduler: RaceScheduler,
    space: SearchSpace,
    pool: Pool,
    study_file: Path,
    folder: Path,
    *,
    group: Group | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Propose and race candidates until the budget is spent, in a Ray session and with the grid scored.

    Args:
        study_file: where the Optuna study is written, in place of the stored one.
        folder: where Ray Tune writes its files, in place of those there.
        group: the worker group that trains the candidates of a joint search.
        stop: once true, nothing more is evaluated and no candidate is proposed; what is under way is stored.

    Raises:
        UserError: no engine could be started.
        OSError: the disk is full.
    """
    choice = choose_sampler(space, scheduler.candidates, len(scheduler.rungs.objectives))
    scheduler.log(f"sampler: {choice.name}, because {choice.why}")
    for name, why in scheduler.unbounded.items():
        scheduler.log(f"racing guarantees nothing for {name}, because {why}; it is bounded by the differences seen")
    mailbox = ray.remote(Mailbox).options(num_cpus=0).remote()
    study = open_study(study_file, scheduler.rungs.axes, choice)
    searcher = StudySearcher(study, space, scheduler, choice, mailbox)
    broken: list[BaseException] = []

    def work() -> None:
        try:
            scheduler.work(pool, mailbox, stop)
        except BaseException as error:
            broken.append(error)
        finally:
            over.set()  # trials that still wait for a report would wait for ever

    over = threading.Event()
    thread = threading.Thread(target=work, name="race-scheduler", daemon=True)
    thread.start()
    try:
        trial = ray_tune.with_parameters(CandidateTrial, mailbox=mailbox, group=group)
        _tuner(searcher, trial, folder, len(pool.workers.slots) + 1, over.is_set).fit()
    finally:
        scheduler.closed = True
        thread.join(timeout=60)
    if broken:
        raise broken[0]
    scheduler.finish(pool, stop)


def _tuner(
    searcher: StudySearcher, trial: Any, folder: Path, at_once: int, stopped: Callable[[], bool]
) -> ray_tune.Tuner:
    # The command line handles Ctrl-C, and the result files are mergefront's own.
    quiet = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    os.environ.update({"TUNE_DISABLE_SIGINT_HANDLER": "1", **quiet})
    shutil.rmtree(folder, ignore_errors=True)
    # The engines have the CPUs, and Ray Tune refuses a trial without resources.
    return ray_tune.Tuner(
        ray_tune.with_resources(trial, {"memory": 2**20}),
        tune_config=ray_tune.TuneConfig(
            search_alg=searcher, num_samples=-1, max_concurrent_trials=at_once, reuse_actors=True
        ),
        run_config=ray_tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent.resolve()),
            verbose=0,
            stop=_Stopped(stopped),
            failure_config=ray_tune.FailureConfig(max_failures=2),
            checkpoint_config=ray_tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


class _Stopped(ray_tune.Stopper):  # type: ignore[misc]
    """Ends the experiment when the race scheduler has: it failed, and `run_search` raises its error, or was stopped."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.stopped = stopped

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.stopped()

    def __getstate__(self) -> dict[str, Any]:
        return {}
