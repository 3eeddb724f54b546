"""Layouts that serve a model on a cluster: `plan` proposes one, and refuses the sweep's own where it cannot fit.

The sweep file decides, not this module: `tensor_parallel_size` and `pipeline_parallel_size` are part of the numeric
profile, so they must not change with the cluster at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from orchestrator.config.backends import BACKENDS
from orchestrator.config.sweep import SweepConfig
from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.core.errors import UserError
from orchestrator.core.text import gigabytes
from orchestrator.sizing.nodes import Node, describe_nodes
from orchestrator.sizing.placement import HOST_BLOCK, EngineLayout, Fit, Shape, layout_of

SHARES = (8, 4, 2)
"""Numbers of engines of a tiny model that may share a GPU."""
PROCESS_BYTES = 1.4e9
"""Bytes that a rank without a GPU takes at most, while it merges, besides weights, KV cache and parents; measured by
benchmarks/memory.py."""


@dataclass(frozen=True)
class NodeKind:
    """The nodes of one kind, and how engines fit on them."""

    nodes: list[Node]
    own: Fit
    """The fit of the sweep file's layout."""
    best: Fit | None
    """The fit of the layout that `plan` proposes; None where no layout fits."""

    @property
    def engines(self) -> int:
        """Number of engines with the sweep's own layout."""
        return engine_count(self.own.layout, self.nodes) if self.own.fits else 0


def engine_count(layout: EngineLayout, nodes: Sequence[Node]) -> int:
    """Count the engines that the nodes have GPUs for; a stage is on one node, and a node may have several stages."""
    return stage_count(layout, nodes) // layout.pipeline_parallel


def stage_count(layout: EngineLayout, nodes: Sequence[Node]) -> int:
    """Count the pipeline stages that the nodes have GPUs for."""
    return sum(int(node.gpus / (layout.tensor_parallel * layout.gpu_share) + 1e-9) for node in nodes)


def node_kinds(config: SweepConfig, shape: Shape, nodes: Sequence[Node]) -> list[NodeKind]:
    """Group the GPU nodes that the sweep may use by kind; those with GPUs of unknown memory are left out."""
    usable = [node for node in usable_nodes(config, nodes) if node.gpu_bytes]
    parents, engine, layout = len(config.parents), config.workers.engine, layout_of(config.workers)
    found = []
    for _, group in groupby(sorted(usable, key=lambda node: node.kind), key=lambda node: node.kind):
        alike = list(group)
        own = Fit(shape, parents, engine, layout, _least_host(alike))
        found.append(NodeKind(alike, own, best_fit(shape, parents, engine, alike)))
    return found


def usable_nodes(config: SweepConfig, nodes: Sequence[Node]) -> list[Node]:
    """Select the nodes with GPUs; where the sweep has `workers.accelerator_type`, only those with GPUs of that type."""
    wanted = config.workers.accelerator_type
    return [node for node in nodes if node.gpus and wanted in (None, node.ray_name)]


def best_fit(shape: Shape, parents: int, engine: EngineSettings, nodes: Sequence[Node]) -> Fit | None:
    """Choose the layout with the fewest GPUs that has room for a batch, else the one with the most room.

    Many small engines have more throughput than a few large ones, because the ranks of an engine wait for one another.
    Stages are for models that exceed a node, and then as few as the node's GPUs allow.

    Args:
        parents: number of parents that are merged.
        nodes: all of the same kind.

    Returns:
        The fit of the layout; None where no layout fits.
    """
    tensors = [n for n in range(1, max(node.gpus for node in nodes) + 1) if shape.divides(n)]

    def choose(layouts: Sequence[EngineLayout]) -> Fit | None:
        possible = [layout for layout in layouts if engine_count(layout, nodes)]
        fits = [Fit(shape, parents, engine, layout, _least_host(nodes)) for layout in possible]
        fitting = [fit for fit in fits if fit.fits and (fit.layout.gpu_share == 1 or _lacks_nothing(fit))]
        roomy = [fit for fit in fitting if fit.sequences >= fit.batch_sequences]
        if roomy:
            return min(roomy, key=lambda fit: fit.layout.gpus)
        return max(fitting, key=lambda fit: fit.sequences, default=None)

    if fit := choose([*(EngineLayout(gpu_share=1 / n) for n in SHARES), *map(EngineLayout, tensors)]):
        return fit
    for tensor in reversed(tensors):
        most = min(stage_count(EngineLayout(tensor), nodes), shape.layers)
        if fit := choose([EngineLayout(tensor, stages) for stages in range(2, most + 1)]):
            return fit
    return None


def _least_host(nodes: Sequence[Node]) -> Node:
    """Return the node with the least main memory per GPU."""
    return min(nodes, key=lambda node: node.host_bytes / node.gpus)


def _lacks_nothing(fit: Fit) -> bool:
    """Whether a fraction of a GPU has room for all that an engine on a whole GPU would use."""
    return fit.place == "gpu" and fit.sequences == fit.engine.max_num_seqs


def check_split(workers: Workers, shape: Shape) -> None:
    """Refuse ranks and stages that a model cannot be split over, on whatever cluster.

    Raises:
        UserError: vLLM would refuse them.
    """
    if not BACKENDS[workers.backend].loads_weights:
        return
    layout = layout_of(workers)
    if not shape.divides(layout.tensor_parallel):
        possible = [str(ranks) for ranks in range(1, shape.heads + 1) if shape.divides(ranks)]
        raise UserError(
            f"workers.engine.tensor_parallel_size: {layout.tensor_parallel} ranks do not divide the model "
            f"({shape.heads} heads, {shape.kv_heads} key-value heads, an MLP of {shape.mlp_width}, {shape.vocabulary} "
            f"tokens); what divides it: {', '.join(possible)}"
        )
    if layout.pipeline_parallel > shape.layers:
        raise UserError(
            f"workers.engine.pipeline_parallel_size: {layout.pipeline_parallel} stages, but the model has "
            f"{shape.layers} layers; lower it"
        )


