"""The parents are kept where they fit, and the plan says where that will be."""

from __future__ import annotations

import pytest

from orchestrator.config import Engine
from orchestrator.placement import WORKING, Parents, Place

GB = 10**9
PAIR = Parents(2, 16 * GB, Engine(kv_cache_gib=4, gpu_memory_utilization=0.9))


@pytest.mark.parametrize(
    ("gpu", "host", "expected"),
    [
        (0, 500 * GB, "mapped"),
        (80 * GB, 10 * GB, "gpu"),
        (40 * GB, 128 * GB, "pinned"),
        (40 * GB, 60 * GB, "mapped"),
    ],
)
def test_as_near_to_the_weights_as_they_fit(gpu: int, host: int, expected: Place) -> None:
    assert PAIR.place(gpu, host) == expected


def test_the_gpu_that_the_plan_names_is_the_one_that_is_large_enough() -> None:
    assert PAIR.place(PAIR.gpu_needed, 0) == "gpu"
    assert PAIR.place(PAIR.gpu_needed - 1, 0) != "gpu"
    served = 16 * GB
    assert PAIR.gpu_needed * 0.9 >= PAIR.size + served + 4 * 2**30 + WORKING - 1
    assert f"{PAIR.gpu_needed / 1e9:.0f} GB" in PAIR.describe(1.0)
    assert PAIR.describe(0.0).endswith("memory-mapped")


def test_the_ranks_of_an_engine_share_mapped_files() -> None:
    ranks = Parents(2, 16 * GB, Engine(tensor_parallel_size=2))
    assert ranks.place(80 * GB, 500 * GB) == "mapped"
    assert ranks.describe(1.0).endswith("memory-mapped")
