"""The estimate of time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.config.workers import EngineSettings
from orchestrator.core.records import Decoding, Question
from orchestrator.sizing.nodes import gpu_node
from orchestrator.sizing.placement import EngineLayout, Fit, Shape
from orchestrator.sizing.time import PCIE_BYTES_PER_S, estimate, merge_seconds


def fit(**engine: object) -> Fit:
    model = Shape(8 * 10**9, 32, 32, 8, 128, 4096, 14336, 128256, False, 2)
    return Fit(model, 2, EngineSettings.model_validate(engine), EngineLayout(), gpu_node(1, "H100"))


def test_the_estimate_is_arithmetic_for_reading_and_streaming_for_writing() -> None:
    context = tuple(range(1000))
    choices = [Question(context, (token,)) for token in range(4)]
    read = estimate(choices, fit(), engines=1).answer_s
    assert read == pytest.approx(1004 * 16e9 / (0.4 * 989e12)), "a shared context is read once"
    text = [Question((1,), decoding=Decoding(100, (), seed=i)) for i in range(4)]
    written = estimate(text, fit(), engines=1).answer_s
    assert written == pytest.approx(100 * 16e9 / (0.5 * 3.35e12), rel=1e-3), "four texts are written together"
    assert estimate(text, fit(), engines=2).answer_s == pytest.approx(2 * written, rel=1e-3), "two, on each of two"
    assert estimate(text, fit(max_num_seqs=1), engines=1).answer_s == pytest.approx(4 * written, rel=1e-3)
    both = estimate([*choices, *text], fit(), engines=1)
    assert both.answer_s == pytest.approx(read + written, rel=1e-3)


def test_merging_takes_what_moving_the_parents_takes() -> None:
    near, far = fit(), replace(fit(), node=gpu_node(1, "A100-40GB", 128e9))
    assert near.place == "gpu" and far.place == "pinned"
    assert merge_seconds(near) == pytest.approx(3 * 16e9 / (0.5 * 3.35e12))
    assert merge_seconds(far) == pytest.approx(2 * 16e9 / PCIE_BYTES_PER_S + 16e9 / (0.5 * 1.56e12))
