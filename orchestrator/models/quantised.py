"""Recognising quantised weights, which are codes and scales: a merge of them as if they were numbers means nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
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
DEQUANTISED = {
    "bitsandbytes": "({model!r}).dequantize()",
    "compressed-tensors": "({model!r}, quantization_config=t.CompressedTensorsConfig(run_compressed=False))",
    "fp8": "({model!r}, quantization_config=t.FineGrainedFP8Config(dequantize=True))",
    "mxfp4": "({model!r}, quantization_config=t.Mxfp4Config(dequantize=True))",
}
"""Method → how transformers loads it with plain weights, as what follows `AutoModelForCausalLM.from_pretrained`."""


def check_config_is_plain(where: str, model: str, folder: Path) -> None:
    """Refuse a model whose config, or a file beside it, says that its weights are quantised.

    Args:
        where: the sweep file's key of the model, for messages.
        model: the model as the sweep file names it.

    Raises:
        UserError: they are; it names the method and the way out.
    """
    found = _quantization(read_json(where, folder / "config.json"))
    for name in BESIDE:
        if found is None and (folder / name).exists():
            found = read_json(where, folder / name)
    if found is not None:
        raise _refusal(where, model, _method(found))


def check_tensors_are_plain(where: str, model: str, names: Iterable[str]) -> None:
    """Refuse a model that has the scales or codes of quantised weights although its config does not say so.

    Args:
        where: the sweep file's key of the model, for messages.
        model: the model as the sweep file names it.
        names: of its tensors; `orchestrator.models.tensors` looks at their types.

    Raises:
        UserError: it has; it names one tensor, the method and the way out.
    """
    for name in names:
        if (last := name.rpartition(".")[2]) in PARTS:
            raise _refusal(where, model, f"{PARTS[last]}: it has the tensor {name}")


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Find what a config says of quantisation, at the top or in a nested config."""
    if config.get("quantization_config"):
        return config
    nested = (_quantization(value) for value in config.values() if isinstance(value, dict))
    return next((found for found in nested if found is not None), None)


def _method(found: Mapping[str, Any]) -> str:
    settings = found.get("quantization_config") or found.get("quantization") or found
    if not isinstance(settings, Mapping):
        return str(settings)[:80]
    if settings.get("quant_method"):
        return str(settings["quant_method"])[:80]
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    return str(settings.get("quant_algo") or settings.get("version") or "GPTQ or AWQ")[:80]


def _refusal(where: str, model: str, method: str) -> UserError:
    way = "take the 16-bit model that it was made from"
    if method in DEQUANTISED:
        way += (
            ', or write one where the library of the method runs: python -c "import transformers as t; '
            f"t.AutoModelForCausalLM.from_pretrained{DEQUANTISED[method].format(model=model)}"
            ".save_pretrained('FOLDER')\", and copy the tokenizer's files to it"
        )
    return UserError(f"{where} is quantised ({method}), and merging needs plain weights; {way}")
