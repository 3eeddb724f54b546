"""LoRA adapters: whether one was trained on a model of this shape.

peft only warns of tensors that it finds no place for, and merges an adapter without them, or one that changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestrator.core.errors import UserError
from orchestrator.models.headers import Header
from orchestrator.models.tensors import FLOATS, Architecture

ADAPTER = "adapter_config.json"
"""peft's file of an adapter's settings."""
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
