"""How a sweep would be served: the engines on a cluster, their memory and their time, with the arithmetic."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Question
from orchestrator.core.text import duration, gigabytes
from orchestrator.sizing.layouts import NodeKind, check_layout, host_arithmetic, host_engine_count, node_kinds
from orchestrator.sizing.nodes import ACCELERATORS, Node, describe_nodes
from orchestrator.sizing.placement import Fit, Shape
from orchestrator.sizing.time import (
    ARITHMETIC_SHARE,
    MAPPED_BYTES_PER_S,
    PCIE_BYTES_PER_S,
    STREAMING_SHARE,
    Estimate,
    estimate,
)

PLACES = {"gpu": "in GPU memory", "pinned": "pinned in host memory", "mapped": "memory-mapped"}


@dataclass(frozen=True)
class KindPlan:
    """The engines on the nodes of one kind."""

    nodes: str
    """The nodes, in words."""
    layout: str
    """The keys of `workers` that lay out an engine, as YAML."""
    engines: int
    memory: str
    """The arithmetic of an engine's fullest GPU."""
    tokens: int
    """Tokens that fit into an engine's KV cache."""
    sequences: int
    """Sequences of `max_model_len` tokens that fit into it at once."""
    parents: str
    """Where the parents are, and the memory that they take."""
    proposed: str | None
    """A better layout: fewer GPUs for each engine, or room for more sequences; None where the sweep's is the best."""


@dataclass(frozen=True)
class ServingPlan:
    """The engines of a sweep, their memory and their time."""

    engines: int
    gpus: float
    """GPUs of all engines together."""
    kinds: list[KindPlan]
    """Empty for engines on CPU cores, and where the kind of GPU is not known."""
    memory: str
    """The arithmetic of an engine where the time cannot be estimated; else empty, as `kinds` have it."""
    wall_s: float | None
    """Rough upper estimate in seconds; None where the speed of the workers is not known."""
    gpu_hours: float | None
    """The same in hours of GPU time."""
    time: str
    """The time in words, with the assumptions."""


def plan_serving(
    config: SweepConfig, shape: Shape, nodes: Sequence[Node], questions: Collection[Question], recipes: int
) -> ServingPlan:
    """Work out the engines that a cluster has room for, and the time that the grid takes on them.

    Args:
        questions: those of one recipe.
        recipes: number of recipes.

    Raises:
        UserError: an engine does not fit; the message has the arithmetic.
    """
    check_layout(config, shape, nodes)
    workers, limit = config.workers, config.workers.count or 1 << 30
    if not workers.gpus:
        engines = max(1, min(limit, host_engine_count(config, shape, nodes)))
        note = "no estimate: nothing is known of the speed of these cores"
        return ServingPlan(
            engines, 0, [], host_arithmetic(workers, shape) + ", parents memory-mapped", None, None, note
        )
    found = [kind for kind in node_kinds(config, shape, nodes) if kind.engines]
    engines = min(limit, sum(kind.engines for kind in found)) if found else workers.count or 1
    if not found or config.dtype == "float32":
        known = ", ".join(ACCELERATORS)
        note = f"no estimate: only for bfloat16 or float16 on GPUs that are known here ({known})"
        memory = f"{gigabytes(shape.weight_bytes)} of weights + KV cache"
        return ServingPlan(engines, engines * workers.gpus_held, [_kind(k) for k in found], memory, None, None, note)
    estimates = [estimate(questions, kind.own, engines) for kind in found]
    slowest = max(estimates, key=lambda one: one.answer_s + one.merge_s)
    wall_s = recipes * (slowest.answer_s + slowest.merge_s) / engines
    gpu_hours = workers.gpu_hours(wall_s * engines)
    fit = found[estimates.index(slowest)].own
    time = _time(wall_s, gpu_hours, slowest, recipes, engines, fit)
    gpus = engines * workers.gpus_held
    return ServingPlan(engines, gpus, [_kind(kind) for kind in found], "", wall_s, gpu_hours, time)


def _kind(kind: NodeKind) -> KindPlan:
    own, better = kind.own, kind.best
    parents = f"{own.parents} x {gigabytes(own.shape.weight_bytes)}, {PLACES[own.place]}"
    if own.place == "gpu":
        parents += f": {gigabytes(own.parent_bytes)} of each GPU"
    else:
        share = (
            f"of its {gigabytes(own.host_bytes)} of host memory"
            if own.host_bytes
            else "(the host's memory is not known)"
        )
        parents += f": {gigabytes(own.parent_bytes)} a GPU {share}"
    proposed = better.layout if better and better.layout != own.layout else None
    return KindPlan(
        describe_nodes(kind.nodes), own.layout.yaml, kind.engines, own.arithmetic, own.cache_tokens, own.sequences,
        parents, proposed.yaml if proposed else None,
    )  # fmt: skip


def _time(wall_s: float, gpu_hours: float, each: Estimate, recipes: int, engines: int, fit: Fit) -> str:
    """Describe an estimate, with the speeds that it assumes."""
    device = ACCELERATORS[fit.node.kind]
    arithmetic = f"{ARITHMETIC_SHARE:.0%} of {device.flops_per_s / 1e12:.0f} TFLOP/s"
    streaming = f"{STREAMING_SHARE:.0%} of {device.bytes_per_s / 1e12:.2f} TB/s"
    pinned, mapped = f"{PCIE_BYTES_PER_S / 1e9:.0f}", f"{MAPPED_BYTES_PER_S / 1e9:.0f}"
    way = {"gpu": "", "pinned": f", parents at {pinned} GB/s a GPU",
           "mapped": f", parents from the page cache at {mapped} GB/s a GPU"}[fit.place]  # fmt: skip
    return (
        f"roughly {duration(wall_s)}, {gpu_hours:.1f} GPU hours: {recipes} recipes x ({duration(each.answer_s)} of "
        f"answering, if every text is as long as it may be, + {duration(each.merge_s)} of merging) / {engines} "
        f"engines; assumed: {arithmetic} reading, {streaming} writing{way}"
    )


def describe_serving(plan: ServingPlan) -> list[str]:
    """Describe how a sweep would be served in lines for a terminal."""
    lines = [f"engines    {plan.engines}" + (f" on {plan.gpus:g} GPUs" if plan.gpus else "")]
    for kind in plan.kinds:
        lines += [
            f"             {kind.nodes}: {kind.engines} with {kind.layout}",
            f"             {kind.memory}",
            f"             {kind.sequences} whole sequences at once; parents: {kind.parents}",
        ]
        if kind.proposed:
            lines.append(f"             proposed here: {kind.proposed}")
    if plan.memory:
        lines.append(f"             {plan.memory}")
    return [*lines, f"time       {plan.time}"]
