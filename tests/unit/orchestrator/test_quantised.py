"""Quantised parents are refused, by what their config says or by what their weights are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import refused

FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
CONFIGS: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "bitsandbytes": ({"config.json": {"quantization_config": FOUR}}, "(bitsandbytes), and merging needs plain weights"),
    "bitsandbytes before it was named": ({"config.json": {"quantization_config": {"load_in_8bit": True}}}, "(bitsandbytes)"),
    "GPTQ": ({"config.json": {"quantization_config": {"quant_method": "gptq", "bits": 4}}}, "(gptq)"),
    "FP8": ({"config.json": {"quantization_config": {"quant_method": "fp8"}}}, "FineGrainedFP8Config(dequantize=True)"),
    "compressed-tensors": (
        {"config.json": {"quantization_config": {"quant_method": "compressed-tensors"}}},
        "quantization_config=t.CompressedTensorsConfig(run_compressed=False)).save_pretrained('FOLDER')",
    ),
    "nested": ({"config.json": {"text_config": {"quantization_config": FOUR}}}, "(bitsandbytes)"),
    "GPTQ beside the config": ({"quantize_config.json": {"bits": 4, "group_size": 128}}, "(GPTQ or AWQ)"),
    "AWQ beside the config": ({"quant_config.json": {"w_bit": 4, "version": "GEMM"}}, "(GEMM)"),
    "ModelOpt": ({"hf_quant_config.json": {"quantization": {"quant_algo": "FP8"}}}, "(FP8)"),
}  # fmt: skip
TENSORS: dict[str, tuple[str, str, str]] = {
    "int8": ("model.layers.0.mlp.up_proj.weight", "int8", "model.layers.0.mlp.up_proj.weight is stored as I8: the weights are quantised"),
    "uint8": ("model.layers.0.mlp.up_proj.weight", "uint8", "is stored as U8: the weights are quantised"),
    "float8": ("model.layers.0.mlp.up_proj.weight", "float8_e4m3fn", "is stored as F8_E4M3: the weights are quantised"),
    "scales": ("model.layers.0.mlp.up_proj.weight_scale", "float32", "it has the tensor model.layers.0.mlp.up_proj.weight_scale"),
    "codes of GPTQ": ("model.layers.0.mlp.up_proj.qweight", "int32", "(GPTQ or AWQ: it has the tensor"),
    "scales of bitsandbytes": ("model.layers.0.mlp.up_proj.SCB", "float32", "(bitsandbytes: it has the tensor"),
    "scales of FP8": ("model.layers.0.mlp.up_proj.weight_scale_inv", "float32", "(FP8 with scales: it has the tensor"),
}  # fmt: skip


@pytest.fixture
def copied(parents: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The parents, the second a copy that may be changed."""
    return {"a": parents["a"], "b": Path(shutil.copytree(parents["b"], tmp_path / "b"))}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_says_so(
    name: str, copied: dict[str, Path], sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    files, expected = CONFIGS[name]
    for file, changes in files.items():
        path = copied["b"] / file
        written = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**written, **changes}))
    path = sweep(parents={name: {"model": str(folder)} for name, folder in copied.items()})
    refused(path, capsys, "parents.b.model is quantised (")
    refused(path, capsys, expected)


@pytest.mark.parametrize("name", TENSORS)
def test_weights_that_are_codes(
    name: str, copied: dict[str, Path], sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensor, kind, expected = TENSORS[name]
    file = copied["b"] / "model.safetensors"
    tensors = load_file(file)
    tensors[tensor] = tensors.get(tensor, torch.ones(2)).to(getattr(torch, kind))
    save_file(tensors, file)
    refused(sweep(parents={name: {"model": str(folder)} for name, folder in copied.items()}), capsys, expected)
