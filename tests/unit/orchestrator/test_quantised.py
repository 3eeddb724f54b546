"""Quantised parents are dequantised exactly, or refused by what their config says or by what their weights are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.models.headers import read_headers, read_tensor
from tasks.merging.plain import write_plain
from tests.helpers.commands import refused
from tests.helpers.models import Models
from tests.helpers.quantised import BLOCKS, COMPILED, COMPRESSED, change_config, dequantised, quantise

FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
CONFIGS: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "bitsandbytes": ({"config.json": {"quantization_config": FOUR}}, "(bitsandbytes), and merging needs plain weights"),
    "bitsandbytes before it was named": ({"config.json": {"quantization_config": {"load_in_8bit": True}}}, "(bitsandbytes)"),
    "GPTQ": ({"config.json": {"quantization_config": {"quant_method": "gptq", "bits": 4}}}, "(gptq)"),
    "FP8 of images and text": ({"config.json": {"quantization_config": {"quant_method": "fp8"}, "text_config": {}}}, "(fp8)"),
    "FP8 without a dtype": ({"config.json": {"quantization_config": {"quant_method": "fp8"}, "dtype": None}}, "no dtype to dequantise to"),
    "rotated": ({"config.json": {"quantization_config": {"quant_method": "compressed-tensors", "transform_config": {"config_groups": {"u": {}}}}}}, "transform_config changes"),
    "before it was renamed": ({"config.json": {"compression_config": {"quant_method": "compressed-tensors"}}}, "(compressed-tensors)"),
    "MXFP4": ({"config.json": {"quantization_config": {"quant_method": "mxfp4"}}}, "(mxfp4)"),
    "no method": ({"config.json": {"quantization_config": {"bits": 4}}}, "take the 16-bit model that it was made from"),
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


EXACT = [
    *((how, "llama") for how in (*COMPRESSED, *BLOCKS)),
    *(pytest.param(how, "llama", marks=pytest.mark.prove) for how in COMPILED),
    ("fp8 of blocks", "qwen3-moe"),
    ("W8A8", "llama-tied"),
]


@pytest.mark.parametrize(("how", "architecture"), EXACT)
def test_dequantised_as_transformers_does(how: str, architecture: str, models: Models, tmp_path: Path) -> None:
    import torch

    from orchestrator.models.tensors import empty_model, stored_form

    folder = quantise(models(architecture, "bfloat16")["b"], tmp_path / "quantised", how)
    (plain := tmp_path / "plain").mkdir()
    write_plain("b", folder, plain)
    config = json.loads((plain / "config.json").read_text())
    assert "quantization_config" not in config
    written = {name: read_tensor(plain / header.file, name) for name, header in read_headers("b", plain).items()}
    expected = stored_form(empty_model(json.dumps(config, sort_keys=True)), dequantised(folder))
    before = read_headers("b", models(architecture, "bfloat16")["b"])
    assert set(written) == set(before)
    for name, tensor in written.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor.view(torch.uint8), expected[name].view(torch.uint8)), name


@pytest.mark.parametrize("how", ["W4A16", "fp8 of blocks"])
def test_the_plan_says_that_a_parent_is_dequantised(
    how: str, parents: dict[str, Path], sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quantised = quantise(parents["b"], tmp_path / "quantised", how)
    path = sweep(parents={"a": {"model": str(parents["a"])}, "b": {"model": str(quantised)}})
    assert main(["plan", str(path)]) == 0
    assert "weights are dequantised to float32 by" in " ".join(capsys.readouterr().out.split())


def _drop(tensors: dict[str, Any], folder: Path) -> None:
    tensors.pop("model.layers.0.mlp.up_proj.weight_scale")


def _widen(tensors: dict[str, Any], folder: Path) -> None:
    import torch

    tensors["model.layers.0.mlp.up_proj.weight_scale"] = tensors["model.layers.0.mlp.up_proj.weight_scale"].to(
        torch.float64
    )


def _ignore(tensors: dict[str, Any], folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())["quantization_config"]
    change_config(folder, quantization_config={**settings, "ignore": ["lm_head", "model.layers.0.mlp.up_proj"]})


def _plain(tensors: dict[str, Any], folder: Path) -> None:
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors.pop("model.layers.0.mlp.up_proj.weight").float()


def _cut(tensors: dict[str, Any], folder: Path) -> None:
    change_config(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [40, 32]})


def _unscaled(tensors: dict[str, Any], folder: Path) -> None:
    tensors.pop("model.layers.0.mlp.up_proj.weight_scale_inv")


WRONG: dict[str, tuple[str, Callable[[dict[str, Any], Path], None], str]] = {
    "no scale": ("W8A8", _drop, "model.layers.0.mlp.up_proj.weight_scale is not there"),
    "a scale that would be rounded": ("W8A8", _widen, "model.layers.0.mlp.up_proj.weight_scale has F64"),
    "codes that the config leaves out": ("FP8", _ignore, "is quantised, but it leaves that out"),
    "a plain weight that the config does not leave out": ("FP8", _plain, "model.layers.0.mlp.up_proj.weight has F32"),
    "a block that is cut off": ("fp8 of blocks", _cut, "is not whole blocks of [40, 32]"),
    "no scale of blocks": ("fp8 of blocks", _unscaled, "up_proj.weight has no weight_scale_inv"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_files_that_no_library_reads_exactly(
    name: str, parents: dict[str, Path], sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    how, change, expected = WRONG[name]
    folder = quantise(parents["b"], tmp_path / "quantised", how)
    tensors = load_file(folder / "model.safetensors")
    change(tensors, folder)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    refused(sweep(parents={"a": {"model": str(parents["a"])}, "b": {"model": str(folder)}}), capsys, expected)
