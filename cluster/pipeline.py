"""Where an engine runs: on one node, or, with several pipeline stages, wherever there is room for each stage.

The resources of an actor are all on one node; so an engine with one stage is one actor, whatever its tensor
parallelism, and Ray starts it where all its GPUs are. An engine with several stages has a placement group with a bundle
for each: the worker is in the first, and starts the others (`PipelineStage`), which end with it.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.errors import described, portable
from cluster.spec import WorkerSpec
from orchestrator.config.workers import Workers
from orchestrator.core.files import make_private
from orchestrator.core.packages import check_packages
from orchestrator.models.fetch import bring
from orchestrator.recipes.recipe import Point, single
from tasks.merging.checkpoint import materialise, with_tokenizer
from tasks.merging.plain import plain_folder
from tasks.serving.boot import Boot, Span, prepare, run_stage


def stage_need(workers: Workers) -> dict[str, float]:
    """List the resources that one stage of an engine needs on one node, as Ray counts them."""
    ranks = workers.engine.tensor_parallel_size
    need = {"CPU": workers.cpus * ranks, "GPU": workers.gpus * ranks}
    if workers.accelerator_type:
        need[f"accelerator_type:{workers.accelerator_type}"] = 0.001  # as Ray itself requests it
    return {key: amount for key, amount in need.items() if amount}


def stage_options(workers: Workers, group: Any = None, index: int = 0) -> dict[str, Any]:
    """Make Ray's options of the actor that is a stage.

    Args:
        group: the engine's placement group, where it has one.
        index: of the stage's bundle in it.
    """
    need = stage_need(workers)
    options = {"num_cpus": need.pop("CPU"), "num_gpus": need.pop("GPU", 0), "resources": need, "max_restarts": 0}
    if group is not None:
        options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    return options


class Room:
    """Room for an engine in the cluster; it stays reserved while one engine after another runs there."""

    def __init__(self, workers: Workers) -> None:
        stages = workers.engine.pipeline_parallel_size
        # On as few nodes as there is room: each stage sends its activations to the next.
        self._group = placement_group([stage_need(workers)] * stages, strategy="PACK") if stages > 1 else None
        self.options = stage_options(workers, self._group)

    def close(self) -> None:
        """Give the room back to the cluster."""
        if self._group is not None:
            remove_placement_group(self._group)


def boot_of(spec: WorkerSpec, scratch: Path, span: Span | None = None) -> Boot:
    """Bring an engine's files to this node.

    Args:
        scratch: a folder of this process alone; what is in it is removed.

    Returns:
        What the engine starts with.
    """
    bring(spec.sources)
    # What a worker that died here left half-written (mergekit's merged adapters, say) must not be found again.
    shutil.rmtree(scratch, ignore_errors=True)
    tokenizer = make_private(scratch / "tokenizer")
    for name, data in spec.tokenizer_files.items():
        (tokenizer / name).write_bytes(data)
    model = plain_folder(replace(spec.boot, lora=None), scratch)
    if spec.boot.rows is not None:
        # The engine has the rows of the served tokenizer from the start.
        first = with_tokenizer(single(spec.boot, spec.dtype, Point("parent")), tokenizer)
        merged = materialise(first, scratch / "boot", scratch)
        model = plain_folder(replace(spec.boot, model=str(merged), revision=None, lora=None), scratch)
    # vLLM looks for the model's type beside the tokenizer too, and waits and tries again where there is none.
    shutil.copyfile(model / "config.json", tokenizer / "config.json")
    return Boot(model, tokenizer, spec.dtype, spec.workers, spec.models, spec.drafts, span)


class PipelineStage:
    """The process of a stage beyond the first."""

    def __init__(self, spec: WorkerSpec, scratch: str, span: Span) -> None:
        self.spec, self.scratch, self.span = spec, scratch, span

    @portable
    def open(self) -> None:
        """Bring the files to this node, and check that the stage fits, before the other stages wait for it.

        Raises:
            RemoteError: a parent is not available here, or the stage does not fit.
        """
        check_packages()
        os.environ["VLLM_HOST_IP"] = ray.util.get_node_ip_address()
        self.boot = boot_of(self.spec, Path(self.scratch) / f"stage-{self.span.stage}", self.span)
        prepare(self.spec.workers)
        _ = self.boot.fit

    @portable
    def run(self) -> None:
        """Run the ranks of this stage until they end."""
        run_stage(self.boot)


def open_stages(spec: WorkerSpec, scratch: Path) -> Span | None:
    """Start the stages beyond the first, from the worker that is the first; None where there are none.

    When one ends, so does this process: the engine is broken, and the pool starts another.

    Raises:
        RayError: one cannot start.
    """
    count = spec.workers.engine.pipeline_parallel_size
    if count == 1:
        return None
    group, address = ray.util.get_current_placement_group(), ray.util.get_node_ip_address()
    os.environ["VLLM_HOST_IP"] = address
    with socket.socket() as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    stages = [
        ray.remote(PipelineStage).options(**stage_options(spec.workers, group, index)).remote(
            spec, str(scratch), Span(address, port, index)
        )
        for index in range(1, count)
    ]  # fmt: skip
    ray.get([stage.open.remote() for stage in stages])
    threading.Thread(target=_watch, args=([stage.run.remote() for stage in stages], stages), daemon=True).start()
    return Span(address, port)


def _watch(runs: list[Any], stages: list[Any]) -> None:
    """End this process when a stage ends; the handles are kept, because an actor ends with its last one."""
    ready, _ = ray.wait(runs, num_returns=1)
    try:
        ray.get(ready)
        why = "its ranks ended"
    except Exception as error:
        why = str(described(error))
    print(f"a stage of the engine over {len(stages) + 1} ended: {why}", file=sys.stderr, flush=True)
    os._exit(1)
