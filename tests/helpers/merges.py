"""Merges of random models by every method, and what live merging makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from orchestrator.config.methods import METHODS
from orchestrator.core.records import Decoding, Question
from orchestrator.models.headers import read_headers, read_tensor
from orchestrator.recipes.recipe import Recipe, Source
from tasks.merging.live import Merger

ARCHITECTURES = ["llama", "llama-tied", "mistral", "qwen2", "qwen2-tied", "qwen3"]
"""Those that a real engine tries every method on."""
OTHERS = [
    "gemma2", "gemma3", "gemma3-images", "phi3", "olmo2", "olmo3", "granite", "smollm3", "starcoder2", "qwen3-moe",
    "qwen3-moe-fused", "mixtral", "mixtral-fused",
]  # fmt: skip
"""Those that the weights of a real engine are swapped of, three times in a row."""
BOTH = {"a": {"weight": 0.6, "density": 0.5}, "b": {"weight": 0.5, "density": 0.7}}
WAYS: dict[str, dict[str, Any]] = {
    "passthrough": {"models": {"a": {}}},
    "linear": {"models": {"a": {"weight": 0.7}, "b": {"weight": 0.3}}},
    "linear, weights that do not sum to one": {"models": {"a": {"weight": 0.7}, "b": {"weight": 0.4}}},
    "linear, not normalised": {
        "models": {"a": {"weight": 0.7}, "b": {"weight": 0.4}},
        "parameters": {"normalize": False},
    },
    "linear, three parents": {"models": {"a": {"weight": 0.2}, "b": {"weight": 0.3}, "base": {"weight": 0.4}}},
    "linear, a gradient": {"models": {"a": {"weight": [0.2, 0.8]}, "b": {"weight": 0.5}}},
    "slerp": {"models": {"a": {}, "b": {}}, "base": "a", "parameters": {"t": 0.3}},
    "slerp, the base second": {"models": {"b": {}, "a": {}}, "base": "a", "parameters": {"t": 0.3}},
    "slerp, filters": {
        "models": {"a": {}, "b": {}},
        "base": "a",
        "parameters": {
            "t": [{"filter": "self_attn", "value": [0.0, 0.9]}, {"filter": "mlp", "value": 0.5}, {"value": 0.1}]
        },
    },
    "nuslerp": {"models": {"a": {"weight": 0.7}, "b": {"weight": 0.3}}},
    "multislerp": {"models": {"a": {"weight": 0.7}, "b": {"weight": 0.3}}},
    "karcher": {"models": {"a": {}, "b": {}}},
    "nearswap": {"models": {"a": {}, "b": {}}, "base": "a", "parameters": {"t": 0.01}},
    "model_stock": {"models": {"a": {}, "b": {}}, "base": "base"},
    "task_arithmetic": {
        "models": {"a": {"weight": 0.6}, "b": {"weight": 0.5}},
        "base": "base",
        "parameters": {"lambda": 0.9},
    },
    "task_arithmetic, five of them": {
        "models": {name: {"weight": 0.3} for name in ("a", "b", "c", "d", "e")},
        "base": "base",
    },
    "ties": {"models": BOTH, "base": "base"},
    "breadcrumbs": {"models": BOTH, "base": "base"},
    "breadcrumbs_ties": {"models": BOTH, "base": "base"},
    "sce": {"models": {"a": {}, "b": {}}, "base": "base", "parameters": {"select_topk": 0.5}},
    "ram": {"models": {"a": {}, "b": {}}, "base": "base"},
    "ramplus_tl": {"models": {"a": {}, "b": {}}, "base": "base"},
    "dare_linear": {"models": BOTH, "base": "base"},
    "dare_ties": {"models": BOTH, "base": "base"},
    "della": {"models": BOTH, "base": "base"},
    "della_linear": {"models": BOTH, "base": "base"},
    "arcee_fusion": {"models": {"a": {}, "b": {}}, "base": "a"},
}
DETERMINED = [way for way in WAYS if not METHODS[way.split(",")[0]].random]
PROMPTS = [tuple(range(20 + i, 50 + i)) for i in range(4)]
QUESTIONS = [
    *(Question(prompt, decoding=Decoding(24, ())) for prompt in PROMPTS),
    *(Question(prompt, (30, 31, 32)) for prompt in PROMPTS),
]


def recipe(way: str, folders: dict[str, Path], dtype: str) -> Recipe:
    method, plan = way.split(",")[0], WAYS[way]
    sources = {name: Source(f"digest-{name}", name, str(folder)) for name, folder in folders.items()}
    return Recipe(
        method,
        tuple((sources[name], parameters) for name, parameters in plan["models"].items()),
        sources[plan["base"]] if "base" in plan else None,
        plan.get("parameters", {}),
        dtype,
        7 if METHODS[method].random else None,
    )


def live(wanted: Recipe, scratch: Path) -> dict[str, torch.Tensor]:
    return dict(Merger(scratch).whole(wanted))


def stored(folder: Path) -> dict[str, torch.Tensor]:
    headers = read_headers(folder.name, folder)
    return {name: read_tensor(folder / header.file, name) for name, header in headers.items()}
