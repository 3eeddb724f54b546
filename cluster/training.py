"""Fine-tuning on the cluster: Ray Train worker groups that each go through many runs.

Importing and starting take longer than a small run, so a group lives as long as it has runs. There are as many groups
as the cluster has room for, each on its share of the runs, the longest first; so no GPU waits for another's run. A
group of one process trains plainly, one of several shards the model over them (FSDP). A group that dies is started
again, and resumes its run from the last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.errors import EngineStartError, described, portable
from cluster.nodes import alive_nodes
from cluster.queue import ATTEMPTS
from cluster.training_loop import loop
from cluster.training_watch import Watch
from orchestrator.config.finetune import Finetune
from orchestrator.core.files import make_private
from orchestrator.core.records import Failure
from orchestrator.recipes.recipe import Recipe
from tasks.finetuning.run import Run

END_S = 30.0
"""Seconds in which groups that are stopped have to end."""


@dataclass(frozen=True)
class Group:
    """A worker group: its settings, processes and resources."""

    finetune: Finetune
    processes: int
    cpus: int
    """Of each process."""
    gpu: bool
    """Whether each process has a GPU."""
    storage: str
    """Ray Train's own folder."""
    patience: float
    """Seconds without any progress that are always allowed (`Watch`)."""

    @property
    def resources(self) -> dict[str, float]:
        """What each process needs, as Ray counts it."""
        return {"CPU": self.cpus, **({"GPU": 1} if self.gpu else {})}

    def gpu_hours(self, seconds: float) -> float:
        """Hours of GPU time that a group takes up in so many seconds; one without a GPU counts as one GPU."""
        return seconds * (self.processes if self.gpu else 1) / 3600


def group_of(finetune: Finetune, gpus: int, storage: Path, patience: float) -> Group:
    """Make the worker group that trains a sweep's runs.

    Args:
        gpus: of a run; 0 trains on the CPU, in one process.
        storage: Ray Train's own folder.
    """
    return Group(finetune, max(1, gpus), finetune.cpus, gpus > 0, str(storage), patience)


def room(group: Group) -> int:
    """Count how many groups the nodes that stay have room for.

    Raises:
        EngineStartError: none.
    """
    processes = sum(node.room(group.resources) for node in alive_nodes().values() if not node.draining)
    if processes < group.processes:
        raise EngineStartError(
            f"fine-tuning needs {group.processes} x {group.resources}, but the cluster has room for {processes} of "
            "these; change finetune.gpus or finetune.cpus"
        )
    return processes // group.processes


def check_beside(group: Group, engines: Mapping[str, float]) -> None:
    """Check that the cluster has room for one group beside the engines.

    Args:
        engines: what all engines need, as Ray counts it.

    Raises:
        EngineStartError: it has not.
    """
    nodes = alive_nodes().values()
    for key, each in group.resources.items():
        needed = engines.get(key, 0) + group.processes * each
        found = sum(node.resources.get(key, 0) for node in nodes)
        if needed > found:
            raise EngineStartError(
                f"a search that fine-tunes needs {needed:g} {key} for its engines and for training beside them, but "
                f"the cluster has {found:g}; lower workers.count, workers.cpus, finetune.gpus or finetune.cpus"
            )


def shares(runs: Sequence[Run], groups: int) -> list[list[Run]]:
    """Deal out the runs to at most so many groups, the longest first, each to the group with the fewest steps."""
    dealt: list[list[Run]] = [[] for _ in range(min(groups, len(runs)))]
    for run in sorted(runs, key=lambda run: -run.steps):
        min(dealt, key=lambda share: sum(other.steps for other in share)).append(run)
    return dealt


def train_runs(runs: Sequence[Run], group: Group, stop: Callable[[], bool] = lambda: False) -> Iterator[Failure | None]:
    """Train all runs; yields a Failure for each that cannot be trained, and None once a second.

    Args:
        stop: once true, no further group is started and those under way are ended. The next call resumes their runs
            from their last checkpoints.

    Raises:
        EngineStartError: the cluster has no room for one group.
    """
    to_start, watches, deaths = shares(runs, room(group)), list[Watch](), Counter[str]()
    while to_start or watches:
        if stop():
            ended = [reference for watch in watches for reference in watch.end()]
            ray.wait(ended, num_returns=len(ended), timeout=END_S) if ended else None
            return
        watches += [_start(share, group) for share in to_start]
        to_start = []
        ready, _ = ray.wait([watch.reference for watch in watches], timeout=1.0)
        yield None
        for watch in [watch for watch in watches if watch.reference in ready]:
            watches.remove(watch)
            failures, left = _outcome(watch, deaths)
            yield from failures
            to_start += [left] if left else []
        for watch in watches:
            watch.check()


