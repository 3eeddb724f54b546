"""The memory that an engine on a GPU asks vLLM for."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.sizing.nodes import gpu_node
from orchestrator.sizing.placement import WORKING_BYTES, EngineLayout, Fit, Shape
from tasks.serving.boot import Boot

TINY = Shape(134_515_008, 30, 9, 3, 64, 576, 1536, 49152, True, 2)


@pytest.mark.parametrize("engines", [1, 2, 4, 8])
def test_engines_that_share_a_gpu_take_no_more_than_their_shares(engines: int) -> None:
    """And each says how large its cache is: what is free at its start is not its own alone."""
    settings, node = EngineSettings(), gpu_node(1, "H100-80GB")
    workers = Workers(gpus=1 / engines, engine=settings)
    fit = Fit(TINY, 2, settings, EngineLayout(gpu_share=1 / engines), node)
    asked = Boot(Path(), Path(), "bfloat16", workers, 2).memory(fit)
    assert fit.place == "gpu" and ("kv_cache_memory_bytes" in asked) == (engines > 1)
    taken = asked["gpu_memory_utilization"] * node.gpu_bytes
    assert engines * (taken + fit.parent_bytes) <= settings.gpu_memory_utilization * node.gpu_bytes + 1
    if engines > 1:
        assert asked["kv_cache_memory_bytes"] + fit.weight_bytes + WORKING_BYTES <= taken
