"""Every method on every architecture, through mergekit's command line: `make prove`.

The contract suite holds a swapped engine against a fresh one; here the same engine answers for both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.common import mergekit_yaml
from tasks.serving.vllm_engine import VllmEngine
from tests.helpers.merges import ARCHITECTURES, DETERMINED, QUESTIONS, live, recipe, stored
from tests.helpers.models import Models

pytestmark = pytest.mark.prove


@pytest.fixture(scope="module", params=ARCHITECTURES)
def engine(
    request: pytest.FixtureRequest, models: Models, start_engine: Callable[..., VllmEngine]
) -> tuple[str, VllmEngine]:
    return request.param, start_engine(models(request.param, "bfloat16")["a"], "bfloat16")


@pytest.mark.parametrize("way", DETERMINED)
def test_live_merging_is_mergekit_yaml(
    engine: tuple[str, VllmEngine], way: str, models: Models, tmp_path: Path
) -> None:
    architecture, vllm = engine
    wanted = recipe(way, models(architecture, "bfloat16"), "bfloat16")
    checkpoint = mergekit_yaml(wanted, tmp_path / "checkpoint")
    merged, expected = live(wanted, tmp_path), stored(checkpoint)
    assert set(merged) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())
    vllm.load(wanted)
    held, answers = vllm.checksums(), vllm.answer(QUESTIONS)
    vllm.load_checkpoint(checkpoint)
    assert vllm.checksums() == held
    assert vllm.answer(QUESTIONS) == answers
