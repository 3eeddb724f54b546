"""An engine of every architecture answers for each of three swaps in a row as `lm_eval --model hf` does for mergekit's
checkpoint, in float32. vLLM's faults when weights are replaced show from the second time on."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from tasks.serving.vllm_engine import VllmEngine
from tests.helpers.merges import OTHERS
from tests.helpers.models import Models
from tests.helpers.swaps import three_swaps

ALWAYS = ("mixtral",)
"""Whose engine starts in `make test`; the others' start in `make prove`."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "architecture", [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.prove) for name in OTHERS]
)
def test_three_swaps_in_a_row(
    architecture: str, models: Models, start_engine: Callable[..., VllmEngine], tmp_path: Path
) -> None:
    folders = models(architecture, "float32")
    if architecture.startswith(("qwen3-moe", "mixtral")):
        # vLLM makes the process groups of experts with the first engine of a process, and only if that has experts.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            difference = process.submit(three_swaps, folders, tmp_path).result()
    else:
        difference = three_swaps(folders, tmp_path, start_engine)
    print(f"{architecture}: largest difference {difference:.1e}")
    assert difference < 1e-3
