"""Recipe → checkpoint on disk, through mergekit, which defines every method."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.core.text import one_line
from orchestrator.models.headers import EMBEDDING, read_headers, read_tensor
from orchestrator.models.tokenizer import tokenizer_files
from orchestrator.recipes.recipe import Recipe, Source
from tasks.merging.plain import appearing, on_this_node, plain_folder

if TYPE_CHECKING:
    import torch

LINEAR_ABOVE = 0.9995
"""mergekit's SLERP is plain linear interpolation where |cos| of two tensors is above this."""
NORM_PIECE = 1 << 20
"""mergekit's own piece when it measures norms and dot products; another one would move the last bits."""
REFUSALS = (UserError, ValueError, TypeError, AssertionError)
"""What is raised when the recipe itself, or a file of its models, is at fault; see `refused`."""
TRANSIENT = ("memory", "cuda", "alloc")
"""Words in the RuntimeErrors that PyTorch raises where a machine is at fault."""


class MergeRefused(Exception):
    """mergekit refuses to merge this recipe, or its models' files cannot be merged; trying again will not help."""


def refused(error: Exception, before: str = "") -> Exception:
    """Return what cannot be merged as a MergeRefused with the whole message, and any other error as it is.

    mergekit raises plain RuntimeErrors too where a recipe or a file is at fault: a parameter or a tensor that is
    missing. After any other error, trying again may help.

    Args:
        before: what the message is to begin with.
    """
    message = one_line(error)
    plain = type(error) is RuntimeError and not any(word in message.lower() for word in TRANSIENT)
    if isinstance(error, MergeRefused) or not (plain or isinstance(error, REFUSALS)):
        return error
    return MergeRefused(before + (message or type(error).__name__))


def localise(recipe: Recipe, scratch: Path) -> Recipe:
    """Return the same recipe over plain models in folders on this machine.

    mergekit sends requests about models to the hub even when they are cached.

    Args:
        scratch: folder for parents with an adapter merged in.

    Raises:
        As `merged_folder`.
    """
    return _over(recipe, lambda source: _plain(source, scratch))


def adapted(recipe: Recipe, scratch: Path) -> Recipe:
    """Return the same recipe with its adapters merged in.

    Models without an adapter stay as they are, to be found on each node.

    Args:
        scratch: folder for parents with an adapter merged in.

    Raises:
        As `merged_folder`.
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


def materialise(recipe: Recipe, folder: Path, scratch: Path) -> Path:
    """Write the merged checkpoint to `folder` through mergekit; keep it if it is there already.

    Args:
        scratch: folder for parents with an adapter merged in.

    Raises:
        MergeRefused: an impossible recipe, in mergekit's own words; or as `merged_folder`.
        Exception: whatever else goes wrong in mergekit: a full disk, a lack of memory, a damaged file.
    """
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    logging.getLogger("mergekit").setLevel(logging.ERROR)
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    with appearing(folder) as temporary:
        if temporary is not None:
            local = localise(recipe, scratch)
            try:
                config = MergeConfiguration.model_validate(local.to_mergekit())
                run_merge(config, str(temporary), options)
            except Exception as error:
                raise refused(error) from error
    return folder


def slerp_share(first: Source, second: Source, scratch: str) -> dict[str, float]:
    """Measure how much of a pair SLERP treats differently from Linear.

    Where mergekit matches the rows of two vocabularies first, embedding and head are left out.

    Returns:
        `tensors`: how many there are; `curved`: the share of them with |cos| <= 0.9995;
        `lowest_cosine` over all tensors.
    """
    here, there = (merged_folder(source, Path(scratch)) for source in (first, second))
    mine, theirs = read_headers(first.name, here), read_headers(second.name, there)
    cosines = [
        float(cosine(read_tensor(here / header.file, name), read_tensor(there / theirs[name].file, name)))
        for name, header in mine.items()
        if name in theirs and not (EMBEDDING.search(name) and (first.rows or second.rows))
    ]
    curved = sum(abs(value) <= LINEAR_ABOVE for value in cosines)
    return {"tensors": len(cosines), "curved": curved / len(cosines), "lowest_cosine": min(cosines)}


def merged_folder(source: Source, scratch: Path) -> Path:
    """Return the plain folder on this machine with a parent's weights, its adapter merged in.

    An adapter is merged in by mergekit, once for all processes that share `scratch`. Not for the ranks of a process
    group: in those but the first, transformers saves nothing, without an error.

    Raises:
        MergeRefused: mergekit refuses the adapter, or the model's files are not those of its config.
        UserError: the model is not available on this node; it may be at another time.
    """
    local = on_this_node(source)
    try:
        base = plain_folder(replace(source, lora=None), scratch)
        return base if local.lora is None else _with_adapter(source, base, Path(local.lora), scratch)
    except Exception as error:
        raise refused(error) from error


def _with_adapter(source: Source, base: Path, lora: Path, scratch: Path) -> Path:
    """Return the plain folder of a parent with its adapter merged in."""
    from filelock import FileLock
    from mergekit.common import ModelPath, ModelReference

    folder = make_private(scratch / "lora") / source.digest
    with FileLock(folder.with_suffix(".lock")), appearing(folder) as temporary:
        if temporary is not None:
            reference = ModelReference(model=ModelPath(path=str(base)), lora=ModelPath(path=str(lora)))
            try:
                merged = Path(reference.merged(cache_dir=str(temporary)).model.path)
            except Exception as error:
                raise refused(error, f"{source.name}: ") from error
            for name, data in (tokenizer_files(lora) or tokenizer_files(base)).items():
                (merged / name).write_bytes(data)
    (merged,) = folder.iterdir()
    return plain_folder(Source(source.digest, source.name, str(merged)), scratch)


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
