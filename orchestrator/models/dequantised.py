"""Quantised weights that are merged as the plain ones which transformers and the format's own library make of them.

Only what these read exactly is taken: the names, shapes and types in the files must be those that the library would
write for this config.json, because it fills in what it does not find and passes over what it does not expect.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from orchestrator.models.headers import Header, files_of, read_header, read_tensor
from orchestrator.models.kept import kept
from orchestrator.models.tensors import FLOATS, architecture_of, empty_model, stored_form

if TYPE_CHECKING:
    import torch

LIBRARIES = {"compressed-tensors": "compressed-tensors", "fp8": "transformers"}
"""Quantisation method → the package that has its arithmetic."""
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
"""Dtype of a model by config.json → safetensors' name of it."""
SCALE = re.compile(
    r"(weight|input|output|activation|[qkv])_(scale(_inv|_2)?|global_scale|zero_point|g_idx|shape)|weight_packed"
)
"""Last part of the name of a tensor that quantised weights have beside, or instead of, `weight`."""


def method_of(config: Mapping[str, Any]) -> str | None:
    """Return the method of a config.json whose weights are dequantised here; None of any other config."""
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    return method if method in LIBRARIES and not isinstance(config.get("text_config"), dict) else None


def obstacle(config: Mapping[str, Any]) -> str | None:
    """Say why weights of a known method cannot be dequantised exactly, by config.json alone; None where they can."""
    method, settings = method_of(config), config["quantization_config"]
    try:
        version(LIBRARIES[method or ""])
    except PackageNotFoundError:
        return f"the package {method} is not installed"
    if _dtype(config) not in DTYPES:
        return "config.json has no dtype to dequantise to"
    for key in ("transform_config", "sparsity_config"):
        if settings.get(key):
            return f"{key} changes the weights besides"
    return None


def describe(config: Mapping[str, Any]) -> str:
    """Say in a phrase by which library, and to which dtype, the weights are dequantised."""
    method = str(method_of(config))
    return (
        f"its {method} weights are dequantised to {_dtype(config)} by {LIBRARIES[method]} "
        f"{version(LIBRARIES[method])}; activations and the KV cache are not quantised as it may have been served"
    )


def plain_headers(
    where: str, config: Mapping[str, Any], plain: dict[str, Any], headers: Mapping[str, Header]
) -> dict[str, Header]:
    """Return the headers that a model's files would have if its weights were not quantised.

    Args:
        where: the sweep file's key of the model, for messages.
        config: the content of config.json, of which `method_of` is not None and `obstacle` is.
        plain: the same as `orchestrator.models.plain.plain_config` returns it.
        headers: name of a tensor in the files → its header.

    Raises:
        UserError: the files do not have what the method writes for this config, so nobody reads them exactly.
    """
    architecture = architecture_of(where, plain, len(headers))
    shapes = {**architecture.loaded, **architecture.stored}
    check = _check_compressed if method_of(config) == "compressed-tensors" else _check_fp8
    wrong = check(config, plain, headers)
    found = {name: header for name, header in headers.items() if not _is_code(name, header)}
    for stored, header in headers.items():
        if _is_weight(stored, header):
            name = stored.removesuffix("_packed")
            if name not in shapes:
                wrong = wrong or f"{name} is no weight of its own in {architecture.name}"
            shape = header.shape if name == stored else tuple(shapes.get(name, ()))
            found[name] = Header(header.file, shape, DTYPES[str(_dtype(config))])
    if wrong:
        raise UserError(
            f"{where} is quantised ({method_of(config)}), and its files are not those of its quantization_config: "
            f"{wrong}; take the 16-bit model that it was made from"
        )
    return found


def dequantise(where: str, config: Mapping[str, Any], plain: dict[str, Any], folder: Path) -> dict[str, torch.Tensor]:
    """Load a model with transformers, and return its dequantised weights, in memory, without tied ones.

    Args:
        where: the model's name, for messages.
        config: as for `plain_headers`.
        plain: as for `plain_headers`.
        folder: of the model.

    Returns:
        Name as `save_pretrained` writes it → tensor; of the weights that were plain, they may have been cast.

    Raises:
        UserError: transformers finds other tensors than the model has.
    """
    import torch
    from transformers import AutoConfig

    empty = empty_model(json.dumps(plain, sort_keys=True))
    settings = {**config["quantization_config"], "dequantize": True}
    read = AutoConfig.for_model(**plain, quantization_config=settings)
    files = {name: file for file in files_of(where, folder) for name in read_header(where, folder / file)}
    try:
        model, loading = type(empty).from_pretrained(
            None,
            config=read,
            state_dict={name: read_tensor(folder / file, name) for name, file in files.items()},
            dtype=getattr(torch, str(_dtype(config))),
            output_loading_info=True,
        )
    except (ValueError, RuntimeError, ImportError) as error:
        raise UserError(f"{where}: transformers does not dequantise it ({one_line(error, 300)})") from error
    if wrong := [*loading["missing_keys"], *loading["mismatched_keys"], *loading["error_msgs"]]:
        raise UserError(f"{where}: transformers does not dequantise it: {wrong[0]} is missing or of another shape")
    known = architecture_of(where, plain, len(files)).loaded
    state = {name: tensor for name, tensor in model.state_dict().items() if name in known}
    return stored_form(empty, state)


