"""Fine-tuning on the cluster: Ray Train worker groups that each go through many runs.

Importing and starting take longer than a small run, so a group lives as long as it has runs. There are as many groups
as the cluster has room for, each on its share of the runs, the longest first; so no GPU waits for another's run. A
group of one process trains plainly, one of several shards the model over them (FSDP). A group that dies is started
again and goes on from the last checkpoint of the run that it was at.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.nodes import alive_nodes, kill_on
from cluster.pool import reason
from cluster.queue import ATTEMPTS
from cluster.timeouts import Patience
from cluster.workers import EngineStartError
from orchestrator.config.finetune import Finetune
from orchestrator.core.files import make_private, write_json
from orchestrator.core.progress import say
from orchestrator.core.records import Failure
from orchestrator.recipes.recipe import Recipe
from orchestrator.sizing.finetune_memory import refusal
from tasks.finetuning.train import PROGRESS, RESULT, Diverged, Run, is_finished, train
from tasks.merging.checkpoint import headers

ERROR = "error.json"
PROCESS = "process-{}.json"
"""By rank: which process of which node is at a run."""


class DoesNotFit(Exception):
    """The run needs more memory than there is."""


@dataclass(frozen=True)
class Group:
    """What a worker group is."""

    finetune: Finetune
    processes: int
    cpus: int
    """Of each process."""
    gpu: bool
    storage: str
    patience: float
    """Seconds that it may go without a sign of life (`Watch`)."""


def group_of(finetune: Finetune, gpus: int, storage: Path, patience: float) -> Group:
    """
    Args:
        gpus: of a run; 0 trains on the CPU, in one process.
    """
    return Group(finetune, max(1, gpus), finetune.cpus, gpus > 0, str(storage), patience)


def room(group: Group) -> int:
    """How many groups the nodes that stay have room for.

    Raises:
        EngineStartError: none.
    """
    need = {"CPU": group.cpus, **({"GPU": 1} if group.gpu else {})}
    processes = sum(node.room(need) for node in alive_nodes().values() if not node.draining)
    if processes < group.processes:
        raise EngineStartError(
            f"fine-tuning needs {group.processes} x {need}, but the cluster has room for {processes} of these; change "
            "finetune.gpus or finetune.cpus"
        )
    return processes // group.processes


def shares(runs: Sequence[Run], groups: int) -> list[list[Run]]:
    """The runs dealt out to at most so many groups, the longest first, each to the group with the least to do."""
    dealt: list[list[Run]] = [[] for _ in range(min(groups, len(runs)))]
    for run in sorted(runs, key=lambda run: -run.tuning.settings["steps"]):
        min(dealt, key=lambda share: sum(other.tuning.settings["steps"] for other in share)).append(run)
    return dealt


def train_runs(runs: Sequence[Run], group: Group) -> Iterator[Failure | None]:
    """Train all runs; yields a Failure for each that cannot be trained, and None once a second.

    Raises:
        EngineStartError: the cluster has no room for one group.
    """
    open_groups: dict[Any, Watch] = {}
    deaths: dict[str, int] = {}

    def start(share: list[Run]) -> None:
        for run in share:
            make_private(run.folder)
            for note in (run.folder / ERROR, *run.folder.glob(PROCESS.format("*"))):
                note.unlink(missing_ok=True)
        reference = ray.remote(num_cpus=0, max_retries=0)(fit).remote(share, group)
        open_groups[reference] = Watch(reference, share, group.patience)

    for share in shares(runs, room(group)):
        start(share)
    while open_groups:
        ready, _ = ray.wait(list(open_groups), timeout=1.0)
        yield None
        for reference in ready:
            watch, died, detail = open_groups.pop(reference), "", ""
            try:
                ray.get(reference)
            except RayError as error:
                died, detail = watch.verdict or reason(error), str(error)
            left = [run for run in watch.share if not is_finished(run.folder)]
            for failure in _failures(left, died, detail, deaths):
                left = [run for run in left if run.recipe.id != failure.recipe_id]
                yield failure
            if left:
                start(left)
        for watch in open_groups.values():
            watch.look()


class Watch:
    """Over a worker group, which says nothing until it ends: the files of its runs tell whether it gets on.

    Args:
        share: its runs.
        patience: seconds that are always granted without a sign.
    """

    def __init__(self, reference: Any, share: list[Run], patience: float) -> None:
        self.reference, self.share, self.patience = reference, share, Patience(patience)
        self.verdict = ""
        """Why it was ended."""
        self._signs, self._since, self._heard = self._read(), time.monotonic(), False

    def look(self) -> None:
        """End it where it has been silent for far longer than ever before."""
        now, signs = time.monotonic(), self._read()
        if not self._processes():  # it waits for room in the cluster, as long as that takes
            self._since = now
        elif signs != self._signs:
            if self._heard:  # the first sign, that it has started, says nothing of how long its steps take
                self.patience.started(now - self._since)
            self._signs, self._since, self._heard = signs, now, True
        if now - self._since > self.patience.for_start() and not self.verdict:
            self.verdict = f"no step for {now - self._since:.0f} s, far longer than the like of it took before"
            say(f"fine-tuning hangs ({self.verdict}): its processes are ended and started again")
            for file in self._processes():
                note = json.loads(file.read_text(encoding="utf-8"))
                kill_on(note["node"], note["pid"])
            ray.cancel(self.reference, force=True)

    def _processes(self) -> list[Path]:
        return [file for run in self.share for file in run.folder.glob(PROCESS.format("*"))]

    def _read(self) -> dict[Path, int]:
        notes = [run.folder / name for run in self.share for name in (PROGRESS, RESULT)]
        signs = {}
        for file in (*notes, *self._processes()):
            with contextlib.suppress(FileNotFoundError):  # a run's progress goes when it is finished
                signs[file] = file.stat().st_mtime_ns
        return signs


def train_candidate(run: Run, group: Group) -> Failure | None:
    """Write the merge that a candidate of a joint search starts from, and train it; nothing is done where it is
    trained. Returns why it cannot be."""
    model = run.folder / "model"
    if is_finished(run.folder) and model.exists():
        return None
    (run.folder / RESULT).unlink(missing_ok=True)
    write_starts([run.tuning.start], make_private(run.start.parent))
    failure = None
    for result in train_runs([run], group):
        failure = result or failure
    shutil.rmtree(run.start.parent, ignore_errors=True)
    return failure


def _failures(left: Sequence[Run], died: str, detail: str, deaths: dict[str, int]) -> Iterator[Failure]:
    """What the runs of a group that ended say: their own errors, and whoever was under way at too many deaths."""
    told = [run for run in left if (run.folder / ERROR).exists()]
    for run in told:
        note = json.loads((run.folder / ERROR).read_text(encoding="utf-8"))
        yield Failure(run.recipe.id, note["status"], "train", note["message"], note["detail"])
    if left and not told:
        run = left[0]
        deaths[run.tuning.id] = deaths.get(run.tuning.id, 0) + 1
        if deaths[run.tuning.id] >= ATTEMPTS:
            message = f"{ATTEMPTS} worker groups ended at it; the last said: {died}"
            yield Failure(run.recipe.id, "failed", "train", message, detail)


def fit(runs: list[Run], group: Group) -> None:
    """One worker group from its start to its end, in a task of its own: `TorchTrainer.fit` waits."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = {"CPU": group.cpus, **({"GPU": 1} if group.gpu else {})}
    TorchTrainer(
        loop,
        train_loop_config={"runs": ray.put(runs), "group": group},
        scaling_config=ScalingConfig(num_workers=group.processes, use_gpu=group.gpu, resources_per_worker=resources),
        run_config=RunConfig(storage_path=group.storage, failure_config=FailureConfig(max_failures=0)),
    ).fit()


