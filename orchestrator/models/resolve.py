"""Finding the files of a sweep's parents and candidates, checking that they are compatible, and identifying them.

A source's digest is made of the SHA-256 of its safetensors files and its config, so the same weights are the same
recipe whatever folder they are in. Only JSON and safetensors headers are read here, and files are hashed.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.config.models import Parent
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.locations import is_remote
from orchestrator.core.text import listed, one_line
from orchestrator.models.adapter import ADAPTER, check_adapter, check_complete
from orchestrator.models.alike import check_alike, check_served, check_window, differing
from orchestrator.models.configs import ModelConfig, read_model_config
from orchestrator.models.dequantised import describe, method_of, plain_headers
from orchestrator.models.fetch import LORA, content_hash, fetch
from orchestrator.models.filters import check_filters
from orchestrator.models.formats import check_folder, read_json, read_plain_config
from orchestrator.models.headers import (
    EMBEDDING,
    FileHeader,
    Header,
    files_of,
    join,
    read_header,
    read_headers,
    weight_files,
)
from orchestrator.models.plain import left_out
from orchestrator.models.quantised import check_quantisation, check_tensors_are_plain
from orchestrator.models.tensors import architecture_of, check_tied, find_tensors
from orchestrator.models.tokenizer import tokenizer_files
from orchestrator.models.vocabulary import Vocabulary, check_one_vocabulary
from orchestrator.recipes.recipe import Source


@dataclass(frozen=True)
class Files:
    """A parent's or candidate's files on this machine."""

    source: Source
    folder: Path
    config: dict[str, Any]
    """config.json, as `orchestrator.models.plain.plain_config` returns it."""
    read: ModelConfig
    """What transformers reads from it."""
    parameters: int
    """Number of weights that are merged."""
    headers: dict[str, Header] = field(default_factory=dict)
    """Name of a tensor in its files → its header."""
    notes: tuple[str, ...] = ()
    """What a user should know of it: what is not merged, for example; a phrase each."""
    dequantised: bool = False
    """Whether the weights in its files are quantised, and merged as `orchestrator.models.dequantised` makes them."""
    adapter: Path | None = None
    """The folder of the LoRA adapter that is merged into it."""

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of its tokenizer: the adapter's, if that has one, else the model's."""
        return self.adapter if self.adapter and tokenizer_files(self.adapter) else self.folder

    def vocabulary(self, where: str) -> Vocabulary:
        """Return its rows and its tokenizer.

        Args:
            where: the sweep file's key, for messages.
        """
        return Vocabulary(where, self.folder, self.read.sizes["vocab_size"], tokenizer_files(self.tokenizer_folder))


def resolve(config: SweepConfig, *, weights: bool = True) -> dict[str, Files]:
    """Find every parent and candidate, fetch hub models, and check that they can be merged with one another.

    Args:
        weights: False fetches only the configs and tokenizers of hub models, for `plan`.

    Raises:
        UserError: a folder or file is missing, weights are not safetensors, or models differ in architecture or
            vocabulary.
    """
    items = [("parents", *item) for item in config.parents.items()]
    items += [("candidates", *item) for item in config.candidates.items()]
    pinned = _check_configs(config, items)
    found = {name: open_model(section, name, pinned[name], weights=weights) for section, name, _ in items}
    first, *others = found
    section = {name: where for where, name, _ in items}
    for name in others:
        if config.tokenizer_source is None:
            here, there = f"{section[name]}.{name}.model", f"parents.{first}"
            check_one_vocabulary(found[name].vocabulary(here), found[first].vocabulary(there))
    check_layers(config, found[first].read)
    check_filters(config, {name for files in found.values() for name in files.headers})
    merged = {name: _as_merged(f"{section[name]}.{name}.model", files, found[first]) for name, files in found.items()}
    return _with_twins(merged)


