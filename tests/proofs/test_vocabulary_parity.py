"""A pair whose vocabularies differ: the engine's log-likelihoods are those of lm-eval on mergekit-yaml's checkpoint.

And at both ends of the grid they are those of lm-eval on that parent alone, with its own tokenizer: `make prove`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import mergekit_yaml
from orchestrator.config.load import load_config
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_serving, served_sources
from orchestrator.recipes.expand import expand
from tasks.evaluation.suites import SuiteTask, load_suites, open_lm
from tasks.merging.checkpoint import materialise
from tasks.serving.boot import Boot
from tasks.serving.vllm_engine import VllmEngine
from tests.helpers.paths import CLINICAL, DEMO, INSTRUCT
from tests.helpers.vocabularies import with_tokens

pytestmark = pytest.mark.prove
GRID = [{"method": "linear", "alpha": [0.0, 0.4, 1.0]}, {"method": "slerp", "t": [0.4]}]


def theirs(folder: Path, suite: SuiteTask) -> list[tuple[float, bool]]:
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=8, max_length=511)
    found: list[tuple[float, bool]] = model.loglikelihood(suite.task.instances, disable_tqdm=True)
    return found


@pytest.mark.timeout(3600)
def test_a_union_in_float32(tmp_path: Path) -> None:
    folders: dict[str, Path] = {
        "clinical": with_tokens(CLINICAL, tmp_path / "clinical", ["[PAD]", "<|note|>"]),
        "instruct": with_tokens(INSTRUCT, tmp_path / "instruct", ["<|call|>"]),
    }
    sweep: dict[str, Any] = {
        "parents": {name: {"model": str(folder)} for name, folder in folders.items()},
        "tokenizer_source": "union",
        "recipes": GRID,
        "objectives": {"clinical": {"tasks": ["demo_formulary"], "limit": 100}},
        "include_path": [str(DEMO / "lm_eval")],
        "dtype": "float32",
        "workers": {"gpus": 0, "engine": {"max_model_len": 512, "enforce_eager": True, "kv_cache_gib": 0.125}},
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(json.dumps(sweep))
    config = load_config(path)
    files = resolve(config)
    serving = make_serving(config, files, tmp_path / "serving")
    lm = open_lm(config, serving)
    (suite,) = load_suites(config.objectives, config, lm)
    recipes = expand(config, served_sources(config, files, serving))
    boot = materialise(recipes[0], tmp_path / "boot", tmp_path)
    engine = VllmEngine(Boot(boot, Path(serving.folder), "float32", config.workers, 2), serving, tmp_path / "engine")
    for recipe in recipes:
        engine.load(recipe)
        lm.known.clear()
        lm.answer = engine.answer
        ours = lm.loglikelihood(suite.task.instances)
        alone = folders[recipe.names[-1]] if recipe.is_copy else mergekit_yaml(recipe, tmp_path / recipe.id)
        expected = theirs(alone, suite)
        largest = max(abs(mine[0] - other[0]) for mine, other in zip(ours, expected, strict=True))
        print(f"{recipe.label} against {alone.name}: {len(ours)} log-likelihoods, largest difference {largest:.2e}")
        assert largest <= 1e-4
        assert [greedy for _, greedy in ours] == [greedy for _, greedy in expected]
