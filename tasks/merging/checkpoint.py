"""Recipe → checkpoint on disk, through mergekit, which defines every method."""

from __future__ import annotations

import contextlib
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.files import make_private
from orchestrator.models.fetch import fetch
from orchestrator.models.formats import weight_files
from orchestrator.recipes.recipe import Recipe, Source

if TYPE_CHECKING:
    import torch

LINEAR_ABOVE = 0.9995
"""mergekit's SLERP is plain linear interpolation where |cos| of two tensors is above this."""
NORM_PIECE = 1 << 20
"""mergekit's own piece when it measures norms and dot products; another one would move the last bits."""
REFUSALS = (ValueError, TypeError, AssertionError)
"""What mergekit raises when the recipe itself is at fault; after any other error, trying again may help."""


class MergeRefused(Exception):
    """mergekit refuses to merge this recipe; trying again will not help."""


def localise(recipe: Recipe, scratch: Path) -> Recipe:
    """Return the same recipe over plain models in folders on this machine.

    mergekit sends requests about models to the hub even when they are cached.

    Args:
        scratch: folder for parents with an adapter merged in.

    Raises:
        MergeRefused: mergekit refuses an adapter.
    """
    return _over(recipe, lambda source: _plain(source, scratch))


def adapted(recipe: Recipe, scratch: Path) -> Recipe:
    """Return the same recipe with its adapters merged in.

    Models without an adapter stay as they are, to be found on each node.

    Args:
        scratch: folder for parents with an adapter merged in.

    Raises:
        MergeRefused: mergekit refuses an adapter.
    """
    return _over(recipe, lambda source: _plain(source, scratch) if source.lora else source)


def with_tokenizer(recipe: Recipe, folder: Path) -> Recipe:
    """Return the same recipe with the served tokenizer in its folder on this machine.

    Args:
        folder: of the served tokenizer.
    """
    return _over(recipe, lambda each: replace(each, rows=each.rows and replace(each.rows, folder=str(folder))))


def _plain(source: Source, scratch: Path) -> Source:
    return replace(source, model=str(merged_folder(source, scratch)), revision=None, lora=None)


def _over(recipe: Recipe, change: Callable[[Source], Source]) -> Recipe:
    models = tuple((change(source), parameters) for source, parameters in recipe.models)
    return replace(recipe, models=models, base_model=change(recipe.base_model) if recipe.base_model else None)


@lru_cache(maxsize=256)
def _local(source: Source) -> Source:
    """The same source, by its folders on this machine.

    They are looked up once per process: what was served does not change during a sweep.
    """
    model, _ = fetch(source.name, source.model, source.revision, weights=True)
    lora = str(fetch(source.name, source.lora, None, weights=True)[0]) if source.lora else None
    return replace(source, model=str(model), revision=None, lora=lora)


def materialise(recipe: Recipe, folder: Path, scratch: Path) -> Path:
    """Write the merged checkpoint to `folder` through mergekit; keep it if it is there already.

    Args:
        scratch: folder for parents with an adapter merged in.

    Raises:
        MergeRefused: an impossible recipe, in mergekit's own words.
        Exception: whatever else goes wrong in mergekit: a full disk, a lack of memory, a damaged file.
    """
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    logging.getLogger("mergekit").setLevel(logging.ERROR)
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    with appearing(folder) as temporary:
        if temporary is not None:
            try:
                config = MergeConfiguration.model_validate(localise(recipe, scratch).to_mergekit())
                run_merge(config, str(temporary), options)
            except REFUSALS as error:
                raise MergeRefused(str(error) or type(error).__name__) from error
    return folder


@contextlib.contextmanager
def appearing(folder: Path) -> Iterator[Path | None]:
    """Yield a temporary folder that becomes `folder` all at once when the block succeeds.

    It is removed when the block raises. Where `folder` is there already, None is yielded.
    """
    if folder.exists():
        yield None
        return
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    make_private(temporary)
    try:
        yield temporary
        temporary.rename(folder)
    except OSError:
        if not folder.exists():  # another worker was first with the same checkpoint
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def headers(folder: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Read tensor name → (file, shape) from a folder of safetensors files, sharded or not."""
    from safetensors import safe_open

    found = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                if name.endswith("rotary_emb.inv_freq"):
                    continue  # a buffer that old checkpoints have and no model reads
                found[name] = (file, tuple(tensors.get_slice(name).get_shape()))
    return found


def slerp_share(first: Source, second: Source, scratch: str) -> dict[str, float]:
    """Measure how much of a pair SLERP treats differently from Linear.

    Returns:
        `tensors`: how many there are; `curved`: the share of them with |cos| <= 0.9995;
        `lowest_cosine` over all tensors.
    """
    from safetensors import safe_open

    theirs = headers(merged_folder(second, Path(scratch)))
    cosines = []
    for name, (file, _) in headers(merged_folder(first, Path(scratch))).items():
        if name in theirs:
            with safe_open(file, framework="pt") as a, safe_open(theirs[name][0], framework="pt") as b:
                cosines.append(float(cosine(a.get_tensor(name), b.get_tensor(name))))
    curved = sum(abs(value) <= LINEAR_ABOVE for value in cosines)
    return {"tensors": len(cosines), "curved": curved / len(cosines), "lowest_cosine": min(cosines)}


def merged_folder(source: Source, scratch: Path) -> Path:
    """Return the folder on this machine with a parent's weights as safetensors.

    An adapter is merged in by mergekit, once for all processes that share `scratch`. Not for the ranks of a process
    group: in those but the first, transformers saves nothing, without an error.

    Raises:
        MergeRefused: mergekit refuses the adapter.
    """
    local = _local(source)
    if local.lora is None:
        return Path(local.model)
    from filelock import FileLock
    from mergekit.common import ModelReference

    folder = make_private(scratch / "lora") / source.digest
    with FileLock(folder.with_suffix(".lock")), appearing(folder) as temporary:
        if temporary is not None:
            try:
                ModelReference.parse(local.reference).merged(cache_dir=str(temporary))
            except REFUSALS as error:
                raise MergeRefused(f"{source.name}: {error or type(error).__name__}") from error
    (merged,) = folder.iterdir()
    return merged


def cosine(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compute the cosine that mergekit's slerp finds, to the bit.

    It takes the norms of the norms of the tensor's pieces, then the dot product of the normalised pieces (one float32
    sum over an embedding is off in the third digit).

    Returns:
        Shape (1, 1), float32, in [-1, 1].
    """
    import torch

    a, b = first.reshape(1, -1), second.reshape(1, -1)
    pieces = [slice(start, start + NORM_PIECE) for start in range(0, a.shape[1], NORM_PIECE)]

    def norm(tensor: torch.Tensor) -> torch.Tensor:
        parts = [torch.linalg.vector_norm(tensor[:, p].float(), dim=1, keepdim=True) for p in pieces]
        whole = torch.linalg.vector_norm(torch.stack(parts), dim=0)
        return torch.where(whole > 1e-8, whole, 1)

    norm_a, norm_b = norm(a), norm(b)
    dots = [((a[:, p].float() / norm_a) * (b[:, p].float() / norm_b)).sum(dim=1, keepdim=True) for p in pieces]
    return torch.stack(dots).sum(dim=0).clamp(-1, 1)
