"""Real parts, made small: random Llama-architecture parents with the demo's tokenizer, and sweeps over them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config import Engine, Workers
from orchestrator.records import Serving
from tasks.boot import Boot
from tasks.engine import VllmEngine

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "tasks" / "demo"
os.environ.setdefault("MERGEFRONT_DATA", str(ROOT.parent / "shared" / "data"))
for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
    os.environ[name] = "1"  # nothing here may reach for the network


ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    # Its embedding and projections have more elements than a piece of a live merge.
    "llama-wide": ("Llama", {"hidden_size": 2048, "num_hidden_layers": 1}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    # vLLM pads the vocabulary (768 needs none), and the checkpoint is in several files.
    "mistral": ("Mistral", {"sliding_window": None, "vocab_size": 771, "max_shard_size": "50KB"}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": False}),
}


def make_model(folder: Path, seed: int, dtype: str = "float32", architecture: str = "llama") -> Path:
    """A random two-layer model with the demo's vocabulary and tokenizer."""
    import torch
    import transformers

    family, changes = ARCHITECTURES[architecture]
    changes = {"max_shard_size": "5GB", **changes}
    shards = changes.pop("max_shard_size")
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / "parents" / "clinical")
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes["vocab_size"] = len(tokenizer)
    config = getattr(transformers, f"{family}Config")(
        num_key_value_heads=1,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        **{**sizes, **changes},
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            # Wider than the default, so that the two parents' greedy answers differ.
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder, max_shard_size=shards)
    for file in (DEMO / "parents" / "clinical").glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Path]]:
    """Random models of an architecture and dtype, `a` to `e` and `base`; nobody may change their files."""
    folder = tmp_path_factory.mktemp("models")

    def make(architecture: str, dtype: str) -> dict[str, Path]:
        home = folder / f"{architecture}-{dtype}"
        names = {"a": 0, "b": 1, "base": 2, "c": 3, "d": 4, "e": 5}
        if not home.exists():
            for name, seed in names.items():
                make_model(home / name, seed, dtype, architecture)
        return {name: home / name for name in names}

    return make


@pytest.fixture(scope="session")
def parents(models: Callable[[str, str], dict[str, Path]]) -> dict[str, Path]:
    """Two random Llama parents, `a` and `b`; nobody may change their files."""
    return {name: folder for name, folder in models("llama", "float32").items() if name in ("a", "b")}


@pytest.fixture(scope="session")
def start_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., VllmEngine]]:
    """Start a real engine on a model; it serves 256 tokens and stops at id 0. All live to the end of the session: the
    first that ended would take vLLM's process groups, and so the others, with it."""
    started = []

    def start(folder: Path, dtype: str, **settings: Any) -> VllmEngine:
        engine = Engine(max_model_len=256, enforce_eager=True, max_num_seqs=16, kv_cache_gib=1 / 16, **settings)
        workers = Workers(gpus=0.0, engine=engine)
        serving = Serving("t", None, (0,), 256, "x", (), "a", str(folder))
        scratch = tmp_path_factory.mktemp("scratch")
        started.append(VllmEngine(Boot(folder, folder, dtype, workers, 3), serving, scratch))
        return started[-1]

    yield start


@pytest.fixture(scope="session")
def vllm(parents: dict[str, Path], start_engine: Callable[..., VllmEngine]) -> VllmEngine:
    """One engine for all tests, started with parent `a` in float32."""
    return start_engine(parents["a"], "float32")


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
