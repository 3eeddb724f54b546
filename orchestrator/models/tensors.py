"""The tensors of a model: where its safetensors files have them, and which of them its architecture uses.

transformers says which tensors an architecture has and of which shape, as a loaded model has them and as
`save_pretrained` writes them (a mixture of experts has one tensor a layer and one an expert). What the files have is
compared with that before anything is merged: mergekit and vLLM leave out, or fill with noise, what they do not find.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from orchestrator.models.headers import Header, equal
from orchestrator.models.kept import kept

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FLOATS = ("F64", "F32", "F16", "BF16")
"""safetensors' names of the dtypes that weights are merged from."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and checkpointed activations add to the names of tensors."""


class Part(NamedTuple):
    """A tensor that the architecture uses, and where it is."""

    file: str
    stored: str
    """Its name there."""
    loaded: bool
    """Whether it is as a loaded model has it, and not as `save_pretrained` writes it."""


@dataclass(frozen=True, eq=False)
class Architecture:
    """The tensors of an architecture, by transformers."""

    name: str
    stored: dict[str, list[int]]
    """As `save_pretrained` writes them, without tied ones."""
    loaded: dict[str, list[int]]
    """As a loaded model has them, without tied ones."""
    parts: dict[str, list[str]]
    """Name of a loaded tensor → the names under which it is written, where these are others."""
    tied: dict[str, str]
    """Tied tensor → the one that it is."""
    modules: list[str]
    """Paths of the modules below the model itself."""
    embedding: str
    """Name of the input embedding's tensor."""
    ignored: list[str]
    """Patterns of names that transformers leaves out when it loads."""


@dataclass(frozen=True)
class Tensors:
    """What a model's files have of its architecture."""

    used: dict[str, Part]
    """Name as the architecture has it → where it is."""
    tied: dict[str, tuple[str, str]]
    """Tensor that the architecture ties to another, and that the files have all the same → its name there, and the
    other's name."""
    unused: tuple[str, ...]
    """Names of tensors that the architecture does not use."""
    renamed: str | None
    """A name that the files have otherwise than the architecture; None where they do not."""
    parameters: int
    """Number of weights that are used."""

    @property
    def notes(self) -> list[str]:
        """What of the files is not merged, or is named otherwise, a phrase each."""
        found = []
        if self.renamed:
            name = next(name for name, part in self.used.items() if part.stored == self.renamed)
            found.append(f"the files name its tensors otherwise: {self.renamed} is read as {name}")
        if self.unused:
            more = f" and {len(self.unused) - 3} more" if len(self.unused) > 3 else ""
            found.append(f"not merged, for the architecture has no such tensors: {', '.join(self.unused[:3])}{more}")
        return found


def find_tensors(where: str, headers: Mapping[str, Header], config: dict[str, Any]) -> Tensors:
    """Find the tensors of an architecture in a model's files.

    Args:
        where: the sweep file's key of the model, for messages.
        headers: name of a tensor in the files → its header.
        config: as `orchestrator.models.plain.plain_config` returns it.

    Raises:
        UserError: a tensor is missing, has another shape than the config says, is quantised, or belongs to a module
            of the model that has no such tensor.
    """
    architecture = architecture_of(where, config, len(headers))
    prefixes = _prefixes(architecture, headers)
    names = {_renamed(name, architecture, *prefixes): name for name in headers}
    used = {}
    for name, stored in names.items():
        loaded = name not in architecture.stored
        if (shape := (architecture.loaded if loaded else architecture.stored).get(name)) is not None:
            _check_tensor(where, name, headers[stored], shape, architecture)
            used[name] = Part(headers[stored].file, stored, loaded)
    have = {part for name in used for part in architecture.parts.get(name, [name])}
    if missing := sorted(set(architecture.stored) - have):
        raise UserError(_missing(where, missing, architecture, headers))
    tied = {name: names[name] for name in architecture.tied if name in names}
    others = [name for name in names if name not in used and name not in tied]
    _check_others(where, others, architecture)
    sizes = (architecture.loaded if part.loaded else architecture.stored for part in used.values())
    return Tensors(
        used,
        {name: (stored, architecture.tied[name]) for name, stored in tied.items()},
        tuple(sorted(names[name] for name in others)),
        min((stored for name, stored in names.items() if name in used and name != stored), default=None, key=len),
        sum(math.prod(shapes[name]) for name, shapes in zip(used, sizes, strict=True)),
    )