def loop(config: dict[str, Any]) -> None:
    """What each process of a group does: run after run. A run that breaks leaves a note and ends the group, whose
    CUDA context may be broken with it; the next group goes on with the others."""
    from ray.train import get_context

    if get_context().get_world_size() == 1:
        # Else accelerate takes one process for a distributed group, and copies every gradient once more.
        for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            os.environ.pop(key, None)
    for run in ray.get(config["runs"]):
        note = {"node": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}
        write_json(run.folder / PROCESS.format(get_context().get_world_rank()), note)
        try:
            check_memory(run, config["group"])
            train(run)
        except Exception as error:
            if get_context().get_world_rank() == 0:
                status = "invalid" if isinstance(error, Diverged) else "failed"
                message = f"{type(error).__name__}: {error}".splitlines()[0]
                note = {"status": status, "message": message, "detail": traceback.format_exc()}
                write_json(run.folder / ERROR, note)
            raise


def check_memory(run: Run, group: Group) -> None:
    """
    Raises:
        DoesNotFit: weights, gradients and moments alone are too much for this GPU, or for this machine without one.
    """
    import psutil
    import torch

    gpus = group.processes if group.gpu else 0
    there = torch.cuda.get_device_properties(0).total_memory if gpus else psutil.virtual_memory().total
    parameters = sum(math.prod(shape) for _, shape in headers(run.start).values())
    if why := refusal(group.finetune, run.tuning.method, parameters, gpus, there):
        raise DoesNotFit(why)


def progress(runs: Sequence[Run]) -> str:
    """How far the runs are, in words."""
    done = sum(is_finished(run.folder) for run in runs)
    steps = sum(run.tuning.settings["steps"] for run in runs)
    made = sum(run.tuning.settings["steps"] for run in runs if is_finished(run.folder))
    for run in runs:
        with contextlib.suppress(FileNotFoundError):  # gone when the run is finished
            made += json.loads((run.folder / PROGRESS).read_text(encoding="utf-8"))["step"]
    return f"{done}/{len(runs)} runs, {min(made, steps)}/{steps} steps"


def write_starts(recipes: Sequence[Recipe], folder: Path) -> None:
    """Each recipe's checkpoint as `folder/<recipe id>`, once for all runs that start from it."""
    ray.get(ray.remote(num_cpus=0)(_materialise).remote(recipes, folder))


def _materialise(recipes: Sequence[Recipe], folder: Path) -> None:
    from tasks.merging.live import write_checkpoint  # a guard: torch takes seconds

    for recipe in recipes:
        write_checkpoint(recipe, folder / recipe.id, folder / "scratch")
