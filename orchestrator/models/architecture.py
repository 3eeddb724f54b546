"""The digest of an architecture that identifies a serving, computed as mergefront 0.1 did.

A serving's id is part of the key of every stored answer, so this must not change. It does not decide what computes
alike (`orchestrator.models.alike` does); a recipe's own id has the digest of each parent's whole config.json.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

KEYS = (
    "architectures", "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings", "hidden_act", "rms_norm_eps", "rope_theta",
    "rope_scaling", "attention_bias", "mlp_bias", "sliding_window",
)  # fmt: skip


def architecture(config: dict[str, Any]) -> str:
    """Compute the digest of a config.json."""
    normal = _normal(config)
    return hashlib.sha256(json.dumps({key: normal.get(key) for key in KEYS}, sort_keys=True).encode()).hexdigest()[:20]


def _normal(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config with Llama's defaults filled in and RoPE's settings under `rope_theta` and `rope_scaling`."""
    heads = config.get("num_attention_heads")
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    theta = rope.pop("rope_theta", config.get("rope_theta", 10_000.0))
    filled = {
        "num_key_value_heads": heads,
        "head_dim": config["hidden_size"] // heads if heads and "hidden_size" in config else None,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": 1e-6,
    }
    given = {key: value for key, value in config.items() if value is not None}
    scaling = None if kind == "default" else {"rope_type": kind, **rope}
    return {**config, **filled, **given, "rope_theta": float(theta or 10_000.0), "rope_scaling": scaling}
