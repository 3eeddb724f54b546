"""Checking that a sweep's models compute alike, as one engine with the first parent's config serves every recipe."""

from __future__ import annotations

import math
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.models.configs import SIZES, ModelConfig

FIRST = ("model_type", "architectures")
"""Keys whose difference explains all others."""
ACTIVATIONS = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "granite"), ("hidden_act", "silu")
    ),
    "gemma2": ("hidden_activation", "gelu_pytorch_tanh"),
}
"""model_type → the key of the activation, and the only one that vLLM's model of the family computes."""
ONE_WINDOW = {"qwen2": 28, "qwen3": 28}
"""model_type of families of which vLLM has no layers with a window beside others without → the class's default of
max_window_layers, by which vLLM knows that there are none."""


def check_alike(where: str, config: ModelConfig, first_where: str, first: ModelConfig) -> None:
    """Refuse a model that computes differently than the first parent.

    Args:
        where: the sweep file's key of the model, for messages.
        first_where: that of the first parent.

    Raises:
        UserError: they differ in a key of config.json that can change answers; it names key, values and way out.
    """
    for key in _ordered(config.computing.keys() | first.computing.keys()):
        if key.rpartition(".")[2] == "vocab_size":
            continue  # `orchestrator.models.vocabulary` compares the rows, or mergekit makes them one
        mine, theirs = config.computing.get(key), first.computing.get(key)
        if _same(mine, theirs):
            continue
        at, mine, theirs = _where_they_differ(mine, theirs)
        raise UserError(
            f"{where}: {key}{at} is {_short(mine)}, but {_short(theirs)} in {first_where}; "
            + _way_out(key, key in config.unknown | first.unknown)
        )


def check_window(where: str, config: ModelConfig, max_model_len: int) -> None:
    """Refuse a window in which a model would read positions that it does not have.

    Args:
        where: the sweep file's key of the model, for messages.
        max_model_len: `workers.engine.max_model_len`, in tokens.

    Raises:
        UserError: the window is larger than vLLM lets the model read.
    """
    if config.positions is not None and max_model_len > config.positions:
        raise UserError(
            f"workers.engine.max_model_len is {max_model_len}, but {where} has {config.positions:g} positions; lower it"
        )


def check_served(where: str, settings: dict[str, Any], config: ModelConfig) -> None:
    """Refuse what transformers computes and vLLM's model of the family does not.

    Args:
        where: the sweep file's key of the model, for messages.
        settings: of its plain config.
        config: what they mean.

    Raises:
        UserError: vLLM would refuse the model at its start.
    """
    family = settings["model_type"]
    key, only = ACTIVATIONS.get(family, ("", None))
    if key and (found := config.computing.get(key, only)) != only:
        raise UserError(
            f"{where}: {key} is {found!r}, and vLLM serves {family} with {only!r} alone; correct config.json if "
            "it is wrong, or take other parents"
        )
    layers = config.sizes["num_hidden_layers"]
    mixed = family in ONE_WINDOW and len(set(config.computing.get("layer_types") or [])) > 1
    if mixed and settings.get("max_window_layers", ONE_WINDOW[family]) != layers:
        raise UserError(
            f"{where}: use_sliding_window is on for some of the {layers} layers (max_window_layers, layer_types), and "
            f"vLLM serves {family} with a window in all of them or in none; take other parents"
        )


def differing(config: ModelConfig, first: ModelConfig) -> list[str]:
    """List the keys in which two models that compute alike differ, and of which the first one's are served."""
    keys = config.harmless.keys() | first.harmless.keys()
    return sorted(key for key in keys if not _same(config.harmless.get(key), first.harmless.get(key)))


def _ordered(keys: set[str]) -> list[str]:
    order = (*FIRST, *SIZES)
    return sorted(
        keys,
        key=lambda key: (order.index(key) if key in order else len(order), not key.endswith("rope_type"), key),
    )


def _way_out(key: str, unknown: bool) -> str:
    if key in (*FIRST, *SIZES):
        return "merging needs parents of one architecture"
    if unknown:
        return (
            "transformers does not know this key, so it may be one that changes answers; if nothing reads it, remove "
            "it from the config.json that has it, else take parents that agree in it"
        )
    return (
        "one engine with one config serves every recipe, so the parents must compute alike; take parents that were "
        "trained from one model, or correct the config.json that is wrong"
    )


def _same(mine: Any, theirs: Any) -> bool:
    """Whether two values of JSON are equal, numbers by their value and NaN to itself."""
    if isinstance(mine, list) and isinstance(theirs, list):
        return len(mine) == len(theirs) and all(map(_same, mine, theirs))
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(_same(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, float) and isinstance(theirs, float) and math.isnan(mine) and math.isnan(theirs):
        return True
    return bool(mine == theirs)


def _where_they_differ(mine: Any, theirs: Any) -> tuple[str, Any, Any]:
    """Return the index, as text, and the elements where two values of one key differ."""
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs) > 1:
        for index, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            if not _same(one, other):
                return f"[{index}]", one, other
    return "", mine, theirs


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    text = repr(value)
    if len(text) <= 80:
        return text
    return f"a list of {len(value)}" if isinstance(value, list) else text[:77] + "..."
