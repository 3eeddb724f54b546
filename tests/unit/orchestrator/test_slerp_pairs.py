"""How much SLERP differs from Linear is measured beside the sweep, once a pair; what fails is logged and tried again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.config.sweep import SweepConfig
from orchestrator.recipes.recipe import Source
from orchestrator.stages.slerp_pairs import slerp_shares, unknown_shares
from tests.helpers.paths import DEMO
from tests.helpers.sweeps import content

SOURCES = {name: Source(f"digest-{name}", name, str(DEMO / "parents" / name)) for name in ("clinical", "instruct")}


def config() -> SweepConfig:
    workers = {"engine": {"max_model_len": 512}}
    return SweepConfig.model_validate(content(recipes=[{"method": "slerp", "t": [0.5]}], workers=workers))


def test_a_pair_is_measured_once_for_its_weights(tmp_path: Path) -> None:
    file, said = tmp_path / "slerp.json", list[str]()
    wanted = unknown_shares(config(), SOURCES, file)
    assert list(wanted) == ["clinical/instruct"]
    with slerp_shares(wanted, file, tmp_path, said.append):
        pass
    (share,) = json.loads(file.read_text()).values()
    assert share["tensors"] > 10 and 0 <= share["curved"] <= 1 and -1 <= share["lowest_cosine"] <= 1 and not said
    assert not unknown_shares(config(), SOURCES, file)
    trained = {**SOURCES, "clinical": replace(SOURCES["clinical"], digest="another")}
    assert list(unknown_shares(config(), trained, file)) == ["clinical/instruct"]


def test_a_pass_that_fails_is_logged_and_tried_again(tmp_path: Path) -> None:
    file, said = tmp_path / "slerp.json", list[str]()
    missing = {**SOURCES, "instruct": replace(SOURCES["instruct"], model=str(tmp_path / "nowhere"))}
    wanted = unknown_shares(config(), missing, file)
    with slerp_shares(wanted, file, tmp_path, said.append):
        pass
    (line,) = said
    assert line.startswith("how clinical/instruct differ could not be measured: ") and "nowhere" in line
    assert list(unknown_shares(config(), missing, file)) == ["clinical/instruct"]


def test_a_sweep_that_breaks_off_does_not_wait_for_it(tmp_path: Path) -> None:
    file, said = tmp_path / "slerp.json", list[str]()
    with (
        pytest.raises(KeyboardInterrupt),
        slerp_shares(unknown_shares(config(), SOURCES, file), file, tmp_path, said.append),
    ):
        raise KeyboardInterrupt
    assert not file.exists() and not said
