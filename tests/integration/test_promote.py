"""A promoted recipe is a model folder: the served weights, the sweep's serving, and a card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.cli.main import main
from orchestrator.promote import check_served
from orchestrator.recipes.expand import expand
from orchestrator.results.layout import Layout
from orchestrator.stages.open import reopen_sweep


@pytest.fixture
def finished(sweep: Callable[..., Path], tmp_path: Path) -> Path:
    """A finished sweep of the fake backend, with a random method among the recipes."""
    ties = {"method": "dare_ties", "base_model": "a", "models": {"b": {"weight": 1.0, "density": 0.5}}}
    objectives = {"clinical": {"tasks": ["demo_formulary"], "limit": 4}}
    path = sweep(recipes=[{"method": "linear", "alpha": [0.25]}, ties], objectives=objectives)
    assert main(["run", str(path), "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out"


def test_a_promoted_recipe(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "model"
    assert main(["promote", str(finished), "linear alpha=0.25", "--to", str(folder)]) == 0
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("abc")["input_ids"]
    sweep = reopen_sweep(Layout(finished))
    assert model.config.eos_token_id == sweep.serving.stop_token_ids[0]
    parts = [AutoModelForCausalLM.from_pretrained(sweep.sources[name].model).state_dict() for name in "ab"]
    for name, tensor in model.state_dict().items():
        assert torch.allclose(tensor, 0.75 * parts[0][name] + 0.25 * parts[1][name], atol=1e-6), name
    card = (folder / "README.md").read_text()
    assert "linear alpha=0.25" in card and "| clinical |" in card and "not stated" in card
    assert json.loads((folder / "generation_config.json").read_text()) == {"eos_token_id": model.config.eos_token_id}

    capsys.readouterr()
    assert main(["promote", str(finished), "linear alpha=0.25", "--to", str(folder)]) == 2
    assert "exists already; name a folder that does not" in capsys.readouterr().err


def test_a_random_methods_promoted_weights_are_the_served_ones(finished: Path, tmp_path: Path) -> None:
    sweep = reopen_sweep(Layout(finished))
    (recipe,) = (r for r in expand(sweep.config, sweep.sources) if r.seed is not None)
    assert main(["promote", str(finished), recipe.id, "--to", str(tmp_path / "model")]) == 0
    check_served(recipe, tmp_path / "model", tmp_path)
