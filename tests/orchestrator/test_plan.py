"""`plan` of the paper's sweep with no model at hand, and its estimate of time."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.main import main
from orchestrator.config.load import load_config
from orchestrator.config.workers import Engine
from orchestrator.core.records import Decoding, Question
from orchestrator.sizing.nodes import gpu_node
from orchestrator.sizing.placement import Fit, Layout, Shape
from orchestrator.sizing.time import PCIE_BYTES_PER_S, estimate, merge_seconds

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ["MERGEFRONT_DATA"]) / "hf_mirror"
TOKENIZER = ROOT / "tasks" / "demo" / "parents" / "instruct"
SHAPES = ROOT / "tests" / "data" / "shapes"


@pytest.fixture
def shape(tmp_path: Path) -> Path:
    return Path(shutil.copy(SHAPES / "llama-3.1-8b.json", tmp_path / "config.json"))


def test_the_papers_sweep_is_both_grids_over_the_whole_suite() -> None:
    config = load_config(ROOT / "examples" / "paper.yaml")
    assert [len(grid.alpha or grid.t or []) for grid in config.recipes] == [11, 11]
    assert {name: objective.tasks for name, objective in config.objectives.items()} == {
        "medical": ["medical"],
        "instruction": ["instruction"],
    }


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets in MERGEFRONT_DATA")
def test_the_papers_sweep_is_planned_with_no_hub(
    shape: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = yaml.safe_load((ROOT / "examples" / "paper.yaml").read_text())
    sweep["data_root"] = str(DATA)
    sweep["objectives"]["medical"] |= {"expect": {"medqa_4options": 1272}, "limit": 20}
    sweep["objectives"]["instruction"]["limit"] = 20
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(sweep))
    order = ["plan", str(path), "--shape", str(shape), "--tokenizer", str(TOKENIZER)]
    assert main(order) == 0
    told = capsys.readouterr().out
    assert "recipes    20 (24 points before deduplication)" in told
    assert "instruction: ifeval (prompt_level_strict_acc, inst_level_strict_acc), 20 documents" in told
    assert "1x H100-80GB: 1 with tensor_parallel_size: 1" in told
    assert "16.1 GB of weights + 4.3 GB to compute with + 32.1 GB of parents + 19.5 GB of KV cache" in told
    assert f"every model has the shape of {shape}" in told
    assert "GPU hours: 20 recipes x (" in told and "assumed: 40% of 989 TFLOP/s reading" in told
    assert main([*order, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == 8_030_261_248
    assert len(plan["tasks"]) == 11
    large = [*order, "--json", "--cluster", "2 nodes of 8x H100-80GB + 1000GB, 4x A100-80GB"]
    assert main(large) == 0
    plan = json.loads(capsys.readouterr().out)["serving"]
    assert (plan["engines"], plan["gpus"]) == (16, 16.0), "the sweep is pinned to H100"
    assert plan["kinds"][0]["sequences"] == 18
    order[3] = str(SHAPES / "llama-3.3-70b.json")
    assert main(order) == 2
    assert "it needs 141.1 GB of weights" in capsys.readouterr().err


def test_shape_and_tokenizer_are_checked(shape: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*more: str) -> str:
        assert main(["plan", str(ROOT / "examples" / "paper.yaml"), *more]) == 2
        return capsys.readouterr().err

    assert "--shape and --tokenizer go together" in refused("--shape", str(shape))
    assert "nowhere holds no tokenizer" in refused("--shape", str(shape), "--tokenizer", "nowhere").replace(":", "")
    assert "none.json does not exist" in refused("--shape", str(tmp_path / "none.json"), "--tokenizer", str(TOKENIZER))
    shape.write_text('{"model_type": "llamma"}')
    assert "no causal language model that transformers knows" in refused(
        "--shape", str(shape), "--tokenizer", str(TOKENIZER)
    )


def fit(**engine: object) -> Fit:
    model = Shape(8 * 10**9, 32, 32, 8, 128, 4096, 14336, 128256, False, 2)
    return Fit(model, 2, Engine.model_validate(engine), Layout(), gpu_node(1, "H100"))


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
