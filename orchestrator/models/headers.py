"""The safetensors files of a model: which they are, and what their headers say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.core.errors import UserError

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
FileHeader = Mapping[str, tuple[Shape, str]]
"""Name of a tensor → its shape and dtype."""

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"
BUFFERS = re.compile(r"rotary_emb\.inv_freq$|attn\.(masked_)?bias$|rotary_emb\.(cos|sin)_cached$")
"""Names of buffers that old checkpoints have and no model reads."""
EMBEDDING = re.compile(r"\b(embed_tokens|lm_head|wte|embed_in|embed_out)(\.base_layer)?\.weight$")
"""The names of tensors with a row for each token, peft's included."""
NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.safetensors")


class Header(NamedTuple):
    """A tensor by the header of the file that it is in."""

    file: str
    """Name of the file in the model's folder."""
    shape: Shape
    dtype: str
    """By safetensors' name, such as BF16."""


def read_header(where: str, path: Path) -> FileHeader:
    """Read the name of each tensor in a safetensors file → its shape and dtype, without `BUFFERS`.

    Raises:
        UserError: the file is damaged or cut off, which safetensors finds by comparing the header with the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys() if not BUFFERS.search(name)}  # noqa: SIM118
            return {name: (tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{where}: {path} is damaged or cut off ({error}); download or save it again") from None


def weight_files(folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """List the names of the safetensors files that make up a model.

    They are those that its index names, else model.safetensors, else the numbered ones, else all that there are: some
    repositories contain the weights a second time under another name.

    Args:
        names: of the files that the model has, where they are not all in the folder; its index is there.

    Raises:
        ValueError: the index is malformed, or names something other than safetensors files of this model; or a file is
            missing, or it is not clear which files are the model.
    """
    listed = (file.name for file in folder.iterdir()) if names is None else names
    files = sorted(name for name in listed if name.endswith(".safetensors") and not name.startswith("."))
    if (folder / INDEX).exists():
        named = _named(folder / INDEX)
        if gone := [name for name in named if name not in files]:
            raise ValueError(f"{folder / INDEX} names {gone[0]}, which is not there")
        if WHOLE in files and WHOLE not in named:
            raise ValueError(
                f"{folder} has {WHOLE}, and an index that names {named[0]}: some programs read the one, some the "
                "other; remove the older of them"
            )
        return named
    if WHOLE in files:
        return [WHOLE]
    return _numbered(folder, files) or files


def _named(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        wrong = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{index} does not say which tensor is in which file") from None
    if wrong:
        raise ValueError(f"{index} names {wrong[0]!r}, which is no safetensors file of this folder")
    return names


def _numbered(folder: Path, files: Iterable[str]) -> list[str]:
    found = [match for match in map(NUMBERED.fullmatch, files) if match]
    sets = {(match[1], int(match[3])) for match in found}
    if len(sets) > 1:
        raise ValueError(f"{folder} has files of several models: {', '.join(match[0] for match in found[:4])}")
    for stem, count in sets:
        there = {int(match[2]) for match in found}
        if gone := sorted(set(range(1, count + 1)) - there):
            raise ValueError(f"{folder} has no {stem}-{gone[0]:05d}-of-{count:05d}.safetensors: a part is missing")
    return [match[0] for match in found]


def read_headers(where: str, folder: Path) -> dict[str, Header]:
    """Read where the tensors of a model's folder are, by the headers of its files.

    Raises:
        UserError: a file is damaged or missing, or two have different tensors of one name.
    """
    return join(where, {file: read_header(where, folder / file) for file in files_of(where, folder)}, folder)


def files_of(where: str, folder: Path, names: Iterable[str] | None = None) -> list[str]:
    """List a model's safetensors files as `weight_files` does, whose errors become a UserError."""
    try:
        return weight_files(folder, names)
    except ValueError as error:
        raise UserError(f"{where}: {error}; download or save the model again") from None


def join(where: str, files: Mapping[str, FileHeader], folder: Path | None = None) -> dict[str, Header]:
    """Join the headers of a model's files.

    Args:
        files: name of a file → its header.
        folder: where the files are, to compare tensors that two of them have; None where they are on the hub.

    Raises:
        UserError: two files have different tensors of one name.
    """
    found: dict[str, Header] = {}
    for file, header in files.items():
        for name, (shape, dtype) in header.items():
            first = found.setdefault(name, Header(file, shape, dtype))
            if first.file != file and folder and not equal((folder / first.file, name), (folder / file, name)):
                raise UserError(
                    f"{where}: {first.file} and {file} in {folder} have different tensors {name}, so one of "
                    "them is of another model; download or save the model again"
                )
    return found


def equal(first: tuple[Path, str], second: tuple[Path, str]) -> bool:
    """Whether two tensors, each a file and a name in it, have the same values and dtype."""
    import torch

    one, two = read_tensor(*first), read_tensor(*second)
    return one.dtype == two.dtype and bool(torch.equal(one, two))


def read_tensor(file: Path, name: str) -> torch.Tensor:
    """Read a tensor of a safetensors file, as it is stored: a view of the file."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor
