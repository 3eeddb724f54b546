"""`plan` of the paper's sweep with no model at hand, and its estimate of time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from orchestrator.__main__ import main
from orchestrator.config import SweepConfig
from orchestrator.estimate import seconds
from orchestrator.records import Decoding, Question
from orchestrator.sweepfile import load_config

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ["MERGEFRONT_DATA"]) / "hf_mirror"
TOKENIZER = ROOT / "tasks" / "demo" / "parents" / "instruct"
LLAMA_3_1_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


@pytest.fixture
def shape(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA_3_1_8B))
    return path


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
    assert "16.06 GB of weights" in told
    assert f"every model has the shape of {shape}" in told
    assert "min of answering" in told
    assert main([*order, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"] == 8_030_261_248
    assert len(plan["tasks"]) == 11


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


def make(**workers: object) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "parents": {"a": {"model": "x"}, "b": {"model": "y"}},
            "objectives": {"o": {"tasks": ["t"]}},
            "workers": {"gpus": 1.0, "accelerator_type": "H100", **workers},
        }
    )


def test_the_estimate_is_arithmetic_for_reading_and_streaming_for_writing() -> None:
    context = tuple(range(1000))
    choices = [Question(context, (token,)) for token in range(4)]
    read = seconds(make(), choices, 8 * 10**9, workers=1)
    assert read == pytest.approx(1004 * 16e9 / (0.4 * 989e12)), "a shared context is read once"
    text = [Question((1,), decoding=Decoding(100, (), seed=i)) for i in range(4)]
    written = seconds(make(), text, 8 * 10**9, workers=1)
    assert written == pytest.approx(100 * 16e9 / (0.5 * 3.35e12), rel=1e-3), "four texts are written together"
    both = [*choices, *text]
    assert seconds(make(), both, 8 * 10**9, workers=2) == pytest.approx((read / 2 + written), rel=1e-3)
    assert seconds(make(accelerator_type=None), both, 8 * 10**9, workers=1) is None