def _start(share: list[Run], group: Group) -> Watch:
    for run in share:
        make_private(run.folder)
        for note in (run.files.error, *run.files.processes):
            note.unlink(missing_ok=True)
    reference = ray.remote(num_cpus=0, max_retries=0)(fit).remote(share, group)
    return Watch(reference, share, group.patience)


@portable
def fit(runs: list[Run], group: Group) -> None:
    """Run a worker group from its start to its end, in a Ray task of its own: `TorchTrainer.fit` blocks."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    gpus = group.processes if group.gpu else 0
    TorchTrainer(
        loop,
        train_loop_config={"runs": ray.put(runs), "finetune": group.finetune, "gpus": gpus},
        scaling_config=ScalingConfig(
            num_workers=group.processes, use_gpu=group.gpu, resources_per_worker=group.resources
        ),
        run_config=RunConfig(storage_path=group.storage, failure_config=FailureConfig(max_failures=0)),
    ).fit()


def _outcome(watch: Watch, deaths: Counter[str]) -> tuple[list[Failure], list[Run]]:
    """The failures of a group that has ended, and the runs that it leaves to train."""
    died, detail = "", ""
    try:
        ray.get(watch.reference)
    except RayError as error:
        known = described(error)
        died, detail = watch.verdict or str(known), known.detail
    left = [run for run in watch.share if not run.is_finished]
    failures = [_failure_of(run) for run in left if run.files.error.exists()]
    if left and not failures:  # its processes died, at the first run that is not finished
        at = left[0]
        deaths[at.tuning.id] += 1
        if deaths[at.tuning.id] >= ATTEMPTS:
            message = f"{ATTEMPTS} worker groups ended at it; the last error: {died}"
            failures = [Failure(at.recipe.id, "failed", "train", message, detail)]
    failed = {failure.recipe_id for failure in failures}
    return failures, [run for run in left if run.recipe.id not in failed]


def _failure_of(run: Run) -> Failure:
    note: dict[str, Any] = json.loads(run.files.error.read_text(encoding="utf-8"))
    return Failure(run.recipe.id, note["status"], "train", note["message"], note["detail"])


def train_candidate(run: Run, group: Group) -> Failure | None:
    """Train a candidate of a joint search, from the merge that it starts from; nothing is done where it is trained.

    Returns:
        Why it cannot be trained, or None.
    """
    if run.is_finished and run.files.model.exists():
        return None
    run.files.result.unlink(missing_ok=True)
    write_starts([run.tuning.start], make_private(run.start.parent))
    failure = None
    for result in train_runs([run], group):
        failure = result or failure
    shutil.rmtree(run.start.parent, ignore_errors=True)
    return failure


def progress(runs: Sequence[Run]) -> str:
    """Say how far the runs are, in words."""
    finished = sum(run.is_finished for run in runs)
    steps = sum(run.steps for run in runs)
    done = sum(run.steps for run in runs if run.is_finished)
    for run in runs:
        with contextlib.suppress(FileNotFoundError):  # removed when the run is finished
            done += json.loads(run.files.progress.read_text(encoding="utf-8"))["step"]
    return f"{finished}/{len(runs)} runs, {min(done, steps)}/{steps} steps"


def write_starts(recipes: Sequence[Recipe], folder: Path) -> None:
    """Write each recipe's checkpoint to `folder/<recipe id>`, once for all runs that start from it.

    Raises:
        RemoteError: one cannot be merged or written.
    """
    try:
        ray.get(ray.remote(num_cpus=0)(_materialise).remote(recipes, folder))
    except RayError as error:
        raise described(error) from None


@portable
def _materialise(recipes: Sequence[Recipe], folder: Path) -> None:
    from tasks.merging.live import write_checkpoint  # a guard: torch takes seconds

    for recipe in recipes:
        write_checkpoint(recipe, folder / recipe.id, folder / "scratch")