def _with_twins(found: dict[str, Files]) -> dict[str, Files]:
    """Note models whose weights are those of another one: their merges are that model."""
    first: dict[tuple[str, ...], str] = {}
    for name, files in found.items():
        twin = first.setdefault(tuple(digest for file, digest in files.source.files if file != "config.json"), name)
        if twin != name:
            note = f"{name}: has the same weights as {twin}, so that a merge of the two is {twin} again"
            found[name] = replace(files, notes=(*files.notes, note))
    return found


def _check_configs(config: SweepConfig, items: list[tuple[str, str, Parent]]) -> dict[str, Parent]:
    """Compare the configs of all models with the first parent's and with the window, before weights are fetched.

    Returns:
        Name → model, with the commit of a hub model whose config was compared.
    """
    pinned, first = {}, None
    for section, name, parent in items:
        where = f"{section}.{name}.model"
        folder, revision = fetch(where, parent.model, parent.revision, False)
        check_folder(where, folder)
        check_quantisation(where, folder)
        settings = read_plain_config(where, folder / "config.json")
        read = read_model_config(where, settings)
        check_served(where, settings, read)
        check_window(f"{section}.{name}", read, config.workers.engine.max_model_len)
        if first is None:
            first = f"{section}.{name}", read
        check_alike(where, read, *first)
        pinned[name] = parent.model_copy(update={"revision": revision})
    return pinned


def check_layers(config: SweepConfig, parent: ModelConfig) -> None:
    """Refuse recipes that were written as mergekit's slices and do not cover whole models.

    Raises:
        UserError: a recipe's slices have fewer or more layers than the parents.
    """
    there = parent.sizes["num_hidden_layers"]
    for index, grid in enumerate(config.recipes):
        if grid.layers not in (None, there):
            raise UserError(
                f"recipes[{index}].slices: has layers 0 to {grid.layers}, but the parents have {there}; a recipe "
                "merges whole models: merge other slices with mergekit-yaml, and name the result under `candidates:`"
            )


def open_model(section: str, name: str, parent: Parent, *, weights: bool = True) -> Files:
    """Find one model of the sweep's `parents` or `candidates`; raises as `resolve`.

    Args:
        section: `parents` or `candidates`.
        weights: as for `resolve`.
    """
    where = f"{section}.{name}"
    # Only a hub lists the hashes of weights, of which the digest is made, without a download.
    weights = weights or is_remote(parent.model)
    folder, revision = fetch(f"{where}.model", parent.model, parent.revision, weights)
    check_folder(f"{where}.model", folder)
    config = read_plain_config(f"{where}.model", folder / "config.json")
    read = read_model_config(f"{where}.model", config)
    # Without its weights, the hub's cache may still have some of them.
    here = folder if weights or revision is None or _is_whole(folder) else None
    if here is not None or revision is None:
        shards = _shards(f"{where}.model", folder)
    else:
        shards = _shards_on_the_hub(f"{where}.model", folder, parent.model, revision)
    if not shards:
        raise UserError(
            f"{where}.model: {folder} has no *.safetensors file; only safetensors are read, so convert the "
            "weights with save_pretrained(folder, safe_serialization=True)"
        )
    headers = join(f"{where}.model", {shard.name: shard.header for shard in shards}, here)
    raw = read_json(f"{where}.model", folder / "config.json")
    if dequantised := method_of(raw) is not None:
        headers = plain_headers(f"{where}.model", raw, config, headers)
    else:
        check_tensors_are_plain(f"{where}.model", headers)
    files = [*((shard.name, shard.sha256) for shard in shards), ("config.json", _sha256(folder / "config.json"))]
    adapter = None
    if parent.lora is not None:
        adapter, _ = fetch(f"{where}.lora", parent.lora, None, weights or is_remote(parent.lora))
        check_folder(f"{where}.lora", adapter)
        read_json(f"{where}.lora", adapter / ADAPTER)
        if not list(adapter.glob("*.safetensors")):
            raise UserError(f"{where}.lora: {adapter} has no *.safetensors file; save the adapter as safetensors")
        _check_adapter(f"{where}.lora", adapter, read.sizes["vocab_size"])
        own = (*sorted(adapter.glob("*.safetensors")), adapter / ADAPTER)
        files += [(LORA + file.name, _sha256(file)) for file in own]
    digest = hashlib.sha256("".join(found for _, found in files).encode()).hexdigest()[:20]
    source = Source(digest, name, parent.model, revision, parent.lora, tuple(files))
    parameters = sum(math.prod(header.shape) for header in headers.values())
    return Files(source, folder, config, read, parameters, headers, dequantised=dequantised, adapter=adapter)


