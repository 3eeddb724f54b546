"""A folder per model that mergekit, vLLM and transformers all read alike.

Each of them reads a folder its own way: by an index or by what the files contain, with or without tensors that the
architecture does not use, by a path that mergekit would parse. So the models of a sweep are given to all of them as
plain folders: the weight files (links to them, where nothing has to be changed), an index that is made from their
headers and names exactly what the architecture uses, the config as it is served, and the tokenizer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from orchestrator.core.files import make_private, write_json
from orchestrator.models.dequantised import dequantise, method_of, plain_headers
from orchestrator.models.fetch import fetch
from orchestrator.models.formats import read_json
from orchestrator.models.headers import INDEX, WHOLE, read_headers, read_tensor
from orchestrator.models.plain import plain_config
from orchestrator.models.tensors import Part, check_tied, empty_model, find_tensors, stored_form
from orchestrator.models.tokenizer import TOKENIZER_FILES
from orchestrator.recipes.recipe import Source

if TYPE_CHECKING:
    import torch


@lru_cache(maxsize=256)
def on_this_node(source: Source) -> Source:
    """Return the same source by its folders on this machine.

    They are looked up once per process: what was served does not change during a sweep.
    """
    model, _ = fetch(source.name, source.model, source.revision, weights=True)
    lora = str(fetch(source.name, source.lora, None, weights=True)[0]) if source.lora else None
    return replace(source, model=str(model), revision=None, lora=lora)


def plain_folder(source: Source, scratch: Path) -> Path:
    """Make the plain folder of a model without its adapter, once for all processes that share `scratch`.

    Raises:
        UserError: the model is not available on this node, or its files are not those of its config.
    """
    local = on_this_node(source)
    key = hashlib.sha256(f"{local.digest}|{local.model}".encode()).hexdigest()[:20]
    folder = make_private(scratch / "plain") / key
    with FileLock(folder.with_suffix(".lock")), appearing(folder) as temporary:
        if temporary is not None:
            write_plain(source.name, Path(local.model), temporary)
    return folder


def write_plain(where: str, model: Path, folder: Path) -> None:
    """Write the plain form of a model's folder into an empty one.

    Args:
        where: the model's name, for messages.

    Raises:
        UserError: its files are not those of its config.
    """
    raw = read_json(where, model / "config.json")
    config = plain_config(where, raw)
    headers, made = read_headers(where, model), {}
    if method_of(raw):
        stored = headers
        headers = plain_headers(where, raw, config, headers)
        made = dequantise(where, raw, config, model)
        made = {name: tensor for name, tensor in made.items() if headers.get(name) != stored.get(name)}
    tensors = find_tensors(where, headers, config)
    check_tied(where, model, headers, tensors)
    files = sorted({part.file for part in tensors.used.values()})
    for number, file in enumerate(files, 1):
        target = folder / (f"model-{number:05d}-of-{len(files):05d}.safetensors" if len(files) > 1 else WHOLE)
        used = {name: part for name, part in tensors.used.items() if part.file == file}
        as_they_are = all(part.stored == name and not part.loaded and name not in made for name, part in used.items())
        if as_they_are and len(used) == sum(header.file == file for header in headers.values()):
            target.symlink_to((model / file).resolve())
        else:
            _write_used(model / file, used, target, json.dumps(config, sort_keys=True), made=made)
    if len(files) > 1:
        index = {name: header.file for name, header in read_headers(where, folder).items()}
        write_json(folder / INDEX, {"metadata": {}, "weight_map": index})
    write_json(folder / "config.json", config)
    for name in TOKENIZER_FILES:
        if (model / name).exists():
            (folder / name).symlink_to((model / name).resolve())


def make_plain(where: str, model: Path, folder: Path) -> None:
    """Move a model's folder into an empty one in its plain form, without links; raises as `write_plain`."""
    write_plain(where, model, folder)
    for link in [file for file in folder.iterdir() if file.is_symlink()]:
        file = link.resolve()
        link.unlink()
        file.rename(link)
    shutil.rmtree(model)


def _write_used(
    file: Path, used: Mapping[str, Part], target: Path, config: str, *, made: Mapping[str, torch.Tensor]
) -> None:
    """Write those tensors of a file that the architecture uses, by its names and one an expert.

    Args:
        made: name → tensor that is written in its place.
    """
    from safetensors.torch import save_file

    written = {}
    for name, part in used.items():
        tensor = made[name] if name in made else read_tensor(file, part.stored)
        apart = stored_form(empty_model(config), {name: tensor}) if part.loaded else {name: tensor}
        # Cloned, for safetensors refuses tensors that share memory.
        written.update({each: tensor.clone().contiguous() for each, tensor in apart.items()})
    save_file(written, target, {"format": "pt"})


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
