"""Every architecture: live merging is mergekit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.merging.checkpoint import materialise
from tests.helpers.merges import OTHERS, live, recipe, stored
from tests.helpers.models import Models


@pytest.mark.parametrize("way", ["linear", "slerp"])
@pytest.mark.parametrize("architecture", OTHERS)
def test_the_bytes_are_mergekits(architecture: str, way: str, models: Models, tmp_path: Path) -> None:
    wanted = recipe(way, models(architecture, "bfloat16"), "bfloat16")
    expected, merged = stored(materialise(wanted, tmp_path / "checkpoint", tmp_path)), live(wanted, tmp_path)
    assert set(merged) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())
