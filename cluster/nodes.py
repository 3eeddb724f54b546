"""The living nodes of a Ray cluster, for `plan` and for whoever places engines there."""

from __future__ import annotations

import ray

from orchestrator.nodes import Node, gpu_node

PREFIX = "accelerator_type:"


def living_nodes() -> list[Node]:
    """As Ray counts them. Its `memory`, which leaves out the object store, stands for a node's; of GPUs it knows the
    name alone, so that the one with the least memory is meant."""
    return [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _node(resources: dict[str, float]) -> Node:
    kind = next((key.removeprefix(PREFIX) for key in resources if key.startswith(PREFIX)), "")
    return gpu_node(int(resources.get("GPU", 0)), kind, resources.get("memory", 0), resources.get("CPU", 0))