def _as_merged(where: str, files: Files, first: Files) -> Files:
    """Check the tensors of a causal language model, and note what of it is not merged or not served."""
    raw = read_json(where, files.folder / "config.json")
    tensors = find_tensors(where, files.headers, files.config)
    if all((files.folder / header.file).exists() for header in files.headers.values()):
        check_tied(where, files.folder, files.headers, tensors)
    if files.adapter is not None:
        lora = where.removesuffix("model") + "lora"
        architecture = architecture_of(where, files.config, len(files.headers))
        check_adapter(lora, read_headers(lora, files.adapter), architecture)
        check_complete(lora, files.adapter, files.config, architecture)
    notes = [*left_out(raw), *tensors.notes]
    if files.dequantised:
        notes.append(describe(raw))
    if files.source.lora is None and (files.folder / ADAPTER).exists():
        notes.append(
            f"the adapter of {ADAPTER} in its folder is not merged; name it as lora if it belongs to the model"
        )
    if others := differing(files.read, first.read):
        notes.append(f"served with {listed(others)} of {first.source.name}, which differ here and change no answer")
    return replace(files, parameters=tensors.parameters, notes=tuple(f"{files.source.name}: {note}" for note in notes))


def _check_adapter(where: str, adapter: Path, rows: int | None) -> None:
    """Refuse an adapter that was trained with more or fewer rows than its model has: peft cannot load it there."""
    shapes = {name: header.shape for name, header in read_headers(where, adapter).items() if EMBEDDING.search(name)}
    for name, (found, *_) in shapes.items():
        if found != rows:
            raise UserError(
                f"{where}: {adapter} has {found} rows in {name}, but the model {rows}: it was trained with added "
                f"tokens; merge it into a model first (model.resize_token_embeddings({found}), "
                "PeftModel.from_pretrained(model, adapter).merge_and_unload(), save_pretrained, with its tokenizer), "
                "and give that folder as model, without lora"
            )


@dataclass(frozen=True)
class Shard:
    """One safetensors file of a model."""

    name: str
    sha256: str
    header: FileHeader


def _is_whole(folder: Path) -> bool:
    """Whether all weight files of a model are in its folder."""
    try:
        return bool(weight_files(folder))
    except ValueError:
        return False


def _shards(where: str, folder: Path) -> list[Shard]:
    # The header is read first, so that a file of another kind is refused for what it is.
    return [
        Shard(file, header=read_header(where, folder / file), sha256=_sha256(folder / file))
        for file in files_of(where, folder)
    ]


def _shards_on_the_hub(where: str, folder: Path, model: str, revision: str) -> list[Shard]:
    """List the weight files of a hub model without downloading them, with the hashes and headers that the hub has.

    Args:
        folder: with the model's index, if it has one.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    api = HfApi()
    try:
        listed = api.model_info(model, revision=revision, files_metadata=True).siblings or []
        hashes = {file.rfilename: file.lfs.sha256 for file in listed if file.lfs is not None}
        found = {}
        for name in files_of(where, folder, [name for name in hashes if "/" not in name]):
            tensors = api.parse_safetensors_file_metadata(model, name, revision=revision).tensors
            found[name] = {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()}
    except (OSError, ValueError, NotASafetensorsRepoError, SafetensorsParsingError) as error:
        raise UserError(
            f"{where}: the hub does not describe the weights of {model!r} ({one_line(error)}); download it first"
        ) from None
    return [Shard(name, hashes[name], header) for name, header in found.items()]


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file; in the hub's cache a large file is named by it, and workers check the content."""
    blob = Path(os.path.realpath(path)).name
    return blob if len(blob) == 64 and set(blob) <= set("0123456789abcdef") else content_hash(path)
