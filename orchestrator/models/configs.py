"""A model's config as transformers' own class for its `model_type` reads it.

Versions of transformers spell the same settings differently, and families have defaults of their own. What the class
read is brought into one form by `orchestrator.models.meaning`, in which two models that compute alike are equal.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from orchestrator.models.kept import kept
from orchestrator.models.meaning import POSITIONS, split, stretch

SIZES = (
    "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "intermediate_size",
    "moe_intermediate_size", "vocab_size",
)  # fmt: skip
"""Keys of a language model's dimensions; transformers' classes map other names of theirs to these."""

CACHED = ("full_attention", "sliding_attention")
"""Kinds of layers (`layer_types`) that have their own keys and values."""
OTHER_CACHES = {"kv_lora_rank", "num_kv_shared_layers"}
"""Keys of models that keep less: latent attention, and layers that share the keys and values of another one."""


@dataclass(frozen=True)
class ModelConfig:
    """What a config.json means."""

    computing: dict[str, Any]
    """Dotted key → value, of the keys that can change what the model computes; those that are null are left out."""
    harmless: dict[str, Any]
    """Dotted key → value, of the keys that cannot."""
    unknown: frozenset[str]
    """The dotted keys that transformers' class does not know."""
    sizes: dict[str, Any]
    """`SIZES` and `tie_word_embeddings`, as the class fills them in."""
    positions: float | None
    """Length in tokens of the longest sequence that vLLM lets the model read; None where the config limits none."""

    @property
    def caches_all_layers(self) -> bool:
        """Whether each layer has a key and a value of each token in the KV cache, for every key-value head."""
        names = {key.rpartition(".")[2]: value for key, value in self.computing.items()}
        layers = names.get("layer_types") or []
        return not names.keys() & OTHER_CACHES and all(layer in CACHED for layer in layers)


def read_model_config(where: str, config: dict[str, Any]) -> ModelConfig:
    """Read a plain config with transformers' class for its `model_type`.

    Args:
        where: the sweep file's key of the model, for messages.
        config: as `orchestrator.models.plain.plain_config` returns it.

    Raises:
        UserError: transformers has no class for it, the class refuses it, or a number in it is none.
    """
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise UserError(
            f"{where}: config.json has no model_type, by which transformers and vLLM choose the architecture; add the "
            "one that the config.json of its base model has"
        )
    read = _cached(where, config, kind)
    unknown = frozenset(read["unknown"])
    computing, harmless = split(read["values"], unknown)
    for key, value in computing.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"{where}: config.json: {key} is {value}, with which nothing can be computed; correct it, or download "
                "or save the model again"
            )
    for key in computing:
        if key.endswith("rope_type") and (theta := key.removesuffix("rope_type") + "rope_theta") not in computing:
            raise UserError(f"{where}: config.json: {theta} is null; write its number, as its base model has it")
    text = read["text"]
    positions = [text[key] for key in POSITIONS if isinstance(text[key], int | float)]
    sizes = {key: text[key] for key in (*SIZES, "tie_word_embeddings")}
    least = text["model_max_length"] or min(positions, default=None)
    return ModelConfig(computing, harmless, unknown, sizes, least and least * stretch(text))


def _cached(where: str, config: dict[str, Any], kind: str) -> dict[str, Any]:
    """Read a config once per content: the class comes with torch, which takes seconds to import."""
    text = json.dumps(config, sort_keys=True)
    read: dict[str, Any] = kept("configs", [text], ["transformers"], lambda: _read(where, text, kind))
    return read


def _read(where: str, written: str, kind: str) -> dict[str, Any]:
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.utils import logging

    if kind not in CONFIG_MAPPING:
        raise UserError(
            f"{where}: config.json: model_type is {kind!r:.80}, unknown to transformers {version('transformers')}, and "
            "a model's own code is never run; correct it, or take a model of a known architecture"
        )
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(written, encoding="utf-8")
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        if getattr(config, "rope_parameters", None):
            config.standardize_rope_params()  # as vLLM and transformers' models do before they read them
        text = config.get_text_config()
        known = {key: getattr(text, key, None) for key in (*SIZES, *POSITIONS, "rope_parameters", "model_type")}
        known["tie_word_embeddings"] = getattr(config, "tie_word_embeddings", None)
        own = {"_name_or_path", "transformers_version"}  # the class writes them itself
        values = {key: value for key, value in config.to_dict().items() if key not in own}
        read = {"values": values, "text": known, "unknown": sorted(_unknown(config))}
        return dict(json.loads(json.dumps(read, default=str)))
    except Exception as error:  # the classes of some hundred families raise whatever a wrong value leads to
        raise UserError(
            f"{where}: config.json is none of a {kind} model ({one_line(error, 300)}); correct it, or download or save "
            "the model again"
        ) from None
    finally:
        logging.set_verbosity(verbosity)


def _unknown(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of a config, nested ones too, that are no fields of its class."""
    fields = {field.name for field in dataclasses.fields(config)}
    for key, value in vars(config).items():
        if hasattr(value, "get_text_config"):
            yield from _unknown(value, f"{prefix}{key}.")
        elif key not in fields:
            yield prefix + key
