"""What a command uses of the cluster: Ray, and one pool of engines.

Where it is certain that they are needed, as in a new sweep, they start while parents are resolved and tasks are read;
elsewhere each is started when it is first needed. A user's mistake that is found meanwhile ends what has started.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from cluster.errors import EngineStartError
from cluster.parent_texts import ParentTexts
from cluster.pipeline import stage_need
from cluster.pool import Pool
from cluster.session import session
from cluster.spec import WorkerSpec
from cluster.training import Group, check_beside, group_of, room
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.files import write_atomic
from orchestrator.core.progress import say
from orchestrator.core.records import Serving
from orchestrator.recipes.recipe import Source
from orchestrator.results.layout import Layout
from orchestrator.stages.open import Sweep
from orchestrator.stages.open_recipes import OpenedRecipes
from tasks.serving.drafts import has_drafts

MOST_WORKERS = 1000
"""Most workers of a search, where the cluster has room for them: its amount of work is not known beforehand."""


class Compute:
    """Ray, the pool of engines, and the GPU hours that a command has used; made by `computing`.

    A thread of its own starts and ends them, beside what the command does meanwhile. It is one thread, which ends last:
    Linux ends Ray's processes with the thread that has started them.

    Args:
        is_new: whether the sweep has no answer yet, so that every recipe is still to be evaluated.
        max_gpu_hours: the limit after which `is_exhausted`; None for no limit.
        most_workers: most workers of the pool; None for as many as there are blocks.
        check_room: called once the cluster is joined, to see whether it has room for all that comes.
    """

    def __init__(
        self,
        config: SweepConfig,
        layout: Layout,
        max_gpu_hours: float | None,
        *,
        is_new: bool,
        most_workers: int | None,
        check_room: Callable[[], None],
    ) -> None:
        self.config, self.layout, self.max_gpu_hours = config, layout, max_gpu_hours
        self.is_new, self.most_workers, self.check_room = is_new, most_workers, check_room
        self.log: Callable[[str], None] = say
        """Where lines about workers go; `evaluate` points it to its progress bar."""
        self._ray, self._engines = contextlib.ExitStack(), contextlib.ExitStack()
        self._thread = ThreadPoolExecutor(1, "ray")
        self._joined: Future[None] | None = None
        self._pool: Future[Pool] | None = None
        self._ended: Future[None] | None = None
        self._spent_hours = 0.0

    def begin(self, opened: OpenedRecipes | None = None) -> None:
        """Start Ray and, once the recipes are checked, the engines, without waiting; of a new sweep only.

        What is found to be wrong with the cluster is raised by `join` and `pool`.
        """
        if self.is_new:
            self._join()
            if opened:
                self._start_engines(opened.serving, opened.sources, len(opened.recipes))

    def join(self) -> None:
        """Connect to the Ray cluster, or start a local one, unless this command has done so.

        Raises:
            UserError: the cluster cannot be joined.
            EngineStartError: the cluster has no room for fine-tuning.
        """
        self._join().result()

    def pool(self, sweep: Sweep, blocks: int) -> Pool:
        """The pool of engines, started by `begin` or the first call, and the same one until `release`.

        Args:
            blocks: number of blocks to evaluate now.

        Raises:
            EngineStartError: no node has room for an engine.
        """
        self.join()
        if self._pool is None:
            self._start_engines(sweep.serving, sweep.sources, blocks)
        assert self._pool is not None
        pool = self._pool.result()
        pool.workers.allow(self.most_workers or blocks)
        pool.draft_from(_parent_texts(sweep))
        return pool

    def release(self) -> None:
        """Stop the engines, as fine-tuning needs their GPUs; the next `pool` starts new ones."""
        self._spent_hours, pool, self._pool = self.gpu_hours, self._pool, None
        if pool is not None and not pool.cancel():
            wait([pool])
            self._engines.close()

    def end(self) -> None:
        """Stop the engines and disconnect from Ray, or stop the local one, without waiting for it."""
        try:
            self.release()
        finally:
            joined, self._joined = self._joined, None
            if joined is not None and not joined.cancel():
                self._ended = self._thread.submit(self._ray.close)

    def close(self) -> None:
        """Stop everything, and wait until it has stopped."""
        with self._thread:
            self.end()
        if self._ended is not None:
            self._ended.result()

    def _join(self) -> Future[None]:
        if self._joined is None:
            self._joined = self._thread.submit(self._enter)
        return self._joined

    def _enter(self) -> None:
        self._ray.enter_context(session(self.layout.ray))
        self.check_room()

    def _start_engines(self, serving: Serving, sources: dict[str, Source], blocks: int) -> None:
        spec, limit = worker_spec(self.config, self.layout, serving, sources), self.most_workers or blocks
        joined = self._join()

        def start() -> Pool:
            joined.result()
            return self._engines.enter_context(Pool(spec, limit, lambda line: self.log(line)))

        self._pool = self._thread.submit(start)

    # ---------------------------------------------------------------- the limit
    @property
    def gpu_hours(self) -> float:
        """Hours that this command has occupied GPUs for; a worker without a GPU counts as one GPU."""
        started = self._pool is not None and self._pool.done() and not self._pool.exception()
        pool_s = self._pool.result().workers.seconds() if self._pool and started else 0.0
        return self._spent_hours + self.config.workers.gpu_hours(pool_s)

    def spend(self, hours: float) -> None:
        """Add GPU hours that something other than the pool has used."""
        self._spent_hours += hours

    def is_exhausted(self) -> bool:
        """Whether the command has used its `max_gpu_hours`."""
        return self.max_gpu_hours is not None and self.gpu_hours >= self.max_gpu_hours


@contextlib.contextmanager
def computing(
    config: SweepConfig, layout: Layout, max_gpu_hours: float | None, *, searches: bool, finetunes: bool = False
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
        if finetunes and not any(layout.runs()):  # what has begun had room
            room(finetune_group(config, layout))
        if searches and config.joint:
            stages = config.workers.engine.pipeline_parallel_size * (config.workers.count or 1)
            need = {key: stages * each for key, each in stage_need(config.workers).items()}
            check_beside(finetune_group(config, layout), need)

    most_workers = MOST_WORKERS if searches else None
    compute = Compute(
        config, layout, max_gpu_hours, is_new=_is_new(config, layout), most_workers=most_workers, check_room=check_room
    )
    _clear(layout)
    try:
        compute.begin()
        yield compute
    except EngineStartError as error:
        if not error.detail:
            raise
        write_atomic(layout.engine_error, error.detail)
        raise UserError(f"{error} (all of it: {layout.engine_error})") from None
    finally:
        compute.close()
        _clear(layout)


def _is_new(config: SweepConfig, layout: Layout) -> bool:
    """Whether the sweep has no answer yet: its folder has none, and no ledger is shared with it."""
    folders = (layout.manifest, layout.answers)
    return config.ledger is None and not any(folder.exists() for folder in folders)


def finetune_group(config: SweepConfig, layout: Layout) -> Group:
    """Make the worker group that trains the runs of the section `finetune`."""
    finetune, workers = config.finetune, config.workers
    assert finetune is not None, "the caller checks"
    return group_of(finetune, finetune.gpus_of_a_run(workers.gpus), layout.ray_train, workers.patience)


def _clear(layout: Layout) -> None:
    """Remove the engines' scratch, and half-written checkpoints of workers that were killed."""
    for folder in (layout.scratch, *layout.checkpoints.glob(".*.tmp")):
        shutil.rmtree(folder, ignore_errors=True)


def worker_spec(config: SweepConfig, layout: Layout, serving: Serving, sources: dict[str, Source]) -> WorkerSpec:
    """Collect what every worker needs to start its engine and to merge.

    Args:
        sources: name → resolved parent or candidate.
    """
    return WorkerSpec(
        serving=serving,
        tokenizer_files={file.name: file.read_bytes() for file in sorted(Path(serving.folder).iterdir())},
        boot=sources[next(iter(config.parents))],
        sources={
            f"{'parents' if name in config.parents else 'candidates'}.{name}": source
            for name, source in sources.items()
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