def check_host_cache(workers: Workers, shape: Shape) -> None:
    """Refuse a KV cache of an engine without a GPU that is too small for one text of `max_model_len` tokens.

    It is what vLLM checks at its start (`check_enough_kv_cache_memory`): whole blocks, and one that it keeps empty.

    Raises:
        UserError: it is too small; with the size that is enough.
    """
    if workers.gpus or not BACKENDS[workers.backend].loads_weights:
        return
    engine, block_bytes = workers.engine, HOST_BLOCK * shape.token_bytes(layout_of(workers))
    needed_bytes = (math.ceil(engine.max_model_len / HOST_BLOCK) + 1) * block_bytes
    cache_bytes = int(engine.kv_cache_gib * 2**30)
    if needed_bytes > cache_bytes:
        tokens = (int(cache_bytes / block_bytes) - 1) * HOST_BLOCK
        shorter = f", or lower max_model_len to {tokens}" if tokens > 0 else ""
        raise UserError(
            f"workers.engine.kv_cache_gib is {engine.kv_cache_gib:g}, but a text of max_model_len "
            f"({engine.max_model_len:,} tokens) takes {needed_bytes / 2**20:,.2f} MiB of KV cache; raise it to "
            f"{math.ceil(needed_bytes / 2**30 * 1000) / 1000:g}{shorter}"
        )


def check_layout(config: SweepConfig, shape: Shape, nodes: Sequence[Node]) -> None:
    """Refuse a layout that `check_split` allows and that fits nowhere; on nodes with unknown GPUs it is assumed to fit.

    Raises:
        UserError: it fits nowhere; with the arithmetic, and what would fit.
    """
    if config.workers.gpus:
        _check_gpus(config, shape, usable_nodes(config, nodes), nodes)
    elif BACKENDS[config.workers.backend].loads_weights:
        check_host(config.workers, shape, max((node.host_bytes for node in nodes), default=0))


def _check_gpus(config: SweepConfig, shape: Shape, usable: Sequence[Node], nodes: Sequence[Node]) -> None:
    if not usable:
        wanted = config.workers.accelerator_type
        key, kind = ("accelerator_type", wanted) if wanted else ("gpus", "GPU")
        raise UserError(
            f"workers.{key}: the cluster has no {kind} ({describe_nodes(nodes)}); change it, or the cluster"
        )
    kinds = node_kinds(config, shape, usable)
    if all(node.gpu_bytes for node in usable) and not any(kind.engines for kind in kinds):
        reasons = " ".join(f"On {describe_nodes(kind.nodes)}: {_why(kind)}" for kind in kinds)
        raise UserError(f"workers.engine: an engine with {layout_of(config.workers).yaml} has no room. {reasons}")


def _why(kind: NodeKind) -> str:
    own, layout = kind.own, kind.own.layout
    if not own.fits:
        why = f"it needs {own.arithmetic}"
    else:
        why = f"it takes {layout.gpus:g} GPUs, {layout.tensor_parallel} of them on one node"
    way = f"What fits: {kind.best.layout.yaml}" if kind.best else "No layout fits: more GPUs, or larger ones"
    return f"{why}. {way}."


def check_host(workers: Workers, shape: Shape, host_bytes: float) -> None:
    """Refuse an engine without a GPU that exceeds a node.

    Args:
        host_bytes: of the node's main memory; 0 where it is unknown.

    Raises:
        UserError: the node is too small; with the arithmetic.
    """
    if host_bytes and host_bytes_needed(workers, shape) > host_bytes:
        raise UserError(
            f"workers.engine: an engine without a GPU needs {host_arithmetic(workers, shape)}, more than a node's "
            f"{gigabytes(host_bytes)}; lower kv_cache_gib, or take GPUs (workers.gpus: 1)"
        )


def host_bytes_needed(workers: Workers, shape: Shape) -> float:
    """Compute the bytes of main memory that an engine on the CPU needs.

    The parents are memory-mapped and not counted: the kernel decides how much of them stays in memory.
    """
    engine = workers.engine
    return shape.weight_bytes + engine.ranks * (engine.kv_cache_gib * 2**30 + PROCESS_BYTES)


def host_arithmetic(workers: Workers, shape: Shape) -> str:
    """Describe how the bytes of an engine on the CPU add up."""
    ranks = workers.engine.ranks
    cache, process = gigabytes(workers.engine.kv_cache_gib * 2**30), gigabytes(PROCESS_BYTES)
    each = f"{ranks} x ({cache} of KV cache + {process})" if ranks > 1 else f"{cache} of KV cache + {process}"
    total = gigabytes(host_bytes_needed(workers, shape))
    return f"{gigabytes(shape.weight_bytes)} of weights + {each} for the process = {total}"


def host_engine_count(config: SweepConfig, shape: Shape, nodes: Sequence[Node]) -> int:
    """Count the engines on CPUs that the nodes have room for, by their cores, and by their memory where it is known."""
    workers = config.workers
    cores, needed_bytes = workers.cpus * workers.engine.ranks, host_bytes_needed(workers, shape)
    count = 0
    for node in nodes:
        known = node.host_bytes and BACKENDS[workers.backend].loads_weights
        by_memory = int(node.host_bytes / needed_bytes) if known else 1 << 30
        count += min(int((node.cpus or 0) / cores), by_memory)
    return count
