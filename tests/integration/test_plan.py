"""`plan` of the paper's sweep with no model at hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.main import main
from tests.helpers.clinical import make_all
from tests.helpers.commands import refused
from tests.helpers.paths import EXAMPLES, HUB_DATA, INSTRUCT, SHAPES

TURNS = {"conversations": [{"from": "human", "value": "What is sepsis?"}, {"from": "gpt", "value": "An emergency."}]}


@pytest.fixture
def shape(tmp_path: Path) -> Path:
    return Path(shutil.copy(SHAPES / "llama-3.1-8b.json", tmp_path / "config.json"))


@pytest.mark.skipif(not HUB_DATA.is_dir(), reason="needs the data sets in MERGEFRONT_DATA")
def test_the_papers_sweep_is_planned_with_no_hub(
    shape: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = yaml.safe_load((EXAMPLES / "paper.yaml").read_text())
    sweep["data_root"] = str(HUB_DATA)
    sweep["objectives"]["medical"] |= {"expect": {"medqa_4options": 1272}, "limit": 20}
    sweep["objectives"]["instruction"]["limit"] = 20
    sweep["objectives"]["instruction_chat"]["limit"] = 20
    sweep["generation"]["data"] = make_all(tmp_path / "data", training=100)
    sweep["finetune"]["baseline"]["file"] = str(tmp_path / "ultramedical.jsonl")
    (tmp_path / "ultramedical.jsonl").write_text(json.dumps(TURNS) + "\n")
    path = tmp_path / "paper.yaml"
    path.write_text(yaml.safe_dump(sweep))
    order = ["plan", str(path), "--shape", str(shape), "--tokenizer", str(INSTRUCT)]
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
    assert len(plan["tasks"]) == 10 + 2
    tuned = plan["finetune"]
    assert tuned["tasks"] == dict.fromkeys(("bhc", "aci_bench", "mts_dialog", "radiology", "problem_list"), 100)
    assert tuned["runs"] == 5 * 3 * (3 * 1 + 2 * 5), "five starts, three seeds; of 8 budgets 5 are feasible"
    assert [line for line in tuned["skipped"] if "128, 256 and 512" in line] == tuned["skipped"] != []
    assert tuned["memory"]["full"].endswith("/ 4 GPUs = 32.1 GB before activations")
    sweep["generation"]["data"] |= {"clinical_bhc": str(tmp_path / "none")}
    sweep["finetune"]["baseline"]["file"] = str(tmp_path / "none.jsonl")
    path.write_text(yaml.safe_dump(sweep))
    large = [*order, "--json", "--cluster", "2 nodes of 8x H100-80GB + 1000GB, 4x A100-80GB"]
    assert main(large) == 0
    rest = json.loads(capsys.readouterr().out)
    assert rest["finetune"]["runs"] == 5 * 3 * (2 * 1 + 2 * 5), "without the task whose data is not there"
    assert rest["notes"][:2] == [
        f"finetune.tasks.bhc is left out of this plan: {tmp_path}/none does not exist",
        f"finetune.baseline.file is left out of this plan: {tmp_path}/none.jsonl does not exist",
    ]
    plan = rest["serving"]
    assert (plan["engines"], plan["gpus"]) == (16, 16.0), "the sweep is pinned to H100"
    assert plan["kinds"][0]["sequences"] == 9
    order[3] = str(SHAPES / "llama-3.3-70b.json")
    assert main(order) == 2
    assert "full fine-tuning needs 70.55 billion weights x 4 (weights)" in capsys.readouterr().err


def test_shape_and_tokenizer_are_checked(shape: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*more: str) -> str:
        assert main(["plan", str(EXAMPLES / "paper.yaml"), *more]) == 2
        return capsys.readouterr().err

    assert "--shape and --tokenizer go together" in refused("--shape", str(shape))
    assert "nowhere has no tokenizer" in refused("--shape", str(shape), "--tokenizer", "nowhere").replace(":", "")
    assert "none.json does not exist" in refused("--shape", str(tmp_path / "none.json"), "--tokenizer", str(INSTRUCT))
    shape.write_text('{"model_type": "llamma"}')
    assert "model_type is 'llamma', unknown to transformers" in refused(
        "--shape", str(shape), "--tokenizer", str(INSTRUCT)
    )


def test_an_unknown_task_is_refused_with_its_neighbour_among_all_of_lm_evals(
    sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    refused(
        sweep(objectives={"clinical": {"tasks": ["demo_formulery"]}}),
        capsys,
        "objectives.clinical.tasks[0]: lm-eval knows no task, group or tag 'demo_formulery'; did you mean 'demo_formulary'?",
    )
