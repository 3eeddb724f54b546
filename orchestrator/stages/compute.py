"""What a command uses of the cluster: Ray, and one pool of engines; each is started when it is first needed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.errors import EngineStartError
from cluster.parent_texts import ParentTexts
from cluster.pipeline import stage_need
from cluster.pool import Pool
from cluster.session import session
from cluster.spec import WorkerSpec
from cluster.training import Group, check_beside, group_of, room
from orchestrator.core.errors import UserError
from orchestrator.core.files import write_atomic
from orchestrator.core.progress import say
from orchestrator.results.layout import Layout
from orchestrator.stages.open import Sweep
from tasks.serving.drafts import has_drafts

MOST_WORKERS = 1000
"""Most workers of a search, where the cluster has room for them: its amount of work is not known beforehand."""


class Compute:
    """Ray, the pool of engines, and the GPU hours that a command has used; made by `computing`.

    Args:
        max_gpu_hours: the limit after which `is_exhausted`; None for no limit.
        most_workers: most workers of the pool; None for as many as there are blocks when it starts.
        check_room: called once the cluster is joined, to see whether it has room for all that comes.
    """

    def __init__(
        self, sweep: Sweep, max_gpu_hours: float | None, most_workers: int | None, check_room: Callable[[], None]
    ) -> None:
        self.sweep, self.max_gpu_hours, self.most_workers = sweep, max_gpu_hours, most_workers
        self.check_room = check_room
        self.log: Callable[[str], None] = say
        """Where lines about workers go; `evaluate` points it to its progress bar."""
        self._ray, self._engines = contextlib.ExitStack(), contextlib.ExitStack()
        self._is_joined = False
        self._pool: Pool | None = None
        self._spent_hours = 0.0

    def join(self) -> None:
        """Connect to the Ray cluster, or start a local one, unless this command has done so.

        Raises:
            EngineStartError: the cluster has no room for fine-tuning.
        """
        if not self._is_joined:
            self._ray.enter_context(session(self.sweep.layout.ray))
            self._is_joined = True
            self.check_room()

    def pool(self, blocks: int) -> Pool:
        """The pool of engines, started at the first call and the same one until `release`.

        Args:
            blocks: number of blocks to evaluate now.

        Raises:
            EngineStartError: no node has room for an engine.
        """
        self.join()
        if self._pool is None:
            limit = self.most_workers or blocks
            pool = Pool(worker_spec(self.sweep), limit, lambda line: self.log(line))
            self._pool = self._engines.enter_context(pool)
        self._pool.draft_from(_parent_texts(self.sweep))
        return self._pool

    def release(self) -> None:
        """Stop the engines, as fine-tuning needs their GPUs; the next `pool` starts new ones."""
        self._spent_hours, pool, self._pool = self.gpu_hours, self._pool, None
        if pool is not None:
            self._engines.close()

    def close(self) -> None:
        """Stop the engines and disconnect from Ray, or stop the local one."""
        try:
            self.release()
        finally:
            self._ray.close()
            self._is_joined = False

    # ---------------------------------------------------------------- the limit
    @property
    def gpu_hours(self) -> float:
        """Hours that this command has occupied GPUs for; a worker without a GPU counts as one GPU."""
        pool_s = self._pool.workers.seconds() if self._pool else 0.0
        return self._spent_hours + self.sweep.config.workers.gpu_hours(pool_s)

    def spend(self, hours: float) -> None:
        """Add GPU hours that something other than the pool has used."""
        self._spent_hours += hours

    def is_exhausted(self) -> bool:
        """Whether the command has used its `max_gpu_hours`."""
        return self.max_gpu_hours is not None and self.gpu_hours >= self.max_gpu_hours


@contextlib.contextmanager
def computing(
    sweep: Sweep, max_gpu_hours: float | None, *, searches: bool, finetunes: bool = False
) -> Iterator[Compute]:
    """Provide a command with `Compute`; on leaving, engines and Ray are stopped and the engines' scratch is removed.

    Args:
        max_gpu_hours: see `Compute`.
        searches: whether the command searches, where further work arises on the way.
        finetunes: whether it fine-tunes at the end.

    Raises:
        UserError: no engine could be started; vLLM's whole output is kept in a file.
    """

    def check_room() -> None:
        if finetunes and not any(sweep.layout.runs()):  # what has begun had room
            room(finetune_group(sweep))
        if searches and sweep.config.joint:
            workers = sweep.config.workers
            stages = workers.engine.pipeline_parallel_size * (workers.count or 1)
            check_beside(finetune_group(sweep), {key: stages * each for key, each in stage_need(workers).items()})

    compute = Compute(sweep, max_gpu_hours, MOST_WORKERS if searches else None, check_room)
    _clear(sweep.layout)
    try:
        yield compute
    except EngineStartError as error:
        if not error.detail:
            raise
        write_atomic(sweep.layout.engine_error, error.detail)
        raise UserError(f"{error} (all of it: {sweep.layout.engine_error})") from None
    finally:
        compute.close()
        _clear(sweep.layout)


def finetune_group(sweep: Sweep) -> Group:
    """Make the worker group that trains the runs of the section `finetune`."""
    finetune, workers = sweep.config.finetune, sweep.config.workers
    assert finetune is not None, "the caller checks"
    return group_of(finetune, finetune.gpus_of_a_run(workers.gpus), sweep.layout.ray_train, workers.patience)


def _clear(layout: Layout) -> None:
    """Remove the engines' scratch, and half-written checkpoints of workers that were killed."""
    for folder in (layout.scratch, *layout.checkpoints.glob(".*.tmp")):
        shutil.rmtree(folder, ignore_errors=True)


def worker_spec(sweep: Sweep) -> WorkerSpec:
    """Collect what every worker needs to start its engine and to merge."""
    layout, config = sweep.layout, sweep.config
    return WorkerSpec(
        serving=sweep.serving,
        tokenizer_files={file.name: file.read_bytes() for file in sorted(Path(sweep.serving.folder).iterdir())},
        boot=sweep.sources[next(iter(config.parents))],
        sources={
            f"{'parents' if name in config.parents else 'candidates'}.{name}": source
            for name, source in sweep.sources.items()
        },
        dtype=config.dtype,
        workers=config.workers,
        models=len(config.parents),
        scratch=str(layout.scratch),
        keep=str(layout.checkpoints) if config.checkpoints.keep else None,
        drafts=has_drafts(config.workers),
    )


def _parent_texts(sweep: Sweep) -> ParentTexts:
    """Collect what the parents have written so far, where texts are drafted from it."""
    parents = [recipe.id for recipe in sweep.recipes if recipe.is_parent] if has_drafts(sweep.config.workers) else []
    return ParentTexts({parent: sweep.ledger.answers(parent) for parent in parents})
