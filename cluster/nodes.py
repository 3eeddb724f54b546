"""The nodes of the cluster: which are alive, which are being drained, and what each has room for.

`plan` imports this where no sweep runs, so Ray is imported by the functions that call it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestrator.sizing import nodes as shapes

PREFIX = "accelerator_type:"
Resources = Mapping[str, float]


@dataclass(frozen=True)
class RayNode:
    """A node that is alive."""

    id: str
    name: str
    """Its host's name, for messages."""
    resources: Resources
    """All that it has, in use or not."""
    draining: bool
    """It will end soon (a spot instance's notice, `ray drain-node`, SIGTERM to `ray start --block`)."""

    def room(self, need: Resources) -> int:
        """Count how many times the node has the needed resources."""
        return min(int(self.resources.get(key, 0) // amount) for key, amount in need.items() if amount)


def alive_nodes() -> dict[str, RayNode]:
    """List the nodes that are alive, by their ids."""
    import ray

    draining = ray._private.state.state.get_draining_nodes()  # nowhere else in Ray 2.60 without its dashboard
    return {
        node["NodeID"]: RayNode(
            node["NodeID"], node["NodeManagerHostname"], node["Resources"], node["NodeID"] in draining
        )
        for node in ray.nodes()
        if node["Alive"]
    }


def oom_kills() -> int:
    """Count the processes that Linux killed for lack of memory since this machine started; 0 where it is not known."""
    file = Path("/proc/vmstat")
    lines = file.read_text().splitlines() if file.exists() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def oom_kills_on(node: str) -> int:
    """Count the processes that Linux killed for lack of memory on another node; 0 if it does not answer."""
    import ray
    from ray.exceptions import RayError

    try:
        return int(ray.get(_on(node, oom_kills).remote(), timeout=30))
    except RayError:
        return 0


def kill_on(node: str, pid: int) -> Any:
    """Kill a worker's process on a node; a process that hangs does not react to Ray's own request to exit.

    Returns:
        Ray's reference, which is ready when the process has been killed.
    """
    return _on(node, _kill).remote(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.cmdline()[:1] and process.cmdline()[0].startswith(
            "ray::"
        ):  # the pid may be another process's by now
            process.kill()


def _on(node: str, function: Callable[..., object]) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(function)


def living_nodes() -> list[shapes.Node]:
    """List the nodes for `plan`, as Ray counts them.

    Ray's `memory`, which leaves out the object store, stands for a node's. Of GPUs Ray reports only the name, so the
    smallest memory that is sold under the name is assumed.
    """
    return [_shape(node.resources) for node in alive_nodes().values()]


def _shape(resources: Resources) -> shapes.Node:
    kind = next((key.removeprefix(PREFIX) for key in resources if key.startswith(PREFIX)), "")
    return shapes.gpu_node(int(resources.get("GPU", 0)), kind, resources.get("memory", 0), resources.get("CPU", 0))