def _dtype(config: Mapping[str, Any]) -> object:
    return config.get("dtype") or config.get("torch_dtype")


def _is_code(name: str, header: Header) -> bool:
    return header.dtype not in FLOATS or bool(SCALE.fullmatch(name.rpartition(".")[2]))


def _is_weight(name: str, header: Header) -> bool:
    """Whether a tensor has the codes of a weight, and not their scales."""
    last = name.rpartition(".")[2]
    return last == "weight_packed" or (header.dtype not in FLOATS and not SCALE.fullmatch(last))


def _check_fp8(config: Mapping[str, Any], plain: dict[str, Any], headers: Mapping[str, Header]) -> str | None:
    """Say what of the files is none of a model in FP8, of blocks of one size or of one scale a tensor.

    transformers takes the size of the blocks from the number of scales, which is wrong where the last one is cut off.
    """
    block = config["quantization_config"].get("weight_block_size", (128, 128))
    for name, header in headers.items():
        if header.dtype in FLOATS or SCALE.fullmatch(name.rpartition(".")[2]):
            weight = f"{name.rpartition('.')[0]}.weight"
            if name.endswith(".weight_scale_inv") and (weight not in headers or headers[weight].dtype != "F8_E4M3"):
                return f"{name} scales no tensor in FP8"
            continue
        scale = headers.get(f"{name}_scale_inv")
        if header.dtype != "F8_E4M3" or not name.endswith(".weight") or len(header.shape) != 2:
            return f"{name} is stored as {header.dtype}, in shape {list(header.shape)}"
        if scale is None:
            return f"{name} has no weight_scale_inv"
        if scale.shape in ((), (1,)):
            continue
        size = tuple(block or header.shape)
        grid = tuple(rows // each for rows, each in zip(header.shape, size, strict=True))
        if any(rows % each for rows, each in zip(header.shape, size, strict=True)):
            return f"{name} of shape {list(header.shape)} is not whole blocks of {list(size)}"
        if scale.shape != grid:
            return f"{name}_scale_inv has shape {list(scale.shape)}, but {list(grid)} are its blocks"
    return None


def _check_compressed(config: Mapping[str, Any], plain: dict[str, Any], headers: Mapping[str, Header]) -> str | None:
    """Say what of the files is not as compressed-tensors writes it for this config."""
    try:
        wanted = _compressed(
            json.dumps(plain, sort_keys=True),
            json.dumps(config["quantization_config"], sort_keys=True),
            str(_dtype(config)),
        )
    except Exception as error:  # of a config that anybody may have written, the library raises whatever there is
        return f"compressed-tensors refuses it ({one_line(error, 200)})"
    for name, (shape, dtype) in wanted.items():
        header = headers.get(name)
        if header is None or (tuple(shape), dtype) != (header.shape, header.dtype):
            has = f"has {header.dtype}{list(header.shape)}" if header else "is not there"
            return f"{name} {has}, but it writes {dtype}{list(shape)}"
    unknown = [name for name, header in headers.items() if _is_code(name, header) and name not in wanted]
    return f"{unknown[0]} is quantised, but it leaves that out" if unknown else None


@lru_cache(maxsize=32)
def _compressed(plain: str, settings: str, dtype: str) -> dict[str, tuple[list[int], str]]:
    """Return the name of each code and scale that compressed-tensors writes → its shape and safetensors' dtype.

    It is kept on disk, as torch and the library take seconds to load.
    """
    content, packages = [plain, settings, dtype], ["transformers", "compressed-tensors"]
    return dict(kept("compressed", content, packages, lambda: _written(plain, settings, dtype)))


def _written(plain: str, settings: str, dtype: str) -> dict[str, tuple[list[int], str]]:
    import torch
    from compressed_tensors.compressors import compress_module
    from compressed_tensors.quantization import apply_quantization_config
    from compressed_tensors.quantization.utils import is_module_quantized
    from transformers import CompressedTensorsConfig

    model = copy.deepcopy(empty_model(plain)).to(getattr(torch, dtype))
    before = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    quantization = CompressedTensorsConfig.from_dict(json.loads(settings)).quantization_config
    apply_quantization_config(model, quantization, run_compressed=False)
    for module in filter(is_module_quantized, model.modules()):
        compress_module(module)
    names = {
        torch.float8_e4m3fn: "F8_E4M3", torch.float8_e8m0fnu: "F8_E8M0", torch.uint8: "U8", torch.int8: "I8",
        torch.int32: "I32", torch.int64: "I64", **{getattr(torch, name): written for name, written in DTYPES.items()},
    }  # fmt: skip
    return {
        name: (list(tensor.shape), names[tensor.dtype])
        for name, tensor in model.state_dict().items()
        if before.get(name) != tensor.dtype
    }
