"""How a sweep would be served: engines on a cluster, what they hold, how long they take; with the arithmetic."""

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
    layout: str
    engines: int
    memory: str
    """The arithmetic of its fullest GPU."""
    tokens: int
    """That an engine's KV cache holds."""
    sequences: int
    """Of `max_model_len` tokens, at once."""
    parents: str
    """Where they are, and what they take."""
    proposed: str | None
    """Another layout, with fewer GPUs an engine or room for more sequences; None where the sweep's own is the one."""


@dataclass(frozen=True)
class ServingPlan:
    engines: int
    gpus: float
    """Of all engines."""
    kinds: list[KindPlan]
    """Empty for engines on cores, and where nothing is known of the GPUs."""
    memory: str
    """Of an engine where `kinds` is empty."""
    wall_s: float | None
    """Seconds at most and roughly; None where nothing is known of the workers' speed."""
    gpu_hours: float | None
    time: str
    """The time in words, with what it rests on."""


def plan_serving(
    config: SweepConfig, shape: Shape, nodes: Sequence[Node], questions: Collection[Question], recipes: int
) -> ServingPlan:
    """Args:
        questions: of one recipe.

    Raises:
        UserError: an engine has no room, with the arithmetic.
    """
    check_layout(config, shape, nodes)
    workers, limit = config.workers, config.workers.count or 1 << 30
    if not workers.gpus:
        there = max(1, min(limit, host_engine_count(config, shape, nodes)))
        note = "no estimate: nothing is known of the speed of these cores"
        return ServingPlan(there, 0, [], host_arithmetic(workers, shape) + ", parents memory-mapped", None, None, note)
    found = [kind for kind in node_kinds(config, shape, nodes) if kind.engines]
    there = min(limit, sum(kind.engines for kind in found)) if found else workers.count or 1
    if not found or config.dtype == "float32":
        known = ", ".join(ACCELERATORS)
        note = f"no estimate: only for bfloat16 or float16 on GPUs that are known here ({known})"
        memory = f"{gigabytes(shape.weight_bytes)} of weights + KV cache"
        return ServingPlan(there, there * workers.gpus_held, [_kind(k) for k in found], memory, None, None, note)
    slowest = [estimate(questions, kind.own, there) for kind in found]
    each = max(slowest, key=lambda one: one.answer_s + one.merge_s)
    wall = recipes * (each.answer_s + each.merge_s) / there
    hours = workers.gpu_hours(wall * there)
    fit = found[slowest.index(each)].own
    time = _time(wall, hours, each, recipes, there, fit)
    return ServingPlan(there, there * workers.gpus_held, [_kind(kind) for kind in found], "", wall, hours, time)


def _kind(kind: NodeKind) -> KindPlan:
    own, better = kind.own, kind.best
    parents = f"{own.parents} x {gigabytes(own.shape.weight_bytes)}, {PLACES[own.place]}"
    if own.place == "gpu":
        parents += f": {gigabytes(own.parent_bytes)} of each GPU"
    else:
        share = (
            f"of {gigabytes(own.host_bytes)} that it has of the host's"
            if own.host_bytes
            else "(nothing is said of the host's memory)"
        )
        parents += f": {gigabytes(own.parent_bytes)} a GPU {share}"
    other = better.layout if better and better.layout != own.layout else None
    return KindPlan(
        describe_nodes(kind.nodes), own.layout.yaml, kind.engines, own.arithmetic, own.cache_tokens, own.sequences,
        parents, other.yaml if other else None,
    )  # fmt: skip


def _time(wall: float, hours: float, each: Estimate, recipes: int, engines: int, fit: Fit) -> str:
    device = ACCELERATORS[fit.node.kind]
    arithmetic = f"{ARITHMETIC_SHARE:.0%} of {device.flops_per_s / 1e12:.0f} TFLOP/s"
    streaming = f"{STREAMING_SHARE:.0%} of {device.bytes_per_s / 1e12:.2f} TB/s"
    pinned, mapped = f"{PCIE_BYTES_PER_S / 1e9:.0f}", f"{MAPPED_BYTES_PER_S / 1e9:.0f}"
    way = {"gpu": "", "pinned": f", parents at {pinned} GB/s a GPU",
           "mapped": f", parents from the page cache at {mapped} GB/s a GPU"}[fit.place]  # fmt: skip
    return (
        f"roughly {duration(wall)}, {hours:.1f} GPU hours: {recipes} recipes x ({duration(each.answer_s)} of "
        f"answering, if every text is as long as it may be, + {duration(each.merge_s)} of merging) / {engines} "
        f"engines; assumed: {arithmetic} reading, {streaming} writing{way}"
    )


def describe_serving(plan: ServingPlan) -> list[str]:
    """For people."""
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
