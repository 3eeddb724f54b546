"""The search: Ray Tune runs the trials, Optuna proposes, the referee races.

study.ask → recipe → trial → desk → referee → pool → ledger → referee → desk → trial → study.tell
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
from tune.scheduler import Referee
from tune.space import SearchSpace
from tune.standings import Standing
from tune.study import Choice, add, choose_sampler, open_study, tell
from tune.trial import Candidate, Desk

ATTEMPTS = 50
"""Proposals in a row that are known already, after which the space counts as used up."""


class Proposer(Searcher):  # type: ignore[misc]
    """Ray Tune's view of the study. Ray's own OptunaSearch cannot warm-start a space with conditions, raises on several
    objectives' results, and leaves a trial that reported nothing RUNNING for ever (Ray 2.60)."""

    def __init__(self, study: optuna.Study, space: SearchSpace, referee: Referee, choice: Choice, desk: Any) -> None:
        super().__init__(metric=None, mode=None)
        self.study, self.space, self.referee, self.choice, self.desk = study, space, referee, choice, desk
        self.trials: dict[str, tuple[Trial, Standing]] = {}
        for standing in referee.standings.values():
            params = standing.params or space.params_of(standing.recipe)
            if params is not None and standing.status != "open":
                add(study, space, params, referee.told(standing), choice.name)
        self.left = [standing for standing in referee.proposals if standing.status == "open"]
        """Proposed by an earlier run that was cut off: their answers are kept, so they go first."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self.left:
            standing = self.left.pop(0)
            self.study.enqueue_trial(standing.params)
            trial = self.study.ask()
            self.space.suggest(trial)
        elif self.referee.closed or self.referee.exhausted:
            return str(Searcher.FINISHED)
        else:
            found = self._propose()
            if found is None:
                return str(Searcher.FINISHED)
            trial, standing = found
        self.trials[trial_id] = (trial, standing)
        run = self.space.run(standing.params or {})
        if run is not None:
            ray.get(self.desk.expect.remote(standing.recipe.id, run))
        return {"recipe_id": standing.recipe.id}

    def _propose(self) -> tuple[Trial, Standing] | None:
        """A candidate that is new; what is proposed again is told again."""
        for _ in range(ATTEMPTS):
            trial = self.study.ask()
            params = self.space.suggest(trial)
            recipe = self.space.recipe(params)
            known = self.referee.standings.get(recipe.id)
            if known is None:
                standing = Standing(recipe, params, len(self.referee.proposals))
                standing.save(self.referee.folder)
                self.referee.standings[recipe.id] = standing
                return trial, standing
            if known.status == "open":
                self.study.tell(trial, state=TrialState.FAIL)
            else:
                tell(self.study, trial, self.referee.told(known), self.choice.name)
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial, standing = self.trials.pop(trial_id)
        if standing.status == "open":
            self.study.tell(trial, state=TrialState.FAIL)  # abandoned; the next run takes it up again
        else:
            tell(self.study, trial, self.referee.told(standing), self.choice.name)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray Tune pickles its searcher to go on after a crash; ours is rebuilt from the ledger."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `__getstate__`."""


def search(
    referee: Referee, space: SearchSpace, pool: Pool, folder: Path, say: Callable[[str], None], group: Group | None
) -> None:
    """Propose and race candidates until the budget is spent. Needs a Ray session; the grid is answered.

    Args:
        folder: DIR/search; its candidates/ are kept, everything else is written anew.
        group: what trains the candidates of a joint search.

    Raises:
        UserError: no engine could be started.
        OSError: the disk is full.
    """
    choice = choose_sampler(space, referee.candidates, len(referee.rungs.objectives))
    say(f"sampler: {choice.name}, because {choice.why}")
    desk = ray.remote(Desk).options(num_cpus=0).remote()
    proposer = Proposer(open_study(folder, referee.rungs.config, choice), space, referee, choice, desk)
    broken: list[BaseException] = []

    def work() -> None:
        try:
            referee.work(pool, desk)
        except BaseException as error:
            broken.append(error)
            stop.set()

    stop = threading.Event()
    thread = threading.Thread(target=work, name="referee", daemon=True)
    thread.start()
    try:
        candidate = ray_tune.with_parameters(Candidate, desk=desk, group=group)
        _tuner(proposer, candidate, folder, len(pool.workers.slots) + 1, stop.is_set).fit()
    finally:
        referee.closed = True
        thread.join(timeout=60)
    if broken:
        raise broken[0]
    referee.finish(pool)


def _tuner(
    proposer: Proposer, candidate: Any, folder: Path, at_once: int, stopped: Callable[[], bool]
) -> ray_tune.Tuner:
    # Ctrl-C is the command line's business, and result files are ours.
    quiet = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    os.environ.update({"TUNE_DISABLE_SIGINT_HANDLER": "1", **quiet})
    shutil.rmtree(folder / "tune", ignore_errors=True)
    # The engines hold the CPUs, and Ray Tune refuses to ask for nothing.
    return ray_tune.Tuner(
        ray_tune.with_resources(candidate, {"memory": 2**20}),
        tune_config=ray_tune.TuneConfig(
            search_alg=proposer, num_samples=-1, max_concurrent_trials=at_once, reuse_actors=True
        ),
        run_config=ray_tune.RunConfig(
            name="tune",
            storage_path=str(folder.resolve()),
            verbose=0,
            stop=_Stopped(stopped),
            failure_config=ray_tune.FailureConfig(max_failures=2),
            checkpoint_config=ray_tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )


class _Stopped(ray_tune.Stopper):  # type: ignore[misc]
    """Ends the experiment when the referee is broken; what it broke of is raised by `search`."""

    def __init__(self, stopped: Callable[[], bool]) -> None:
        self.stopped = stopped

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.stopped()

    def __getstate__(self) -> dict[str, Any]:
        return {}
