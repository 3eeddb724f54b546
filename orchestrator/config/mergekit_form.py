"""A recipe as mergekit's own files write it, rewritten to the form of a sweep file; nothing else is changed.

So a mergekit file can be pasted as an entry of `recipes:` wherever it has a meaning in a sweep. What has none (layers
that are left out or repeated, a dtype or a tokenizer for one recipe) is refused with the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.settings import KeyProblem, covers
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.locations import is_remote

TEMPLATE = (
    "one chat template serves all recipes of a sweep, that of a parent; name it at the top of the file, such as "
    "tokenizer: instruct"
)
ENTRY = (
    "belongs to a recipe; make the mergekit file an entry of the list `recipes:`, and name its models under `parents:`"
)
GOES = {
    **dict.fromkeys(("merge_method", "slices", "models", "base_model", "parameters"), ENTRY),
    "chat_template": TEMPLATE,
    "modules": "a recipe merges whole models; write mergekit's `models` instead",
    "out_dtype": "the weights of all recipes are written in the sweep's dtype; write dtype at the top of the file",
}
"""mergekit's key → what to do with it where a sweep file has no such key."""
PARTLY = (
    "a recipe merges whole models, from layer 0 to the last; merge other slices with mergekit-yaml, and name the "
    "result under `candidates:`"
)


def from_mergekit(data: dict[Any, Any], folder: Path) -> dict[Any, Any]:
    """Rewrite the recipes, and the entries of the search space, that are written as mergekit writes them.

    Args:
        data: content of a sweep file, not yet checked.
        folder: that relative paths start at.

    Raises:
        KeyProblem: an entry is written as in mergekit, but means nothing in a sweep.
    """
    parents = data.get("parents")
    top = Top(
        _namer(parents if isinstance(parents, dict) else {}, folder),
        data.get("dtype", SweepConfig.model_fields["dtype"].default),
        _tokenizer({"tokenizer_source": None, **data}),
    )

    def entries(where: str, given: Any) -> Any:
        if not isinstance(given, list):
            return given
        return [
            _entry(f"{where}[{index}]", entry, top) if isinstance(entry, dict) else entry
            for index, entry in enumerate(given)
        ]

    found = {**data, "recipes": entries("recipes", data["recipes"])} if "recipes" in data else data
    search = data.get("search")
    if isinstance(search, dict) and "space" in search:
        found = {**found, "search": {**search, "space": entries("search.space", search["space"])}}
    return found


Namer = Callable[[str, Any], Any]
"""The path of a key, and what it names a model by → the parent's name."""


@dataclass(frozen=True)
class Top:
    """What the top of the file says about all recipes."""

    name_of: Namer
    dtype: Any
    tokenizer: Any
    """mergekit's tokenizer_source."""


def _entry(where: str, entry: dict[Any, Any], top: Top) -> dict[Any, Any]:
    name_of, entry = top.name_of, _without_globals(where, dict(entry), top)
    if "merge_method" in entry:
        if "method" in entry:
            raise KeyProblem(f"{where}.merge_method", "method is given too; remove one of the two")
        entry = {"method": entry.pop("merge_method"), **entry}
    if "slices" in entry:
        entry = _from_slices(f"{where}.slices", entry)
    if isinstance(entry.get("models"), list):
        entry["models"] = _from_list(f"{where}.models", entry["models"], name_of)
    elif isinstance(entry.get("models"), dict):
        items = entry["models"].items()
        entry["models"] = {name_of(f"{where}.models", name): _parameters(own) for name, own in items}
    if isinstance(entry.get("between"), list):
        entry["between"] = [name_of(f"{where}.between", name) for name in entry["between"]]
    if "base_model" in entry:
        entry["base_model"] = name_of(f"{where}.base_model", entry["base_model"])
    if "parameters" in entry and entry["parameters"] is None:
        entry["parameters"] = {}
    return entry


def _without_globals(where: str, entry: dict[Any, Any], top: Top) -> dict[Any, Any]:
    """Take out the keys that hold for the whole sweep, where they say what the sweep says."""
    for key in ("dtype", "out_dtype"):
        if key in entry and (value := entry.pop(key)) not in (None, top.dtype):
            raise KeyProblem(
                f"{where}.{key}",
                f"all recipes of a sweep have one dtype, which is {top.dtype}, but got {value}; write dtype: {value} "
                "at the top of the file, or take this key out",
            )
    for key in ("tokenizer_source", "tokenizer"):
        source = _tokenizer({key: entry.pop(key, None)})
        if source not in (None, top.tokenizer) and top.name_of(f"{where}.{key}", source) != top.tokenizer:
            raise KeyProblem(
                f"{where}.{key}",
                f"one tokenizer serves all recipes of a sweep; write tokenizer_source: {source} at the top of the file",
            )
    if entry.pop("chat_template", None) is not None:
        raise KeyProblem(f"{where}.chat_template", TEMPLATE)
    return entry


def _tokenizer(given: dict[Any, Any]) -> Any:
    """Return mergekit's tokenizer_source, which may also be written `tokenizer: {source: …}`."""
    written = given.get("tokenizer")
    return written.get("source") if isinstance(written, dict) else given.get("tokenizer_source", written)


