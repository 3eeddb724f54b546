"""Which layout serves a model on a cluster: `plan` proposes it, and refuses the sweep's own where it cannot fit.

The sweep file decides, and not this module: `tensor_parallel_size` and `pipeline_parallel_size` are part of the numeric
profile, so they must not move with the cluster that happens to be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from orchestrator.config.backends import BACKENDS
from orchestrator.config.sweep import SweepConfig
from orchestrator.config.workers import Engine, Workers
from orchestrator.core.errors import UserError
from orchestrator.sizing.nodes import Node, describe_nodes
from orchestrator.sizing.placement import Fit, Layout, Shape, gb, layout_of

SHARES = (8, 4, 2)
"""Engines of a tiny model that may share a GPU."""
PROCESS = 1.4e9
"""Bytes that a rank without a GPU takes beside weights, cache and parents, at most, while it merges; compared by
benchmarks/memory.py."""


@dataclass(frozen=True)
class Kind:
    """The nodes of one kind, and how engines fit there."""

    nodes: list[Node]
    own: Fit
    """As the sweep says."""
    best: Fit | None
    """As it is proposed; None where no layout fits."""

    @property
    def engines(self) -> int:
        return engines(self.own.layout, self.nodes) if self.own.fits else 0


def engines(layout: Layout, nodes: Sequence[Node]) -> int:
    """How many of them the nodes hold. A stage is on one node; a node may hold several stages."""
    return stages(layout, nodes) // layout.pipeline


def stages(layout: Layout, nodes: Sequence[Node]) -> int:
    return sum(int(node.gpus / (layout.tensor * layout.share) + 1e-9) for node in nodes)


def kinds(config: SweepConfig, shape: Shape, nodes: Sequence[Node]) -> list[Kind]:
    """The GPU nodes that the sweep may use, by kind, those of unknown memory left out."""
    usable = [node for node in usable_nodes(config, nodes) if node.memory]
    models, engine, layout = len(config.parents), config.workers.engine, layout_of(config.workers)
    found = []
    for _, group in groupby(sorted(usable, key=lambda node: node.kind), key=lambda node: node.kind):
        alike = list(group)
        own = Fit(shape, models, engine, layout, _least_host(alike))
        found.append(Kind(alike, own, best(shape, models, engine, alike)))
    return found


def usable_nodes(config: SweepConfig, nodes: Sequence[Node]) -> list[Node]:
    """Those with GPUs, of the kind that the sweep is pinned to, where it is."""
    wanted = config.workers.accelerator_type
    return [node for node in nodes if node.gpus and wanted in (None, node.name)]


def best(shape: Shape, models: int, engine: Engine, nodes: Sequence[Node]) -> Fit | None:
    """The layout with the fewest GPUs that leaves a batch its room, else the one with the most room; None where nothing
    fits. More engines answer more than larger ones do: what is cut has to wait for its other parts. Stages are for what
    exceeds a node, and then as few of them as the node's GPUs allow.

    Args:
        nodes: all of one kind.
    """
    tensors = [n for n in range(1, max(node.gpus for node in nodes) + 1) if shape.divides(n)]

    def choose(layouts: Sequence[Layout]) -> Fit | None:
        there = [layout for layout in layouts if engines(layout, nodes)]
        fits = [Fit(shape, models, engine, layout, _least_host(nodes)) for layout in there]
        fitting = [fit for fit in fits if fit.fits and (fit.layout.share == 1 or _holds_all(fit))]
        roomy = [fit for fit in fitting if fit.sequences >= fit.batch]
        if roomy:
            return min(roomy, key=lambda fit: fit.layout.gpus)
        return max(fitting, key=lambda fit: fit.sequences, default=None)

    if fit := choose([*(Layout(share=1 / n) for n in SHARES), *(Layout(tensor) for tensor in tensors)]):
        return fit
    for tensor in reversed(tensors):
        most = min(stages(Layout(tensor), nodes), shape.layers)
        if fit := choose([Layout(tensor, pipeline) for pipeline in range(2, most + 1)]):
            return fit
    return None


def _least_host(nodes: Sequence[Node]) -> Node:
    return min(nodes, key=lambda node: node.host / node.gpus)


def _holds_all(fit: Fit) -> bool:
    """Whether a share of a GPU holds all that an engine of its own would use."""
    return fit.place == "gpu" and fit.sequences == fit.engine.max_num_seqs


def check(config: SweepConfig, shape: Shape, nodes: Sequence[Node]) -> None:
    """Refuse a layout that fits nowhere; nodes of unknown GPUs get the benefit of the doubt.

    Raises:
        UserError: with the arithmetic, and what would fit.
    """
    if config.workers.gpus:
        _check_gpus(config, shape, usable_nodes(config, nodes), nodes)
    elif BACKENDS[config.workers.backend].loads_weights:
        _check_host(config, shape, nodes)


def _check_gpus(config: SweepConfig, shape: Shape, usable: Sequence[Node], nodes: Sequence[Node]) -> None:
    if not usable:
        wanted = config.workers.accelerator_type
        key, kind = ("accelerator_type", wanted) if wanted else ("gpus", "GPU")
        raise UserError(
            f"workers.{key}: the cluster has no {kind} ({describe_nodes(nodes)}); change it, or the cluster"
        )
    found = kinds(config, shape, usable)
    if all(node.memory for node in usable) and not any(kind.engines for kind in found):
        told = " ".join(f"On {describe_nodes(kind.nodes)}: {_why(kind)}" for kind in found)
        raise UserError(f"workers.engine: an engine with {layout_of(config.workers).keys} has no room. {told}")


def _why(kind: Kind) -> str:
    own, layout = kind.own, kind.own.layout
    if not own.shape.divides(layout.tensor):
        numbers = f"{own.shape.heads} heads, {own.shape.kv_heads} key-value heads, an MLP of {own.shape.width}"
        why = f"{layout.tensor} ranks do not divide the model ({numbers}, {own.shape.vocabulary} tokens)"
    elif not own.fits:
        why = f"it needs {own.words}"
    else:
        why = f"it takes {layout.gpus:g} GPUs, {layout.tensor} of them on one node"
    way = f"What fits: {kind.best.layout.keys}" if kind.best else "No layout fits: more GPUs, or larger ones"
    return f"{why}. {way}."


def _check_host(config: SweepConfig, shape: Shape, nodes: Sequence[Node]) -> None:
    need = host_need(config.workers, shape)
    most = max((node.host for node in nodes), default=0)
    if most and need > most:
        raise UserError(
            f"workers.engine: an engine without a GPU needs {host_words(config, shape)}, but the largest node has "
            f"{gb(most)}; lower kv_cache_gib, or take GPUs (workers.gpus: 1)"
        )


def host_need(workers: Workers, shape: Shape) -> float:
    """Bytes of an engine on cores. The parents are memory-mapped: what of them stays in memory is up to the kernel."""
    engine = workers.engine
    return shape.size + engine.ranks * (engine.kv_cache_gib * 2**30 + PROCESS)


def host_words(config: SweepConfig, shape: Shape) -> str:
    ranks = config.workers.engine.ranks
    cache, process = gb(config.workers.engine.kv_cache_gib * 2**30), gb(PROCESS)
    each = f"{ranks} x ({cache} of KV cache + {process})" if ranks > 1 else f"{cache} of KV cache + {process}"
    return f"{gb(shape.size)} of weights + {each} for the process = {gb(host_need(config.workers, shape))}"


def host_engines(config: SweepConfig, shape: Shape, nodes: Sequence[Node]) -> int:
    """How many engines on cores the nodes hold: by their cores, and by their memory where it is known."""
    each, need = config.workers.cpus * config.workers.engine.ranks, host_need(config.workers, shape)
    by_memory = BACKENDS[config.workers.backend].loads_weights
    return sum(min(int((n.cpus or 0) / each), int(n.host / need) if n.host and by_memory else 1 << 30) for n in nodes)
