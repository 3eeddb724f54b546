"""The serving of a sweep: one tokenizer, one chat template and one set of stop ids for every recipe.

mergekit takes these from the base model, which may be the parent without a template; generation would then stop at the
wrong tokens. Only JSON is read here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.config.backends import BACKENDS
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private, write_atomic
from orchestrator.core.records import Profile, Serving
from orchestrator.models.architecture import architecture
from orchestrator.models.formats import read_json
from orchestrator.models.resolve import Files
from orchestrator.models.served_rows import build_tokenizer, rows_of, served_ids, source_parent
from orchestrator.models.stop_ids import stop_ids
from orchestrator.models.vocabulary import Vocabulary
from orchestrator.recipes.recipe import Source


def make_serving(config: SweepConfig, parents: dict[str, Files], folder: Path) -> Serving:
    """Choose or build the tokenizer, write its files to a folder in `folder`, and collect the stop ids of all models.

    Args:
        parents: name → files, of the parents and candidates.

    Raises:
        UserError: the chosen parent has no tokenizer, or mergekit cannot build one of the parents' tokenizers.
    """
    chosen = config.tokenizer or _with_template(config, parents)
    own = vocabularies(config, parents)
    files = own[chosen].files if config.tokenizer_source is None else build_tokenizer(config, own, chosen)
    if not files:
        raise UserError(
            f"parents.{chosen}.model: {parents[chosen].folder} has no tokenizer.json; save its tokenizer there, or "
            "set tokenizer to the parent that has one"
        )
    hashed = hashlib.sha256()
    for name, data in sorted(files.items()):
        hashed.update(name.encode() + hashlib.sha256(data).digest())
    digest = hashed.hexdigest()[:20]
    # A folder of its own for each tokenizer: no file of another one can stay behind.
    for name, data in files.items():
        write_atomic(make_private(folder / digest) / name, data)
    engine = config.workers.engine
    first = parents[next(iter(config.parents))]
    named = {name: stop_ids(found, own[name].where) for name, found in parents.items()}
    stops = {name: ids for name, (ids, _) in named.items()}
    if config.tokenizer_source is not None:
        at = {name: served_ids(own[name], files) for name in stops}
        stops = {name: {at[name][number] for number in ids if number in at[name]} for name, ids in stops.items()}
    return Serving(
        tokenizer=digest,
        chat_template=_template(folder / digest),
        stop_token_ids=tuple(sorted(set().union(*stops.values()))),
        max_model_len=engine.max_model_len,
        architecture=architecture(first.config),
        engine=tuple(
            (key, getattr(engine, key)) for key in ("max_num_seqs", "max_num_batched_tokens", "enforce_eager")
        ),
        parent=chosen,
        folder=str(folder / digest),
        # mergekit gives each token of a tokenizer that it builds a row.
        vocab_size=first.read.sizes["vocab_size"] if config.tokenizer_source is None else None,
        notes=tuple(note for _, left_out in named.values() for note in left_out),
    )


def served_sources(config: SweepConfig, parents: dict[str, Files], serving: Serving) -> dict[str, Source]:
    """Return name → model as recipes merge it: with `tokenizer_source`, in the rows of the served tokenizer.

    Raises:
        UserError: a model has no tokenizer, or one with tokens beyond its rows.
    """
    sources = {name: found.source for name, found in parents.items()}
    if config.tokenizer_source is None:
        return sources
    own, folder = vocabularies(config, parents), Path(serving.folder)
    return {name: replace(source, rows=rows_of(own[name], folder)) for name, source in sources.items()}


def vocabularies(config: SweepConfig, parents: dict[str, Files]) -> dict[str, Vocabulary]:
    """Return name → rows and tokenizer, of the parents and candidates."""
    section = {name: "parents" if name in config.parents else "candidates" for name in parents}
    return {name: found.vocabulary(f"{section[name]}.{name}.model") for name, found in parents.items()}


def make_profile(config: SweepConfig) -> Profile:
    """Return the numeric profile of the sweep's engines, without starting one.

    So a finished sweep can be opened without an engine.

    Raises:
        UserError: the backend is not installed.
    """
    backend = BACKENDS[config.workers.backend]
    name = backend.name
    if backend.distributions:
        if backend.version is None:
            raise UserError(f"workers.backend: {name} is not installed here; run make setup, or use backend: fake")
        name += f" {backend.version}"
    device = config.workers.accelerator_type or ("gpu" if config.workers.gpus else "cpu")
    engine = config.workers.engine
    return Profile(name, config.dtype, engine.tensor_parallel_size, device, engine.pipeline_parallel_size)


def _with_template(config: SweepConfig, parents: dict[str, Files]) -> str:
    """Name the parent whose chat template is served.

    It is the one that `tokenizer_source` names if that has a template, else the last one with a template (usually the
    instruct model), else the first parent.
    """
    with_template = [name for name in config.parents if _template(parents[name].tokenizer_folder)]
    named = [name for name in with_template if name == source_parent(config)]
    return (named or with_template or list(config.parents)[:1])[-1]


def tokenizer_of(config: SweepConfig, serving: Serving) -> str:
    """Say in words which parent's tokenizer serves a sweep."""
    named = source_parent(config)
    return serving.parent if config.tokenizer_source is None else named or "the union of all parents"


def _template(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        try:
            return file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UserError(f"parents: {file} is not UTF-8 text; download or save the model again") from None
    template = _optional_json(folder / "tokenizer_config.json").get("chat_template")
    return template if template is None or isinstance(template, str) else json.dumps(template, sort_keys=True)


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json("parents", path) if path.exists() else {}
