"""Random Llama-architecture models with the demo's vocabulary and tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.helpers.paths import CLINICAL

Models = Callable[[str, str], dict[str, Path]]
"""The fixture `models`: architecture and dtype → the models' folders by name."""

EXPERTS = {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
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
    "mistral-whole": ("Mistral", {}),
    "gemma2": ("Gemma2", {"head_dim": 32, "sliding_window": 64, "query_pre_attn_scalar": 32}),
    "gemma3": ("Gemma3Text", {"head_dim": 32, "sliding_window": 64, "query_pre_attn_scalar": 32}),
    "gemma3-images": ("Gemma3", {"head_dim": 32, "sliding_window": 64, "query_pre_attn_scalar": 32}),
    "phi3": ("Phi3", {"sliding_window": None, "pad_token_id": 0}),
    "olmo2": ("Olmo2", {"tie_word_embeddings": False, "pad_token_id": 0}),
    "olmo3": ("Olmo3", {"sliding_window": 64, "tie_word_embeddings": False, "pad_token_id": 0}),
    "granite": ("Granite", {"logits_scaling": 2.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0}),
    "smollm3": ("SmolLM3", {"pad_token_id": 0, "no_rope_layer_interval": 2}),
    "starcoder2": ("Starcoder2", {"sliding_window": None}),
    "qwen3-moe": ("Qwen3Moe", EXPERTS),
    # As a loaded model has them: one tensor for the experts of a layer.
    "qwen3-moe-fused": ("Qwen3Moe", EXPERTS),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "sliding_window": None}),
    "mixtral-fused": ("Mixtral", {"num_local_experts": 4, "sliding_window": None}),
}


def make_model(folder: Path, seed: int, dtype: str = "float32", architecture: str = "llama") -> Path:
    """A random two-layer model with the demo's vocabulary and tokenizer."""
    import torch
    import transformers
    from safetensors.torch import save_file

    family, changes = ARCHITECTURES[architecture]
    changes = {"max_shard_size": "5GB", **changes}
    shards = changes.pop("max_shard_size")
    tokenizer = transformers.AutoTokenizer.from_pretrained(CLINICAL)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes["vocab_size"] = len(tokenizer)
    config = getattr(transformers, f"{family}Config".replace("Gemma3Config", "Gemma3TextConfig"))(
        num_key_value_heads=1,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        **{**sizes, **changes},
    )
    if architecture == "gemma3-images":
        vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        vision |= {"image_size": 28, "patch_size": 14}
        config = transformers.Gemma3Config(text_config=config, vision_config=vision, mm_tokens_per_image=4)
        family = "Gemma3ForConditionalGeneration"
    name = family if family.endswith("Generation") else f"{family.removesuffix('Text')}ForCausalLM"
    model = getattr(transformers, name)(config).to(getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            # Wider than the default, so that the two parents' greedy answers differ.
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder, max_shard_size=shards)
    if architecture.endswith("-fused"):
        save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    for file in CLINICAL.glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return folder
