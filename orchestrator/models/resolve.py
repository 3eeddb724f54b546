"""Finding the files of a sweep's parents and candidates, checking that they are compatible, and identifying them.

A source's digest is made of the SHA-256 of its safetensors files and its config, so the same weights are the same
recipe whatever folder they are in. Only JSON and safetensors headers are read here, and files are hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.models import Parent
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from orchestrator.models.fetch import LORA, content_hash, fetch
from orchestrator.models.formats import (
    check_folder,
    count_parameters,
    embeddings,
    read_json,
    read_model_config,
    weight_files,
)
from orchestrator.models.tokenizer import tokenizer_files
from orchestrator.models.vocabulary import Vocabulary, check_one_vocabulary
from orchestrator.recipes.recipe import Source

SHAPES = (
    "architectures", "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings",
)  # fmt: skip
"""Keys of config.json in which the parents must agree for their tensors to have the same shapes."""
COMPUTING = (
    "hidden_act", "rms_norm_eps", "rope_theta", "rope_scaling", "attention_bias", "mlp_bias", "sliding_window",
)  # fmt: skip
"""Keys of config.json in which the parents must agree because one engine, with one config, serves all recipes."""


@dataclass(frozen=True)
class Files:
    """A parent's or candidate's files on this machine."""

    source: Source
    folder: Path
    config: dict[str, Any]
    """config.json in the form of `orchestrator.models.formats.normal`."""
    parameters: int
    """Number of weights, from the safetensors headers."""
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
        return Vocabulary(where, self.folder, self.config.get("vocab_size"), tokenizer_files(self.tokenizer_folder))


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
    found = {name: open_model(section, name, parent, weights=weights) for section, name, parent in items}
    first, *others = found
    section = {name: where for where, name, _ in items}
    for name in others:
        if config.tokenizer_source is None:
            here, there = f"{section[name]}.{name}.model", f"parents.{first}"
            check_one_vocabulary(found[name].vocabulary(here), found[first].vocabulary(there))
        _check_same(f"{section[name]}.{name}.model", found[name], f"parents.{first}", found[first])
    check_layers(config, found[first].config)
    return found


def check_layers(config: SweepConfig, settings: dict[str, Any]) -> None:
    """Refuse recipes that were written as mergekit's slices and do not cover whole models.

    Args:
        settings: config.json of a parent.

    Raises:
        UserError: a recipe's slices have fewer or more layers than the parents.
    """
    there = settings.get("text_config", settings).get("num_hidden_layers")
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
    folder, revision = fetch(f"{where}.model", parent.model, parent.revision, weights)
    check_folder(f"{where}.model", folder)
    model_config = read_model_config(f"{where}.model", folder / "config.json")
    shards = _shards(f"{where}.model", folder)
    if not shards and not weights and revision is not None:
        shards = _shards_on_the_hub(f"{where}.model", parent.model, revision)
    if not shards:
        raise UserError(
            f"{where}.model: {folder} has no *.safetensors file; only safetensors are read, so convert the "
            "weights with save_pretrained(folder, safe_serialization=True)"
        )
    files = [*((shard.name, shard.sha256) for shard in shards), ("config.json", _sha256(folder / "config.json"))]
    adapter = None
    if parent.lora is not None:
        adapter, _ = fetch(f"{where}.lora", parent.lora, None, weights)
        check_folder(f"{where}.lora", adapter)
        read_json(f"{where}.lora", adapter / "adapter_config.json")
        if not list(adapter.glob("*.safetensors")):
            raise UserError(f"{where}.lora: {adapter} has no *.safetensors file; save the adapter as safetensors")
        _check_adapter(f"{where}.lora", adapter, model_config)
        own = (*sorted(adapter.glob("*.safetensors")), adapter / "adapter_config.json")
        files += [(LORA + file.name, _sha256(file)) for file in own]
    digest = hashlib.sha256("".join(found for _, found in files).encode()).hexdigest()[:20]
    source = Source(digest, name, parent.model, revision, parent.lora, tuple(files))
    return Files(source, folder, model_config, sum(shard.parameters for shard in shards), adapter)


def _check_adapter(where: str, adapter: Path, config: dict[str, Any]) -> None:
    """Refuse an adapter that was trained with more or fewer rows than its model has: peft cannot load it there."""
    rows = config.get("vocab_size")
    for name, (found, *_) in embeddings(where, adapter).items():
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
    parameters: int
    """Number of weights in it."""


def _shards(where: str, folder: Path) -> list[Shard]:
    try:
        files = weight_files(folder)
    except ValueError as error:
        raise UserError(f"{where}: {error}; download or save the model again") from None
    # The header is read first, so that a file of another kind is refused for what it is.
    return [Shard(name=f.name, parameters=count_parameters(where, f), sha256=_sha256(f)) for f in files]


def _shards_on_the_hub(where: str, model: str, revision: str) -> list[Shard]:
    """List the weight files of a hub model without downloading them, with the hashes and headers that the hub has."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError

    api = HfApi()
    try:
        listed = api.model_info(model, revision=revision, files_metadata=True).siblings or []
        headers = api.get_safetensors_metadata(model, revision=revision).files_metadata
    except NotASafetensorsRepoError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: the hub does not describe the weights of {model!r} ({one_line(error)}); download it first"
        ) from None
    return [
        Shard(file.rfilename, file.lfs.sha256, sum(headers[file.rfilename].parameter_count.values()))
        for file in sorted(listed, key=lambda file: file.rfilename)
        if file.rfilename in headers and file.lfs is not None
    ]


def architecture(files: Files) -> str:
    """Compute the digest of the config's keys that affect computation."""
    text = json.dumps({key: files.config.get(key) for key in (*SHAPES, *COMPUTING)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _check_same(where: str, files: Files, first_where: str, first: Files) -> None:
    for key in (*SHAPES, *COMPUTING):
        if key == "vocab_size":
            continue  # the vocabularies were compared, or mergekit makes them one
        mine, theirs = files.config.get(key), first.config.get(key)
        if mine != theirs:
            raise UserError(
                f"{where}: {key} is {mine!r}, but {theirs!r} in {first_where}; merging needs parents of one "
                "architecture"
            )


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file; in the hub's cache a large file is named by it, and workers check the content."""
    blob = Path(os.path.realpath(path)).name
    return blob if len(blob) == 64 and set(blob) <= set("0123456789abcdef") else content_hash(path)
