"""Random Llama-architecture models with the demo's vocabulary and tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.paths import CLINICAL

Models = Callable[[str, str], dict[str, Path]]
"""The fixture `models`: architecture and dtype → the models' folders by name."""

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    # Its embedding and projections have more elements than a piece of a live merge.
    "llama-wide": ("Llama", {"hidden_size": 2048, "num_hidden_layers": 1}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    # vLLM pads the vocabulary (768 needs none), and the checkpoint is in several files.
    "mistral": ("Mistral", {"sliding_window": None, "vocab_size": 771, "max_shard_size": "50KB"}),
    "mistral-whole": ("Mistral", {}),
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
    tokenizer = transformers.AutoTokenizer.from_pretrained(CLINICAL)
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
    for file in CLINICAL.glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return folder
