"""Planning on a machine that lacks the parents, or data to learn from, for `plan --shape`.

One config.json and any tokenizer stand in for the parents; what fine-tuning would learn from and is not there is left
out.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from orchestrator.models.alike import check_served, check_window
from orchestrator.models.configs import read_model_config
from orchestrator.models.formats import read_plain_config
from orchestrator.models.resolve import Files, check_layers
from orchestrator.models.tokenizer import TOKENIZER_FILES
from orchestrator.recipes.recipe import Source
from tasks.evaluation.suites import offline


def shaped(config: SweepConfig, shape: Path, tokenizer: Path) -> dict[str, Files]:
    """Resolve a sweep's models as if every one had this shape and this tokenizer; see `orchestrator.models.resolve`.

    The recipes have other ids than in a run, where ids come from the weights.

    Args:
        shape: the config.json of a model.
        tokenizer: a folder with a tokenizer's files.

    Raises:
        UserError: `shape` describes no causal language model, the folder has no tokenizer, or a recipe has other
        layers.
    """
    offline(config)
    settings = read_plain_config("--shape", shape)
    read = read_model_config("--shape", settings)
    check_served("--shape", settings, read)
    check_window("--shape", read, config.workers.engine.max_model_len)
    if not any((tokenizer / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        known = ", ".join(TOKENIZER_FILES)
        raise UserError(f"--tokenizer {tokenizer}: has no tokenizer; give a folder with a tokenizer's files ({known})")
    parameters = count_parameters(shape, settings)
    found = {}
    for name, parent in {**config.parents, **config.candidates}.items():
        digest = hashlib.sha256(f"{parent.model}@{parent.revision}+{parent.lora}".encode()).hexdigest()[:20]
        source = Source(digest, name, parent.model, parent.revision, parent.lora)
        found[name] = Files(source, tokenizer, settings, read, parameters)
    check_layers(config, read)
    return found


def without_absent(config: SweepConfig) -> tuple[SweepConfig, list[str]]:
    """Leave out of a plan the data of fine-tuning that is not on this machine: some of it takes credentials to get.

    A joint search is as it is: without its task there would be nothing to search.

    Returns:
        The sweep that can be planned, and a sentence about each part that is left out.
    """
    finetune, data = config.finetune, config.generation.data if config.generation else {}
    if finetune is None or config.joint:
        return config, []
    used = {
        name: next(use if isinstance(use, str) else use.task for use in task.tasks)
        for name, task in finetune.tasks.items()
    }
    absent = {name: data[task] for name, task in used.items() if task in data and not Path(data[task]).exists()}
    places = {f"finetune.tasks.{name}": place for name, place in absent.items()}
    update: dict[str, Any] = {"tasks": {name: task for name, task in finetune.tasks.items() if name not in absent}}
    if finetune.baseline and not Path(finetune.baseline.file).exists():
        places["finetune.baseline.file"] = finetune.baseline.file
        update["baseline"] = None
    notes = [f"{where} is left out of this plan: {place} does not exist" for where, place in places.items()]
    return config.model_copy(update={"finetune": finetune.model_copy(update=update)}), notes


def count_parameters(shape: Path, settings: dict[str, Any]) -> int:
    """Count the weights of the model that a config.json describes, without memory for them.

    Raises:
        UserError: transformers knows no causal language model with these settings.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        kind = AutoConfig.for_model(**settings)
        with torch.device("meta"):
            return int(AutoModelForCausalLM.from_config(kind).num_parameters())
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"--shape {shape}: describes no causal language model that transformers knows ({one_line(error)}); give "
            "the config.json of one of the parents"
        ) from None
