"""Recipe → checkpoint on disk, through mergekit. mergekit is the definition of every method."""

from __future__ import annotations

import logging
import shutil
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.files import make_private
from orchestrator.recipe import Recipe, Source

if TYPE_CHECKING:
    import torch

LINEAR_ABOVE = 0.9995
"""mergekit's SLERP is plain linear interpolation where |cos| of two tensors is above this."""


class MergeRefused(Exception):
    """mergekit says that this recipe cannot be merged; trying again will not help."""


def materialise(recipe: Recipe, folder: Path, scratch: Path) -> Path:
    """Write the merged checkpoint to `folder`, through a temporary name; keep it if it is there already.

    Args:
        scratch: where LoRA parents are merged into their base, once per worker.

    Raises:
        MergeRefused: an impossible recipe, in mergekit's own words.
        OSError: the disk is full or a parent cannot be read.
    """
    if folder.exists():
        return folder
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    logging.getLogger("mergekit").setLevel(logging.ERROR)
    make_private(folder.parent)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    options = MergeOptions(
        lora_merge_cache=str(scratch / "lora"),
        copy_tokenizer=False,
        write_model_card=False,
        quiet=True,
        random_seed=recipe.seed,
    )
    try:
        run_merge(MergeConfiguration.model_validate(recipe.to_mergekit()), str(temporary), options)
        temporary.rename(folder)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # mergekit has no error class of its own; whatever else it raises is its verdict on the recipe.
        raise MergeRefused(f"{error or type(error).__name__}\n{traceback.format_exc()}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def headers(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Tensor name → (file, shape) for a folder of safetensors, sharded or not."""
    from safetensors import safe_open

    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                found[name] = (file, tuple(tensors.get_slice(name).get_shape()))
    return found


def slerp_share(first: Source, second: Source, scratch: str) -> dict[str, float]:
    """How much of a pair SLERP treats differently from Linear.

    Returns:
        `tensors`: how many there are; `curved`: the share of them with |cos| <= 0.9995;
        `lowest_cosine` over all tensors.
    """
    from safetensors import safe_open

    theirs = headers(merged_folder(second, scratch))
    cosines = []
    for name, (file, _) in headers(merged_folder(first, scratch)).items():
        if name in theirs:
            with safe_open(file, framework="pt") as a, safe_open(theirs[name][0], framework="pt") as b:
                cosines.append(cosine(a.get_tensor(name), b.get_tensor(name)))
    curved = sum(abs(value) <= LINEAR_ABOVE for value in cosines)
    return {"tensors": len(cosines), "curved": curved / len(cosines), "lowest_cosine": min(cosines)}


def merged_folder(source: Source, scratch: str) -> Path:
    """A parent's weights as safetensors on this machine, its adapter merged in by mergekit."""
    from mergekit.common import ModelReference

    reference = ModelReference.parse(source.reference).merged(cache_dir=str(Path(scratch) / "lora"))
    return Path(reference.local_path())


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two tensors as flat vectors, in float64 chunks: a float32 sum over an embedding is off in the third
    digit, and the decision between SLERP and Linear is made in the fourth."""
    import torch

    dot = norm_a = norm_b = 0.0
    for x, y in zip(a.flatten().split(1 << 22), b.flatten().split(1 << 22), strict=True):
        x, y = x.to(torch.float64), y.to(torch.float64)
        dot += float(x @ y)
        norm_a += float(x @ x)
        norm_b += float(y @ y)
    return dot / (norm_a * norm_b) ** 0.5 if norm_a and norm_b else 1.0
