"""Models quantised by the libraries themselves: compressed-tensors' compressors, and transformers' FP8 blocks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

COMPRESSED = ("FP8", "FP8_DYNAMIC", "W8A8", "W4A16", "W4A16_ASYM")
"""Presets of compressed-tensors."""
COMPILED = ("NVFP4A16", "MXFP4A16")
"""Presets for which it compiles code, for ten seconds."""
BLOCKS: dict[str, list[int] | None] = {"fp8 of blocks": [32, 32], "fp8 of one scale": None}


def quantise(plain: Path, folder: Path, how: str) -> Path:
    """Write a quantised copy of a model's folder, with its tokenizer."""
    shutil.copytree(plain, folder)
    (_fp8 if how in BLOCKS else _compress)(folder, how)
    return folder


def dequantised(folder: Path) -> dict[str, torch.Tensor]:
    """What transformers gives when it loads the folder dequantised to the checkpoint's dtype."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    config.quantization_config["dequantize"] = True
    return dict(AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=config.dtype).state_dict())


def _compress(folder: Path, preset: str) -> None:
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme
    from compressed_tensors.quantization.utils import calculate_qparams
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    scheme = preset_name_to_scheme(preset, ["Linear"])
    if scheme.weights.group_size == 128:
        scheme.weights.group_size = 32
    groups = {"group_0": scheme}
    apply_quantization_config(model, QuantizationConfig(config_groups=groups, ignore=["lm_head"]))
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is None:
            continue
        weights, values = module.quantization_scheme.weights, module.weight.data.float()
        columns = weights.group_size or values.shape[1]
        pieces = values.reshape(1, 1, -1) if weights.strategy == "tensor" else values.reshape(len(values), -1, columns)
        extra = {}
        if hasattr(module, "weight_global_scale"):
            module.weight_global_scale.data.fill_(1000.0)
            extra["global_scale"] = module.weight_global_scale.data
        scale, zero = calculate_qparams(pieces.amin(-1), pieces.amax(-1), weights, **extra)
        module.weight_scale.data.copy_(scale.reshape(module.weight_scale.shape))
        if hasattr(module, "weight_zero_point"):
            module.weight_zero_point.data.copy_(zero.reshape(module.weight_zero_point.shape))
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))


def _fp8(folder: Path, how: str) -> None:
    from safetensors.torch import load_file, save_file
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    settings = SimpleNamespace(weight_block_size=BLOCKS[how], scale_fmt="float")
    quantised: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        converted = Fp8Quantize(SimpleNamespace(quantization_config=settings)).convert({name: tensor})
        quantised |= converted if "proj" in name else {name: tensor}
    save_file(quantised, folder / "model.safetensors", {"format": "pt"})
    change_config(folder, quantization_config={"quant_method": "fp8", "weight_block_size": BLOCKS[how]})


def change_config(folder: Path, **changes: Any) -> None:
    """Change keys of a model's config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
