"""How a sweep would be served: engines on a cluster, what they hold, how long they take; with the arithmetic."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Question
from orchestrator.sizing.layouts import Kind, check, host_engines, host_words, kinds
from orchestrator.sizing.nodes import ACCELERATORS, Node, describe_nodes
from orchestrator.sizing.placement import Fit, Shape, gb
from orchestrator.sizing.time import ARITHMETIC, MAPPED, PCIE, STREAMING, Estimate, estimate

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
    """
    Args:
        questions: of one recipe.

    Raises:
        UserError: an engine has no room, with the arithmetic.
    """
    check(config, shape, nodes)
    workers, limit = config.workers, config.workers.count or 1 << 30
    if not workers.gpus:
        there = max(1, min(limit, host_engines(config, shape, nodes)))
        told = "no estimate: nothing is known of the speed of these cores"
        return ServingPlan(there, 0, [], host_words(config, shape) + ", parents memory-mapped", None, None, told)
    found = [kind for kind in kinds(config, shape, nodes) if kind.engines]
    there = min(limit, sum(kind.engines for kind in found)) if found else workers.count or 1
    if not found or config.dtype == "float32":
        known = ", ".join(ACCELERATORS)
        told = f"no estimate: only for bfloat16 or float16 on GPUs that are known here ({known})"
        memory = f"{gb(shape.size)} of weights + KV cache"
        return ServingPlan(there, there * workers.gpus_held, [_kind(k) for k in found], memory, None, None, told)
    slowest = [estimate(questions, kind.own, there) for kind in found]
    each = max(slowest, key=lambda one: one.answer_s + one.merge_s)
    wall = recipes * (each.answer_s + each.merge_s) / there
    hours = workers.gpu_hours(wall * there)
    fit = found[slowest.index(each)].own
    time = _time(wall, hours, each, recipes, there, fit)
    return ServingPlan(there, there * workers.gpus_held, [_kind(kind) for kind in found], "", wall, hours, time)


def _kind(kind: Kind) -> KindPlan:
    own, better = kind.own, kind.best
    parents = f"{own.models} x {gb(own.shape.size)}, {PLACES[own.place]}"
    if own.place == "gpu":
        parents += f": {gb(own.parents)} of each GPU"
    else:
        share = f"of {gb(own.host)} that it has of the host's" if own.host else "(nothing is said of the host's memory)"
        parents += f": {gb(own.parents)} a GPU {share}"
    other = better.layout if better and better.layout != own.layout else None
    return KindPlan(
        describe_nodes(kind.nodes), own.layout.keys, kind.engines, own.words, own.tokens, own.sequences, parents,
        other.keys if other else None,
    )  # fmt: skip


def _time(wall: float, hours: float, each: Estimate, recipes: int, engines: int, fit: Fit) -> str:
    device = ACCELERATORS[fit.node.kind]
    arithmetic = f"{ARITHMETIC:.0%} of {device.flops / 1e12:.0f} TFLOP/s"
    streaming = f"{STREAMING:.0%} of {device.bandwidth / 1e12:.2f} TB/s"
    way = {"gpu": "", "pinned": f", parents at {PCIE / 1e9:.0f} GB/s a GPU",
           "mapped": f", parents from the page cache at {MAPPED / 1e9:.0f} GB/s a GPU"}[fit.place]  # fmt: skip
    return (
        f"roughly {duration(wall)}, {hours:.1f} GPU hours: {recipes} recipes x ({duration(each.answer_s)} of "
        f"answering, if every text is as long as it may be, + {duration(each.merge_s)} of merging) / {engines} "
        f"engines; assumed: {arithmetic} reading, {streaming} writing{way}"
    )


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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
