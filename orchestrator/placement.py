"""Where a worker keeps the parents while it merges them: as near to the engine's weights as they fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from orchestrator.config import Engine, SweepConfig

Place = Literal["gpu", "pinned", "mapped"]
"""GPU memory; page-locked host memory, from which a GPU copies fastest; or the safetensors files as they are mapped."""

WORKING = 4 * 2**30
"""Bytes for what vLLM computes with (activations, CUDA graphs) and for the pieces that a merge works on."""


@dataclass(frozen=True)
class Parents:
    models: int
    """How many checkpoints the sweep merges; those that only take part as they are are not kept."""
    weights: int
    """Bytes of one, in the dtype that it is served in."""
    engine: Engine

    @property
    def size(self) -> int:
        """In bytes."""
        return self.weights * self.models

    @property
    def gpu_needed(self) -> int:
        """Bytes of the GPU that holds them beside the served weights, a KV cache of `kv_cache_gib` and `WORKING`."""
        needed = self.size + self.weights + self.engine.kv_cache_gib * 2**30 + WORKING
        return int(needed / self.engine.gpu_memory_utilization)

    def place(self, gpu: int, host: int) -> Place:
        """
        Args:
            gpu: bytes of the worker's GPU, in all; 0 for none.
            host: bytes of its machine's memory, divided by the GPUs there.
        """
        if not gpu or self.engine.tensor_parallel_size > 1:
            return "mapped"  # the ranks of an engine share the mapped pages, and each takes its shard
        if gpu >= self.gpu_needed:
            return "gpu"
        return "pinned" if self.size <= host / 2 else "mapped"

    def describe(self, gpus: float) -> str:
        """For people, before a GPU is there to be measured."""
        told = f"{self.models} x {self.weights / 1e9:.2f} GB, "
        if not gpus or self.engine.tensor_parallel_size > 1:
            return told + "memory-mapped"
        return told + f"in memory of GPUs from {self.gpu_needed / 1e9:.0f} GB on, else of the host, pinned if they fit"


def weight_bytes(config: SweepConfig, parameters: int) -> int:
    """Of one model, in the dtype that it is served in."""
    return parameters * (4 if config.dtype == "float32" else 2)
