"""Recognising quantised weights, which are codes and scales: a merge of them as if they were numbers means nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.models.dequantised import method_of, obstacle
from orchestrator.models.formats import read_json

BESIDE = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
"""Files beside config.json in which GPTQ, AWQ and ModelOpt say how they quantised."""
PARTS = {
    "qweight": "GPTQ or AWQ", "qzeros": "GPTQ or AWQ", "g_idx": "GPTQ", "SCB": "bitsandbytes", "absmax": "bitsandbytes",
    "quant_map": "bitsandbytes", "nested_absmax": "bitsandbytes", "weight_format": "bitsandbytes",
    "weight_scale": "weights with scales", "weight_scale_inv": "FP8 with scales", "weight_packed": "compressed-tensors",
    "weight_scale_2": "weights with scales", "weight_zero_point": "weights with scales",
    "weight_shape": "compressed-tensors",
}  # fmt: skip
"""Last part of a tensor's name → the method that writes it."""
KEYS = ("quantization_config", "compression_config")
"""Keys of config.json that say how the weights are quantised; the second is that of older files."""


def check_quantisation(where: str, folder: Path) -> None:
    """Refuse a model whose config, or a file beside it, says that its weights are quantised.

    Those that `orchestrator.models.dequantised` makes plain are not refused.

    Args:
        where: the sweep file's key of the model, for messages.

    Raises:
        UserError: they are not; it names the method, what is in the way, and the way out.
    """
    config = read_json(where, folder / "config.json")
    if method := method_of(config):
        if reason := obstacle(config):
            raise _refusal(where, f"{method}: {reason}")
        return
    found = _quantization(config)
    for name in BESIDE:
        if found is None and (folder / name).exists():
            found = read_json(where, folder / name)
    if found is not None:
        raise _refusal(where, _method(found))


def check_tensors_are_plain(where: str, names: Iterable[str]) -> None:
    """Refuse a model that has the scales or codes of quantised weights although its config does not say so.

    Args:
        where: the sweep file's key of the model, for messages.
        names: of its tensors; `orchestrator.models.tensors` looks at their types.

    Raises:
        UserError: it has; it names one tensor, the method and the way out.
    """
    for name in names:
        if (last := name.rpartition(".")[2]) in PARTS:
            raise _refusal(where, f"{PARTS[last]}: it has the tensor {name}")


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Find what a config says of quantisation, at the top or in a nested config."""
    if any(config.get(key) for key in KEYS):
        return config
    nested = (_quantization(value) for value in config.values() if isinstance(value, dict))
    return next((found for found in nested if found is not None), None)


def _method(found: Mapping[str, Any]) -> str:
    settings = next((found[key] for key in (*KEYS, "quantization") if found.get(key)), found)
    if not isinstance(settings, Mapping):
        return str(settings)[:80]
    if settings.get("quant_method"):
        return str(settings["quant_method"])[:80]
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    return str(settings.get("quant_algo") or settings.get("version") or "GPTQ or AWQ")[:80]


def _refusal(where: str, method: str) -> UserError:
    return UserError(
        f"{where} is quantised ({method}), and merging needs plain weights; take the 16-bit model that it was made from"
    )
