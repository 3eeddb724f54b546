"""Parents that are not at hand: their shape from one config.json, their tokenizer from any folder, for `plan`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.models.formats import normal, read_json
from orchestrator.models.resolve import Files
from orchestrator.models.serving import TOKENIZER_FILES
from orchestrator.recipes.recipe import Source
from tasks.evaluation.suites import offline


def shaped(config: SweepConfig, shape: Path, tokenizer: Path) -> dict[str, Files]:
    """What `orchestrator.models.resolve` gives, as if every model of the sweep had this shape and this tokenizer.

    Recipes get ids of their own: those of a run come from the weights.

    Raises:
        UserError: no config.json of a causal language model, or no tokenizer.
    """
    offline(config)
    settings = read_json("--shape", shape)
    if not any((tokenizer / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        known = ", ".join(TOKENIZER_FILES)
        raise UserError(
            f"--tokenizer {tokenizer}: holds no tokenizer; give a folder with a tokenizer's files ({known})"
        )
    parameters = count_parameters(shape, settings)
    found = {}
    for name, parent in {**config.parents, **config.candidates}.items():
        digest = hashlib.sha256(f"{parent.model}@{parent.revision}+{parent.lora}".encode()).hexdigest()[:20]
        source = Source(digest, name, parent.model, parent.revision, parent.lora)
        found[name] = Files(source, tokenizer, normal(settings), parameters)
    return found


def count_parameters(shape: Path, settings: dict[str, Any]) -> int:
    """Number of weights of the model that a config.json describes; no memory is taken for them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        kind = AutoConfig.for_model(**settings)
        with torch.device("meta"):
            return int(AutoModelForCausalLM.from_config(kind).num_parameters())
    except (KeyError, TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--shape {shape}: describes no causal language model that transformers knows ({reason}); give the "
            "config.json of one of the parents"
        ) from None
