"""The disk that a sweep needs for model weights."""

from __future__ import annotations

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.text import gigabytes


def weight_bytes(config: SweepConfig, parameters: int) -> int:
    """Compute the bytes of one model's weights in the dtype that it is served in.

    Args:
        parameters: number of weights.
    """
    return parameters * (4 if config.dtype == "float32" else 2)


def check_disk(config: SweepConfig, parameters: int, recipes: int, *, dequantised: int) -> None:
    """Refuse a sweep whose checkpoints need more than `checkpoints.disk_gb`.

    Args:
        parameters: number of weights of a model.
        recipes: number of recipes.
        dequantised: number of parents and candidates whose weights are dequantised.

    Raises:
        UserError: they need more.
    """
    needed_bytes = disk_bytes(config, parameters, recipes, config.workers.count or 1, dequantised=dequantised)
    limit = config.checkpoints.disk_gb
    if limit is not None and needed_bytes > limit * 1e9:
        kept = f"{recipes} kept checkpoints" if config.checkpoints.keep else "copies of parents"
        raise UserError(
            f"checkpoints.disk_gb: {kept} need {gigabytes(needed_bytes)}, but the budget is {limit} GB; raise it"
            + (", or set checkpoints.keep to false" if config.checkpoints.keep else "")
        )


def disk_bytes(config: SweepConfig, parameters: int, recipes: int, engines: int, *, dequantised: int) -> int:
    """Compute the bytes of kept checkpoints, and of each engine's copies of parents.

    Those are the parents with merged adapters, those that are dequantised and, with `tokenizer_source`, the one that
    the engine starts with.

    Args:
        parameters: number of weights of a model.
        recipes: number of recipes.
        engines: number of engines.
        dequantised: number of parents and candidates whose weights are dequantised.
    """
    merged = recipes if config.checkpoints.keep else 0
    copies = (sum(parent.lora is not None for parent in config.parents.values()) + dequantised) * engines
    copies += engines if config.tokenizer_source else 0
    return weight_bytes(config, parameters) * (merged + copies)
