"""Real parts, made small: random Llama-architecture parents with the demo's tokenizer, and sweeps over them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config import Engine, Workers
from orchestrator.records import Serving
from tasks.engine import VllmEngine

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "tasks" / "demo"
os.environ.setdefault("MERGEFRONT_DATA", str(ROOT.parent / "shared" / "data"))
for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
    os.environ[name] = "1"  # nothing here may reach for the network


def make_model(folder: Path, seed: int, dtype: str = "float32", **changes: Any) -> Path:
    """A random two-layer Llama with the demo's vocabulary and tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(DEMO / "parents" / "clinical")
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_key_value_heads=1,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        **{**sizes, **changes},
    )
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            # Wider than the default, so that the two parents' greedy answers differ.
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder)
    for file in (DEMO / "parents" / "clinical").glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two random parents, `a` and `b`; nobody may change their files."""
    folder = tmp_path_factory.mktemp("parents")
    return {name: make_model(folder / name, seed) for seed, name in enumerate("ab")}


@pytest.fixture(scope="session")
def vllm(parents: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> VllmEngine:
    """One real engine for all tests, started with parent `a`; it serves 256 tokens and stops at id 0."""
    settings = Engine(max_model_len=256, enforce_eager=True, max_num_seqs=16)
    serving = Serving("t", None, (0,), 256, "x", (), "a", str(parents["a"]))
    scratch = tmp_path_factory.mktemp("scratch")
    return VllmEngine(parents["a"], parents["a"], serving, "float32", Workers(engine=settings), scratch)


@pytest.fixture
def sweep(tmp_path: Path, parents: dict[str, Path]) -> Callable[..., Path]:
    """Write a sweep file over the two random parents, asking the demo's questions of the fake backend; keyword
    arguments replace top-level keys."""

    def write(name: str = "sweep.yaml", **changes: Any) -> Path:
        content = {
            "parents": {name: {"model": str(folder)} for name, folder in parents.items()},
            "recipes": [{"method": "linear", "alpha": [0.0, 0.5, 1.0]}, {"method": "slerp", "t": [0.0, 0.5]}],
            "objectives": {
                "clinical": {"tasks": ["demo_formulary"], "limit": 20},
                "instruction": {
                    "tasks": ["demo_instructions"],
                    "limit": 10,
                    "metric": ["prompt_level_strict_acc", "inst_level_strict_acc"],
                },
            },
            "include_path": [str(DEMO / "lm_eval")],
            "dtype": "float32",
            "workers": {"backend": "fake", "block": 16, "engine": {"max_model_len": 512, "enforce_eager": True}},
        }
        content.update(changes)
        path = tmp_path / name
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write
