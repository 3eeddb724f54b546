"""The nodes of the cluster as they are now: which are alive, which are about to go, and what each has room for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.sizing import nodes as shapes

PREFIX = "accelerator_type:"
Resources = Mapping[str, float]


@dataclass(frozen=True)
class Node:
    id: str
    name: str
    """Its host's, for people."""
    resources: Resources
    """All that it has, in use or not."""
    draining: bool
    """It was told to go (a spot instance's notice, `ray drain-node`, SIGTERM to `ray start --block`)."""

    def room(self, need: Resources) -> int:
        """How many times it has the needed resources."""
        return min(int(self.resources.get(key, 0) // amount) for key, amount in need.items() if amount)


def alive_nodes() -> dict[str, Node]:
    """By id."""
    draining = ray._private.state.state.get_draining_nodes()  # Ray 2.60 tells it nowhere else without its dashboard
    return {
        node["NodeID"]: Node(node["NodeID"], node["NodeManagerHostname"], node["Resources"], node["NodeID"] in draining)
        for node in ray.nodes()
        if node["Alive"]
    }


def oom_kills() -> int:
    """Processes that Linux killed on this machine for want of memory, since it started; 0 where it does not say."""
    file = Path("/proc/vmstat")
    lines = file.read_text().splitlines() if file.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def oom_kills_on(node: str) -> int:
    """The same of another node; 0 if it does not answer."""
    try:
        return int(ray.get(_on(node, oom_kills).remote(), timeout=30))
    except RayError:
        return 0


def kill_on(node: str, pid: int) -> None:
    """End a worker's process there. Ray asks it to go, which a process that hangs does not hear."""
    _on(node, _kill).remote(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::"):  # its number may be another's by now
            process.kill()


def _on(node: str, function: Callable[..., object]) -> Any:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)


def living_nodes() -> list[shapes.Node]:
    """For `plan`, as Ray counts them. Its `memory`, which leaves out the object store, stands for a node's; of GPUs it
    knows the name alone, so that the one with the least memory is meant."""
    return [_shape(node.resources) for node in alive_nodes().values()]


def _shape(resources: Resources) -> shapes.Node:
    kind = next((key.removeprefix(PREFIX) for key in resources if key.startswith(PREFIX)), "")
    return shapes.gpu_node(int(resources.get("GPU", 0)), kind, resources.get("memory", 0), resources.get("CPU", 0))