def _prefixes(architecture: Architecture, names: Iterable[str]) -> tuple[str, str]:
    """Return what the names of the decoder's tensors begin with in the files, and in the architecture."""
    *above, module, weight = architecture.embedding.split(".")
    wanted = "".join(f"{part}." for part in above)
    found = [name for name in map(_unwrapped, names) if f".{name}".endswith(f".{module}.{weight}")]
    if architecture.embedding in found or not found:
        return wanted, wanted
    return min(found, key=lambda name: (len(name), name)).removesuffix(f"{module}.{weight}"), wanted


def _renamed(name: str, architecture: Architecture, before: str, after: str) -> str:
    """Return the architecture's name for a tensor of the files."""
    plain = _unwrapped(name)
    if any(plain in known for known in (architecture.stored, architecture.loaded, architecture.tied)):
        return plain
    if plain.startswith(before):
        return after + plain.removeprefix(before)
    # What is around the whole model is around its head too: language_model.model.* and language_model.lm_head.
    return plain.removeprefix(before.removesuffix(after)) if before.endswith(after) else plain


def _unwrapped(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _check_tensor(where: str, name: str, header: Header, shape: list[int], architecture: Architecture) -> None:
    if header.dtype not in FLOATS:
        raise UserError(
            f"{where}: {header.file}: {name} is stored as {header.dtype}: the weights are quantised, and their numbers "
            "mean nothing without their scales; take the model in bfloat16, float16 or float32"
        )
    if list(header.shape) != shape:
        raise UserError(
            f"{where}: {header.file}: {name} has shape {list(header.shape)}, but {shape} by config.json "
            f"({architecture.name}); the two are of different models: download or save the model again"
        )


def _missing(where: str, missing: Sequence[str], architecture: Architecture, headers: Mapping[str, Header]) -> str:
    more = f" and {len(missing) - 1} more of its tensors" if len(missing) > 1 else ""
    files = sorted({header.file for header in headers.values()})
    shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more files" if len(files) > 3 else "")
    return (
        f"{where}: {missing[0]}{more} of {architecture.name} not in {shown}; download or save the model again, whole, "
        "by save_pretrained of the causal language model"
    )


def _check_others(where: str, names: Iterable[str], architecture: Architecture) -> None:
    """Refuse tensors of the model's own modules that these do not have: the weights were made for another model."""
    modules = set(architecture.modules)
    for name in names:
        above = {name[: match.start()] for match in re.finditer(r"\.", name)}
        known = any(re.search(pattern, name) for pattern in architecture.ignored)
        if above & modules and not known:
            raise UserError(
                f"{where}: the weights have {name}, but {architecture.name} with this config.json has not, and would "
                "compute without it; take the config.json that the weights were saved with (of quantised weights, take "
                "the model in bfloat16)"
            )


def check_tied(where: str, folder: Path, headers: Mapping[str, Header], tensors: Tensors) -> None:
    """Refuse a head that the files have beside the embedding that it is by the config, unless the two are equal.

    Raises:
        UserError: they differ, so that what the model computes depends on the program that loads it.
    """
    for name, (stored, other) in tensors.tied.items():
        first, second = ((folder / headers[each].file, each) for each in (stored, tensors.used[other].stored))
        if not equal(first, second):
            raise UserError(
                f"{where}: {first[0].name} has {name}, which differs from {other}, although tie_word_embeddings is "
                "true; set it to false in config.json if the head was trained, or save the model without it"
            )


def architecture_of(where: str, config: dict[str, Any], tensors: int) -> Architecture:
    """Return the tensors of the architecture that a plain config describes.

    Args:
        tensors: how many there are in the files, so that a config that asks for a million layers is not built.

    Raises:
        UserError: transformers makes no model of the config, or mergekit would merge only a part of it.
    """
    layers = config.get("num_hidden_layers")
    if isinstance(layers, int) and layers > tensors:
        raise UserError(f"{where}: config.json has num_hidden_layers {layers}, but the files have {tensors} tensors")
    try:
        return _architecture(json.dumps(config, sort_keys=True, default=str))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except Exception as error:  # of a config that anybody may have written, transformers raises whatever there is
        raise UserError(
            f"{where}: transformers makes no causal language model of config.json ({one_line(error)}); download or "
            "save the model again, or take one whose architecture transformers has"
        ) from None


@lru_cache(maxsize=32)
def _architecture(config: str) -> Architecture:
    """Make the architecture of a plain config, or read it where this user's runs have made it before.

    It is kept because torch takes seconds to load, and `plan` and the driver of a run need it for nothing else.
    """
    return Architecture(**kept("architectures", [config], ["transformers", "mergekit"], lambda: asdict(_made(config))))


def _made(config: str) -> Architecture:
    model, settings = empty_model(config), json.loads(config)
    if settings.get("architectures") != [type(model).__name__]:
        raise UserError(
            f"config.json has architectures {settings.get('architectures')!r}, but model_type "
            f"{settings.get('model_type')!r} is {type(model).__name__}; download or save the model again"
        )
    tied = dict(model.all_tied_weights_keys)
    loaded = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    stored = {name: list(tensor.shape) for name, tensor in stored_form(model, loaded).items()}
    found = Architecture(
        name=type(model).__name__,
        stored=stored,
        loaded={name: list(tensor.shape) for name, tensor in loaded.items()},
        parts={n: list(stored_form(model, {n: tensor})) for n, tensor in loaded.items() if n not in stored},
        tied=tied,
        modules=[name for name, _ in model.named_modules() if name not in ("", model.base_model_prefix)],
        embedding=next(n for n, m in model.named_modules() if m is model.get_input_embeddings()) + ".weight",
        ignored=list(model._keys_to_ignore_on_load_unexpected or ()),
    )
    _check_mergekit(model, found)
    return found


@lru_cache(maxsize=32)
def empty_model(config: str) -> PreTrainedModel:
    """Make transformers' model of a plain config, without memory for its weights.

    Args:
        config: as `orchestrator.models.plain.plain_config` returns it, as JSON.

    Raises:
        Exception: whatever transformers raises where it knows no such model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(**json.loads(config)))
    return model


def stored_form(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert tensors of a loaded model to the names and shapes in which `save_pretrained` writes them.

    Args:
        model: of `empty_model`.
        tensors: those of a whole model, or some of them; a tensor an expert is made of one that has all experts.
    """
    from transformers.core_model_loading import revert_weight_conversion

    return dict(revert_weight_conversion(model, dict(tensors)))


def _check_mergekit(model: PreTrainedModel, architecture: Architecture) -> None:
    """Refuse an architecture of which mergekit's own definition has other tensors than transformers'.

    mergekit would leave out those that it does not know, and stop at those that only it knows.
    """
    from mergekit.architecture import arch_info_for_config

    logging.getLogger("mergekit").setLevel(logging.ERROR)
    known = arch_info_for_config(model.config)
    if known is None:
        return  # mergekit then takes the names from transformers
    weights = known.all_weights(model.config)
    names = {name for weight in weights for name in (weight.name, *(weight.aliases or ()))}
    if unknown := sorted(set(architecture.loaded) - names):
        raise UserError(
            f"{unknown[0]} is a tensor of {architecture.name} with this config.json, but not in mergekit's definition "
            "of it, which would leave it out; take parents without it"
        )
    have = {*architecture.loaded, *architecture.tied}
    if wanted := [w.name for w in weights if not w.optional and not {w.name, *(w.aliases or ())} & have]:
        raise UserError(
            f"mergekit's definition of {architecture.name} needs {wanted[0]}, which the model does not have with this "
            "config.json; take parents that have it"
        )
