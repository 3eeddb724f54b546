"""What the keys of a model's config mean: which can change what the model computes, and which are void or harmless.

Every key counts that is not named here with a reason, so a key that a later version brings is compared, too. What is
said of transformers and vLLM holds for the versions of the lock files; a test goes through the families.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_REASONS: dict[str, tuple[str, ...]] = {
    "only training reads it": (
        "activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "decoder_layerdrop",
        "dropout", "dropout_p", "embd_pdrop", "embed_dropout", "embedding_dropout", "emb_pdrop", "encoder_layerdrop",
        "ffn_dropout", "hidden_dropout", "hidden_dropout_prob", "layerdrop", "local_attention_probs_dropout_prob",
        "lora_dropout", "mlp_dropout", "projector_dropout", "resid_dropout", "resid_pdrop", "residual_dropout",
        "aux_loss_coef", "router_aux_loss_coef", "router_z_loss_coef", "z_loss_coefficient", "seq_aux", "loss_type",
        "router_jitter_noise", "input_jitter_noise", "gradient_checkpointing", "neftune_noise_alpha",
    ),
    "only weights that are drawn at random depend on it": (
        "embed_init_std", "init_std", "initializer_cutoff_factor", "initializer_factor", "initializer_range",
        "w_init_variance_scale", "final_w_init_variance_scale", "rescale_prenorm_residual", "init_device",
    ),
    "the sweep file and the engine decide it for every recipe": (
        "use_cache", "cache_implementation", "dtype", "torch_dtype", "use_bfloat16", "attn_implementation",
        "_attn_implementation", "_attn_implementation_autoset", "_experts_implementation", "_flash_attn_2_enabled",
        "use_flash_attn", "use_mamba_kernels",
    ),
    "the serving decides which tokens start, end and pad a text": (
        "bos_token_id", "cls_token_id", "decoder_start_token_id", "eod_token_id", "eos_token_id", "forced_bos_token_id",
        "forced_eos_token_id", "mask_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "tokenizer_class",
    ),
    "only heads for classification read it": (
        "id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params",
        "classifier_activation", "classifier_bias", "classifier_dropout", "classifier_dropout_prob",
        "classifier_pooling", "summary_activation", "summary_first_dropout", "summary_last_dropout",
        "summary_proj_to_labels", "summary_type", "summary_use_proj",
    ),
    "it chooses which outputs transformers returns, or in how many pieces they are computed": (
        "return_dict", "use_return_dict", "output_hidden_states", "output_attentions", "output_router_logits",
        "num_logits_to_keep", "chunk_size_feed_forward", "pretraining_tp", "torchscript",
    ),
    "it says where the model comes from": (
        "_name_or_path", "name_or_path", "transformers_version", "_commit_hash", "auto_map", "model_name",
        "unsloth_version", "unsloth_fixed", "unsloth_tied_embeddings", "axolotl_config", "mergekit_version",
    ),
}  # fmt: skip
HARMLESS = {key: reason for reason, keys in _REASONS.items() for key in keys}
"""Key, at any depth → why a difference in it changes no answer."""
POSITIONS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
"""Keys from which vLLM takes the number of positions (`ModelArchConfigConvertorBase.derive_max_model_len_and_key`);
those that a class does not know only limit the length of a text."""
LENGTHS = ("max_position_embeddings", "model_max_length")
"""Keys that only limit the length of a text, where the kind of RoPE does not read them; the window is checked apart."""
LENGTH_BLIND = {"default", "linear", "llama3", "yarn"}
"""Kinds of RoPE that compute a position's angle without the number of positions. Those that do not: dynamic NTK starts
at it, longrope has its ratio to the original one in its scale, and learned positions are rows of an embedding."""
TURNED = {
    "layer_types": ("sliding_window_pattern", "_sliding_window_pattern", "max_window_layers", "use_sliding_window"),
    "no_rope_layers": ("no_rope_layer_interval",),
    "rope_parameters": ("original_max_position_embeddings",),
}
"""Key → keys that the class turns into it, so that they are not read themselves."""
LEFT_OVER = {"hidden_activation": "hidden_act", "rope_parameters": "partial_rotary_factor"}
"""Key → an older name of it or of an entry, which is not read beside it unless the class knows it too."""
ABSENT: dict[str, Any] = {"attention_bias": False, "mlp_bias": False, "use_mrope": False}
"""What vLLM's models take for keys that are absent, of families whose class does not know them."""
ROPE_NAMES = {"su": "longrope", "mrope": "default"}
"""Old names of kinds of RoPE (vLLM's `patch_legacy_rope_type`)."""
ROPE_DEFAULTS: dict[str, dict[str, Any]] = {"yarn": {"beta_fast": 32, "beta_slow": 1, "truncate": True}}
"""Settings of a kind of RoPE that are the same written and absent."""
STRETCHED = {"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}
"""Kinds of RoPE whose number of positions is written stretched already (vLLM's `_get_and_verify_max_len`)."""


def split(values: dict[str, Any], unknown: frozenset[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split what a config's class read into what can change what the model computes, and what cannot.

    Args:
        values: the class's keys; those of nested configs are in dicts.
        unknown: the dotted keys that the class does not know.

    Returns:
        Two of dotted key → value. Null is absent, and so is what another key makes void.
    """
    computing: dict[str, Any] = {}
    harmless: dict[str, Any] = {}
    for key, value in _flat(_live(values, unknown, "")):
        (harmless if key.rpartition(".")[2] in HARMLESS else computing)[key] = value
    for key in [key for key in computing if key.rpartition(".")[2] in (POSITIONS if key in unknown else LENGTHS)]:
        kinds = _rope_kinds(computing, key.rpartition(".")[0])
        if kinds and kinds <= LENGTH_BLIND:
            harmless[key] = computing.pop(key)
    return computing, harmless


def stretch(text: dict[str, Any]) -> float:
    """Compute the factor by which RoPE stretches a language model's positions, as vLLM does.

    Args:
        text: `rope_parameters` and `model_type`.
    """
    factor = 1.0
    if "gemma3" not in str(text["model_type"]):  # its positions are written stretched already
        for rope in _ropes(text["rope_parameters"]).values():
            if rope.get("rope_type") not in STRETCHED:
                factor = rope.get("factor") or factor
    return factor


def _live(values: dict[str, Any], unknown: frozenset[str], prefix: str) -> dict[str, Any]:
    """Take out the keys that are void, in nested configs too, and fill in what absent ones stand for."""
    void = _void({key for key, value in values.items() if value is not None}, values.get("layer_types"))
    void -= {name for name in LEFT_OVER.values() if prefix + name not in unknown}
    void |= {key for key, older in LEFT_OVER.items() if prefix + key in unknown and values[key] == values.get(older)}
    live = {key: value for key, value in values.items() if key not in void}
    heads, width = live.get("num_attention_heads"), live.get("hidden_size")
    if isinstance(width, int):
        filled = {**ABSENT, "head_dim": width // heads if isinstance(heads, int) and heads else None}
        live |= {key: value for key, value in filled.items() if live.get(key) is None}
    if isinstance(live.get("rope_parameters"), dict):
        live["rope_parameters"] = _rope(live["rope_parameters"])
    nested = {key: value for key, value in live.items() if isinstance(value, dict) and "model_type" in value}
    return live | {key: _live(value, unknown, f"{prefix}{key}.") for key, value in nested.items()}


def _void(given: set[str], layers: Any) -> set[str]:
    """Name the keys that are not read beside the given ones."""
    void = {older for key, names in TURNED.items() if key in given for older in names}
    void |= {older for key, older in LEFT_OVER.items() if key in given}
    if isinstance(layers, list) and not any("sliding" in str(layer) for layer in layers):
        void.add("sliding_window")
    if "sliding_window" not in given:
        void.add("use_sliding_window")
    return void


def _rope(parameters: dict[str, Any]) -> dict[str, Any]:
    found = {kind: _one_rope(rope) for kind, rope in _ropes(parameters).items()}
    return found.get("", {**parameters, **found})


def _one_rope(rope: dict[str, Any]) -> dict[str, Any]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    kind = ROPE_NAMES.get(kind, kind) if isinstance(kind, str) else kind
    given = {key: value for key, value in rope.items() if value is not None and key != "type"}
    return {"partial_rotary_factor": 1.0, **ROPE_DEFAULTS.get(str(kind), {}), **given, "rope_type": kind}


def _ropes(parameters: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of RoPE by kind of layer, under "" where all layers have the same."""
    if not isinstance(parameters, dict) or not parameters:
        return {}
    nested = {kind: rope for kind, rope in parameters.items() if isinstance(rope, dict)}
    return nested or {"": parameters}


def _rope_kinds(computing: dict[str, Any], prefix: str) -> set[str]:
    start = f"{prefix}.rope_parameters." if prefix else "rope_parameters."
    return {str(value) for key, value in computing.items() if key.startswith(start) and key.endswith(".rope_type")}


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and key not in HARMLESS:
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, value