def _from_slices(where: str, entry: dict[Any, Any]) -> dict[Any, Any]:
    """Write slices that cover whole models as `models`, with the number of layers, to be compared with the parents'."""
    slices = entry.pop("slices")
    if "models" in entry:
        raise KeyProblem(where, "models is given too; remove one of the two")
    whole = slices[0] if isinstance(slices, list) and len(slices) == 1 else None
    if not isinstance(whole, dict) or not isinstance(whole.get("sources"), list):
        raise KeyProblem(where, PARTLY)
    sources = whole["sources"]
    layers = _layers(where, sources)
    unknown = [f"[0].{key}" for key in whole if key not in ("sources", "parameters", "base_model")]
    for index, source in enumerate(sources):
        known = ("model", "layer_range", "parameters")
        unknown += [f"[0].sources[{index}].{key}" for key in source if key not in known]
    if unknown:
        raise KeyProblem(where + unknown[0], "unknown key; slices have sources, and these have model and layer_range")
    given, own = entry.get("parameters") or {}, whole.get("parameters") or {}
    for settings in (given, own):
        if not isinstance(settings, dict):
            raise KeyProblem(where, f"parameters are names with values, such as {{t: 0.5}}, but got {settings!r}")
    parameters = {**given, **{key: _first_of(value, given.get(key)) for key, value in own.items()}}
    models = [{key: value for key, value in source.items() if key != "layer_range"} for source in sources]
    entry |= {"models": models, "layers": layers, "parameters": parameters}
    return entry | ({"base_model": whole["base_model"]} if whole.get("base_model") else {})


def _layers(where: str, sources: list[Any]) -> int:
    """Read the number of layers that every source of a slice begins with."""
    ranges = [source.get("layer_range") if isinstance(source, dict) else None for source in sources]
    match ranges:
        case [[int(0), int(layers)], *others] if all(each == ranges[0] for each in others):
            return layers
    raise KeyProblem(where, PARTLY)


def _first_of(inner: Any, outer: Any) -> Any:
    """Combine two settings of a parameter: the inner one, and where its filters do not fit, the outer one."""
    if outer is None or covers(inner):
        return inner
    entries = outer if isinstance(outer, list) else [outer]
    if not any(isinstance(entry, dict) for entry in entries):
        entries = [{"value": outer}]
    return [*(inner if isinstance(inner, list) else [inner]), *entries]


def _from_list(where: str, items: list[Any], name_of: Namer) -> dict[Any, Any]:
    """Write mergekit's list of `{model, parameters}` as a mapping of names to parameters."""
    found: dict[Any, Any] = {}
    for index, item in enumerate(items):
        item = {"model": item} if isinstance(item, str) else item
        if not isinstance(item, dict) or not {"model"} <= set(item) <= {"model", "parameters"}:
            raise KeyProblem(
                f"{where}[{index}]", f"takes {{model: …, parameters: {{…}}}} with a parent's name, but got {item!r}"
            )
        name = name_of(f"{where}[{index}].model", item["model"])
        if not isinstance(name, str):
            raise KeyProblem(f"{where}[{index}].model", f"takes the name of a parent, but got {name!r}")
        if name in found:
            raise KeyProblem(f"{where}[{index}].model", f"{name!r} is named twice; a merge takes each model once")
        found[name] = _parameters(item.get("parameters"))
    return found


def _parameters(own: Any) -> Any:
    """Return the parameters of a model, also where they are written below `parameters` or left out."""
    if isinstance(own, dict) and own.keys() == {"parameters"}:
        own = own["parameters"]
    return {} if own is None else own


def _namer(parents: dict[Any, Any], folder: Path) -> Namer:
    """Make the function that finds the parent that a recipe names by its name, or as mergekit does by its location."""
    places: dict[tuple[str, str | None, str | None], str] = {}
    for name, parent in parents.items():
        if isinstance(parent, dict) and isinstance(parent.get("model"), str):
            place, lora = _place(parent["model"], folder), parent.get("lora")
            lora = _place(lora, folder) if isinstance(lora, str) else None
            for revision in (parent.get("revision"), None):
                places.setdefault((place, revision, lora), name)

    def name_of(where: str, reference: Any) -> Any:
        if not isinstance(reference, str) or reference in parents:
            return reference
        model, _, lora = reference.partition("+")
        model, _, revision = model.partition("@")
        key = (_place(model, folder), revision or None, _place(lora, folder) if lora else None)
        if key not in places and set("/~") & set(reference):
            settings = {"model": model, "revision": revision, "lora": lora}
            written = ", ".join(f"{key}: {value}" for key, value in settings.items() if value)
            raise KeyProblem(
                where, f"{reference!r} is no parent of this sweep; add it under parents, such as NAME: {{{written}}}"
            )
        return places.get(key, reference)

    return name_of


def _place(location: str, folder: Path) -> str:
    """Return what a model's location is compared by: a folder as an absolute path, an address as it is."""
    if is_remote(location):
        return location
    try:
        return str((folder / Path(location).expanduser()).resolve())
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{location!r} is not a path ({error}); correct it") from None
