"""LoRA adapters: whether one was trained on a model of this shape.

peft only warns of tensors that it finds no place for, and merges an adapter without them, or one that changes nothing.
"""

from __future__ import annotations

import copy
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from orchestrator.models.headers import Header, read_header
from orchestrator.models.tensors import FLOATS, Architecture, empty_model

ADAPTER = "adapter_config.json"
"""peft's file of an adapter's settings."""
WEIGHTS = "adapter_model.safetensors"
"""The one file from which peft reads its tensors."""
PART = re.compile(r"\.lora_(A|B|embedding_A|embedding_B)(\.weight)?$")
SIDES = {"A": 1, "B": 0, "embedding_A": 1, "embedding_B": 0}
"""Part of an adapter → its dimension that is one of the weight's; the other is the rank."""


def check_adapter(where: str, headers: Mapping[str, Header], architecture: Architecture) -> None:
    """Refuse an adapter with tensors for weights that the model does not have, or that have another shape there.

    Args:
        where: the sweep file's key of the adapter, for messages.
        headers: name of a tensor in the adapter's files → its header.

    Raises:
        UserError: it was trained on another model, or is quantised.
    """
    for name, header in headers.items():
        if header.dtype not in FLOATS:
            raise UserError(
                f"{where}: {header.file}: {name} is stored as {header.dtype}: the adapter is quantised, and its "
                "numbers mean nothing without their scales; take the one that it was made from"
            )
        plain = name.removeprefix("base_model.model.")
        if (part := PART.search(plain)) is None:
            continue
        module = plain[: part.start()]
        weight = architecture.tied.get(f"{module}.weight", f"{module}.weight")
        shape = architecture.loaded.get(weight) or architecture.stored.get(weight)
        if shape is None and module not in architecture.modules:
            raise UserError(
                f"{where}: {header.file} has {name}, but {architecture.name} has no {module}; it was trained on "
                "another model: name that as model, or merge the adapter into it first"
            )
        if shape is not None and header.shape[SIDES[part[1]]] not in shape:
            raise UserError(
                f"{where}: {header.file}: {name} has shape {list(header.shape)}, but {weight} of the model {shape}; it "
                "was trained on a model of another size: name that as model"
            )


def check_complete(where: str, folder: Path, config: dict[str, Any], architecture: Architecture) -> None:
    """Refuse an adapter whose file has not the tensors that peft makes of its settings for this model.

    Args:
        where: the sweep file's key of the adapter, for messages.
        folder: of the adapter.
        config: the model's, as `orchestrator.models.plain.plain_config` returns it.

    Raises:
        UserError: a tensor is missing, left over or of another shape, or the adapter cannot be merged into the weights
            that one config serves.
    """
    if not (folder / WEIGHTS).exists():
        raise UserError(f"{where}: {folder} has no {WEIGHTS}, which peft reads; give the adapter's file this name")
    found = {name: list(shape) for name, (shape, _) in read_header(where, folder / WEIGHTS).items()}
    try:
        needed = _tensors(folder, config)
    except Exception as error:  # of settings that anybody may have written, peft raises whatever there is
        raise UserError(
            f"{where}: peft makes no adapter that can be merged of {ADAPTER} ({one_line(error)}); save it again, or "
            "merge it into its model first"
        ) from None
    left_over = [name for name in found if PART.search(name) and name not in needed]
    for name in [*needed, *([] if architecture.parts else left_over)]:
        here, there = (f"shape {each[name]}" if name in each else "no such tensor" for each in (found, needed))
        if here != there and not architecture.parts:  # peft renames the tensors of a mixture's experts
            raise UserError(
                f"{where}: {name}: {WEIGHTS} has {here}, but by {ADAPTER} there is {there}; peft would merge only what "
                "fits: save the adapter again with save_pretrained"
            )
    tied = {f"base_model.model.{name}".removesuffix("weight") for pair in architecture.tied.items() for name in pair}
    for name in needed:
        if name.startswith(tuple(tied)) and "token_adapter" not in name:
            raise UserError(
                f"{where}: trains {name}, after which {architecture.name}'s head and embedding are no longer one "
                "tensor, as tie_word_embeddings says; take an adapter that was trained without modules_to_save and "
                "target_modules of the two"
            )


def _tensors(folder: Path, config: dict[str, Any]) -> dict[str, list[int]]:
    """List the tensors of an adapter as peft writes them, with their shapes, without memory for them."""
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied tensors, which are refused
        model = copy.deepcopy(empty_model(json.dumps(config, sort_keys=True, default=str)))
        made = get_peft_model(model, PeftConfig.from_pretrained(str(folder)))
    if not hasattr(made, "merge_and_unload"):
        raise ValueError("its peft_type changes prompts, not weights")
    tensors = get_peft_model_state_dict(made, save_embedding_layers=False)
    return {name: list(tensor.shape) for name, tensor in tensors.items()}
