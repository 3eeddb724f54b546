"""The plain form of a model's config: that of a causal language model of transformers, which is what is served.

Models are published with more around it: custom code that transformers no longer needs, images beside the text. What is
left out is said (`left_out`).
"""

from __future__ import annotations

from typing import Any

from orchestrator.core.errors import UserError

CAUSAL = ("ForCausalLM", "LMHeadModel")
"""What the names of transformers' causal language models end with."""
OF_THE_WHOLE = ("eos_token_id", "bos_token_id", "pad_token_id", "tie_word_embeddings", "dtype")
"""Keys beside `text_config` that belong to the text model too."""


def plain_config(where: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of the causal language model that a config.json describes, without custom code.

    How its weights are quantised is left out too: they are refused, or dequantised (`orchestrator.models.dequantised`).
    Of a model of texts and images it is that of the text part, with the defaults of transformers filled in.

    Args:
        where: the sweep file's key of the model, for messages.
        config: the content of config.json.

    Raises:
        UserError: it needs custom code, or its text part is no causal language model of transformers.
    """
    check_code(where, config)
    if isinstance(config.get("text_config"), dict):
        return _text_part(where, config)
    rest = {key: value for key, value in config.items() if key not in ("auto_map", "quantization_config")}
    if _written(config).endswith(CAUSAL):
        return rest
    # A classifier, or a model without a head; the tensors show whether its weights are enough.
    kind = _class_of(config.get("model_type"))
    return {**rest, "architectures": [kind]} if kind else rest


def left_out(config: dict[str, Any]) -> list[str]:
    """Say in a phrase each what of a config.json `plain_config` leaves out."""
    found = []
    if config.get("auto_map"):
        found.append("its custom code (auto_map) is not used: transformers knows the architecture")
    if isinstance(config.get("text_config"), dict):
        found.append(f"the text part of {_written(config)} is merged and served, without images")
    return found


def check_code(where: str, config: dict[str, Any]) -> None:
    """Refuse a config that refers to custom code of the model (`auto_map`), unless transformers has the class itself.

    Raises:
        UserError: the code would be needed; it never runs.
    """
    code = config.get("auto_map")
    if code and (not (kind := _class_of(config.get("model_type"))) or _written(config) not in ("", kind)):
        raise UserError(
            f"{where}: config.json needs custom code (auto_map: {str(code)[:200]}), which mergefront never runs (no "
            f"trust_remote_code), and transformers does not know {_written(config) or 'its architecture'}; take a "
            "model whose architecture transformers has"
        )


def _text_part(where: str, config: dict[str, Any]) -> dict[str, Any]:
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    text, kind = dict(config["text_config"]), config.get("model_type")
    if "model_type" not in text and kind in CONFIG_MAPPING:
        text["model_type"] = getattr(CONFIG_MAPPING[kind].sub_configs.get("text_config"), "model_type", None)
    name = _class_of(text.get("model_type"))
    if name is None:
        raise UserError(
            f"{where}: the text part of {_written(config) or kind} (model_type {text.get('model_type')!r}) is no "
            "causal language model of transformers; save its language model as a checkpoint of its own, and name that"
        )
    try:
        filled = AutoConfig.for_model(**text).to_dict()
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{where}: config.json: text_config cannot be read ({error}); download the model again"
        ) from None
    whole = {key: config[key] for key in OF_THE_WHOLE if config.get(key) is not None}
    return {**filled, **whole, "architectures": [name]}


def _written(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _class_of(kind: object) -> str | None:
    """Return the name of transformers' causal language model for a `model_type`; None where it has none."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # loads torch

    found = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) if isinstance(kind, str) else None
    return found[0] if isinstance(found, tuple) else found
