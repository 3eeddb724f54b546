"""What a cluster is made of: its nodes, named in `plan --cluster`, or as Ray counts them (`cluster.nodes`)."""

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
    """A GPU by its data sheet."""

    flops_per_s: float
    """Dense bfloat16 operations a second."""
    bytes_per_s: float
    """Bytes a second between memory and chip."""
    memory_bytes: float
    """Bytes of its memory."""


ACCELERATORS = {
    "A100-40GB": Accelerator(312e12, 1.56e12, 40e9),
    "A100-80GB": Accelerator(312e12, 2.04e12, 80e9),
    "H100-80GB": Accelerator(989e12, 3.35e12, 80e9),
    "H200-141GB": Accelerator(989e12, 4.8e12, 141e9),
    "L4-24GB": Accelerator(121e12, 0.3e12, 24e9),
    "L40S-48GB": Accelerator(362e12, 0.864e12, 48e9),
}
"""Ray's name and the memory → the GPU. Where Ray's name alone is known, the one with the least memory is meant."""


@dataclass(frozen=True)
class Node:
    """One machine."""

    gpus: int = 0
    kind: str = ""
    """The kind of its GPUs: a key of ACCELERATORS, or a name that is not known here."""
    gpu_bytes: float = 0
    """Bytes of each GPU's memory; 0 where its kind is not known."""
    host_bytes: float = 0
    """Bytes of its main memory; 0 where it is not known."""
    cpus: float | None = None
    """Cores; None where it is not known."""

    @property
    def ray_name(self) -> str:
        """Ray's name of its GPUs."""
        return self.kind.rpartition("-")[0] if self.kind in ACCELERATORS else self.kind

    def __str__(self) -> str:
        parts = [f"{self.gpus}x {self.kind or 'GPU'}"] if self.gpus else [f"{self.cpus or 0:g} cores"]
        return " + ".join([*parts, *([f"{self.host_bytes / 1e9:.0f}GB"] if self.host_bytes else [])])


def gpu_node(gpus: int, kind: str, host_bytes: float = 0, cpus: float | None = None) -> Node:
    """A node with this many GPUs of a kind, their memory from the data sheet.

    Args:
        kind: as people and Ray call it.
    """
    name = full_name(kind)
    return Node(gpus, name, ACCELERATORS[name].memory_bytes if name in ACCELERATORS else 0, host_bytes, cpus)


def full_name(kind: str) -> str:
    """The key of ACCELERATORS that is meant, `H100-80GB` for `H100`; a kind that is not known stays as it is."""
    return next((name for name in ACCELERATORS if kind in (name, name.rpartition("-")[0])), kind)


def describe_nodes(nodes: Sequence[Node]) -> str:
    """The nodes as `parse_cluster` reads them, those that are alike together."""
    return ", ".join(f"{count} nodes of {node}" if count > 1 else str(node) for node, count in Counter(nodes).items())


GROUP = re.compile(r"(?:(\d+) nodes? of )?(\d+) ?x ?([A-Za-z0-9-]+)(?: ?\+ ?(\d+) ?GB)?")


def parse_cluster(text: str) -> list[Node]:
    """The nodes that a text such as `2 nodes of 8x H100-80GB + 2000GB, 4x A100-40GB` names.

    A node is its GPUs and, after a +, its main memory in GB (10^9 bytes).

    Raises:
        UserError: it is not of that form, or names a GPU that is not known here.
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
    """The nodes to plan for where no cluster is named and none runs: this machine for engines on cores; for engines on
    GPUs one node with as many of them as the sweep's workers take."""
    workers = config.workers
    if not workers.gpus:
        host_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return [Node(host_bytes=host_bytes, cpus=os.cpu_count() or 1)]
    gpus = (workers.count or 1) * workers.gpus * workers.engine.ranks
    return [gpu_node(max(1, round(gpus)), workers.accelerator_type or "")]
