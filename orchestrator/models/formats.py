"""Reading the JSON files and safetensors headers of a model's folder, which are untrusted and are checked first."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError

EMBEDDING = re.compile(r"\b(embed_tokens|lm_head|wte|embed_in|embed_out)(\.base_layer)?\.weight$")
"""The names of tensors with a row for each token, peft's included."""


def check_folder(where: str, folder: Path) -> None:
    """Refuse a model's folder that refers to files outside it, or to custom code.

    What is read from the folder is stored, and may be published.

    Args:
        where: the sweep file's key, for messages.

    Raises:
        UserError: a link leads out of the folder (or, in the hub's cache, out of the model's part of it), or the config
            refers to custom code of the model (`auto_map`).
    """
    home = (folder.parent.parent if folder.parent.name == "snapshots" else folder).resolve()
    for file in sorted(folder.iterdir()):
        if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(home):
            raise UserError(
                f"{where}: {file} links to a file outside {home}; copy it there, or name the folder it is in"
            )
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists() and (code := read_json(where, folder / name).get("auto_map")):
            raise UserError(
                f"{where}: {folder / name} needs custom code (auto_map: {str(code)[:200]}), which mergefront "
                "never runs (no trust_remote_code); remove auto_map if transformers knows the architecture, or take "
                "another model"
            )


def read_json(where: str, path: Path) -> dict[str, Any]:
    """Read the JSON object in a file of a model.

    Args:
        where: the sweep file's key of the model, for messages.

    Raises:
        UserError: the file is missing, cannot be read, or contains no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{where}: {path} does not exist; give a folder as save_pretrained writes it") from None
    except OSError as error:
        raise UserError(f"{where}: {path} cannot be read ({error.strerror}); correct the path or permissions") from None
    except RecursionError:
        raise UserError(f"{where}: {path} is nested too deep; download or save the model again") from None
    except ValueError as error:
        raise UserError(f"{where}: {path} is not valid JSON ({error}); download or save the model again") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: {path} has no JSON object; download or save the model again")
    return value


def read_model_config(where: str, path: Path) -> dict[str, Any]:
    """Read a model's config.json, in the form of `normal`; raises as `read_json`."""
    try:
        return normal(read_json(where, path))
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{where}: {path} is no model's config ({error}); download or save the model again") from None


def normal(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config with defaults filled in and RoPE's settings under `rope_theta` and `rope_scaling`.

    Versions of transformers write these differently.
    """
    heads = config.get("num_attention_heads")
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = rope.pop("rope_type", rope.pop("type", "default"))
    theta = rope.pop("rope_theta", config.get("rope_theta", 10_000.0))
    filled = {
        "num_key_value_heads": heads,
        "head_dim": config["hidden_size"] // heads if heads and "hidden_size" in config else None,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": 1e-6,
    }
    given = {key: value for key, value in config.items() if value is not None}
    scaling = None if kind == "default" else {"rope_type": kind, **rope}
    return {**config, **filled, **given, "rope_theta": float(theta), "rope_scaling": scaling}


def count_parameters(where: str, path: Path) -> int:
    """Count the weights in a safetensors file by its header, which safetensors checks against the file.

    Raises:
        UserError: the file is damaged or cut off.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{where}: {path} is damaged or cut off ({error}); download or save it again") from None


def embeddings(where: str, folder: Path) -> dict[str, tuple[int, ...]]:
    """List the embedding and the head that are among the safetensors of a model or adapter, with their shapes.

    Raises:
        UserError: a file is damaged or cut off.
    """
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118
                    if EMBEDDING.search(name):
                        found[name] = tuple(tensors.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise UserError(f"{where}: {path} is damaged or cut off ({error}); download or save it again") from None
    return found


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files that make up a model or adapter.

    They are those that its index names, else model.safetensors, else all that there are: some repositories contain the
    weights a second time under another name.

    Raises:
        ValueError: the index is malformed, or names something other than safetensors files of this folder.
    """
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            wrong = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"{index} does not say which tensor is in which file") from None
        if wrong:
            raise ValueError(f"{index} names {wrong[0]!r}, which is no safetensors file of this folder")
        return [folder / name for name in names]
    return [whole] if whole.exists() else sorted(folder.glob("*.safetensors"))
