"""The nodes of a cluster, as `plan --cluster` names them or as Ray reports them (`cluster.nodes`)."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError, hint


@dataclass(frozen=True)
class Accelerator:
    """A type of GPU, by its data sheet."""

    flops_per_s: float
    """Dense bfloat16 operations per second."""
    bytes_per_s: float
    """Memory bandwidth, in bytes per second."""
    memory_bytes: float
    """Memory, in bytes."""


ACCELERATORS = {
    "A100-40GB": Accelerator(312e12, 1.56e12, 40e9),
    "A100-80GB": Accelerator(312e12, 2.04e12, 80e9),
    "H100-80GB": Accelerator(989e12, 3.35e12, 80e9),
    "H200-141GB": Accelerator(989e12, 4.8e12, 141e9),
    "L4-24GB": Accelerator(121e12, 0.3e12, 24e9),
    "L40S-48GB": Accelerator(362e12, 0.864e12, 48e9),
}
"""Ray's accelerator type with the memory → the GPU. A type without a memory means the one with the least memory."""


@dataclass(frozen=True)
class Node:
    """One machine of a cluster."""

    gpus: int = 0
    kind: str = ""
    """Type of its GPUs: a key of ACCELERATORS, or a name that is unknown here."""
    gpu_bytes: float = 0
    """Bytes of each GPU's memory; 0 where it is unknown."""
    host_bytes: float = 0
    """Bytes of its main memory; 0 where it is unknown."""
    cpus: float | None = None
    """CPU cores; None where the number is unknown."""

    @property
    def ray_name(self) -> str:
        """Ray's accelerator type of its GPUs."""
        return self.kind.rpartition("-")[0] if self.kind in ACCELERATORS else self.kind

    def __str__(self) -> str:
        parts = [f"{self.gpus}x {self.kind or 'GPU'}"] if self.gpus else [f"{self.cpus or 0:g} cores"]
        return " + ".join([*parts, *([f"{self.host_bytes / 1e9:.0f}GB"] if self.host_bytes else [])])


def gpu_node(gpus: int, kind: str, host_bytes: float = 0, cpus: float | None = None) -> Node:
    """Make a node with this many GPUs of a type, with their memory from the data sheet.

    Args:
        kind: a key of ACCELERATORS, or Ray's accelerator type.
        host_bytes: main memory; 0 where it is unknown.
        cpus: cores; None where the number is unknown.
    """
    name = full_name(kind)
    return Node(gpus, name, ACCELERATORS[name].memory_bytes if name in ACCELERATORS else 0, host_bytes, cpus)


def full_name(kind: str) -> str:
    """Return the key of ACCELERATORS that a type means, `H100-80GB` for `H100`; an unknown type stays as it is."""
    return next((name for name in ACCELERATORS if kind in (name, name.rpartition("-")[0])), kind)


def describe_nodes(nodes: Sequence[Node]) -> str:
    """Describe nodes in the form that `parse_cluster` reads, with equal ones together."""
    return ", ".join(f"{count} nodes of {node}" if count > 1 else str(node) for node, count in Counter(nodes).items())


GROUP = re.compile(r"(?:(\d+) nodes? of )?(\d+) ?x ?([A-Za-z0-9-]+)(?: ?\+ ?(\d+) ?GB)?")


def parse_cluster(text: str) -> list[Node]:
    """Parse the nodes in a text such as `2 nodes of 8x H100-80GB + 2000GB, 4x A100-40GB`.

    A node is its GPUs and, after a +, its main memory in GB (10^9 bytes).

    Raises:
        UserError: it has another form, or names an unknown GPU.
    """
    nodes = []
    for part in text.split(","):
        match = GROUP.fullmatch(" ".join(part.split()))
        if match is None:
            raise UserError(
                f"--cluster: {part.strip()!r} is not of the form `[N nodes of] GPUSx KIND [+ MEMORYGB]`, as in "
                "'2 nodes of 8x H100-80GB + 2000GB, 4x A100-40GB'"
            )
        count, gpus, kind, host_gb = match.groups()
        if full_name(kind) not in ACCELERATORS:
            known = ", ".join(ACCELERATORS)
            raise UserError(f"--cluster: no GPU {kind!r} is known{hint(kind, ACCELERATORS)} (known: {known})")
        if not int(gpus) or count == "0":
            raise UserError(f"--cluster: {part.strip()!r} has no GPU; leave it out")
        nodes += int(count or 1) * [gpu_node(int(gpus), kind, float(host_gb or 0) * 1e9)]
    return nodes


def assumed_nodes(config: SweepConfig) -> list[Node]:
    """Return the nodes to plan for where no cluster is named and none runs.

    They are this machine for engines on CPUs, and for engines on GPUs one node with as many GPUs as the sweep's workers
    take.
    """
    workers = config.workers
    if not workers.gpus:
        host_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return [Node(host_bytes=host_bytes, cpus=os.cpu_count() or 1)]
    gpus = (workers.count or 1) * workers.gpus * workers.engine.ranks
    return [gpu_node(max(1, round(gpus)), workers.accelerator_type or "")]
