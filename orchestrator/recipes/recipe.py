"""A recipe: the plan of every tensor of a merged model, its identity, and its mergekit YAML.

Settings that lead to the same weights are one recipe (SLERP at t = 0 and Linear at alpha = 0 are both the first
parent), so that nothing is evaluated twice. The settings that led to a recipe are kept as its `points`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import yaml

from orchestrator.config.methods import COPY, METHODS
from orchestrator.core.errors import UserError, hint
from orchestrator.core.locations import is_remote
from orchestrator.core.records import Identified, added, identity, provenance


@dataclass(frozen=True)
class Rows(Identified):
    """How the rows of a model's embedding become those of the served tokenizer, by mergekit's `tokenizer_source`."""

    digest: str = identity()
    """Digest of the model's own row, or -1, for each id of the served tokenizer."""
    folder: str = provenance()
    """Folder of the served tokenizer."""
    missing: tuple[int, ...] = provenance(())
    """Ids of the served tokenizer that the model has no row for."""


@dataclass(frozen=True)
class Source(Identified):
    """A model that recipes are merged from: a parent, a candidate, or a fine-tuned checkpoint."""

    digest: str = identity()
    """Digest of the weights, and of the adapter if there is one; see `orchestrator.models.resolve`."""
    name: str = provenance()
    model: str = provenance()
    """Hub id, folder or address of object storage."""
    revision: str | None = provenance(None)
    lora: str | None = provenance(None)
    files: tuple[tuple[str, str], ...] = provenance(())
    """Pairs of file name and SHA-256, as the driver found them; names of an adapter's files begin with `lora/`."""
    rows: Rows | None = added(None)
    """How its rows become those of the served tokenizer; None where they are those."""

    @property
    def reference(self) -> str | dict[str, dict[str, str]]:
        """The model as mergekit reads it: `model@revision+lora`, or by key where a path has these signs in it."""
        if set("+@") & set(self.model + (self.lora or "")):
            model = {"path": self.model, **({"revision": self.revision} if self.revision else {})}
            return {"model": model, **({"lora": {"path": self.lora}} if self.lora else {})}
        return self.model + (f"@{self.revision}" if self.revision else "") + (f"+{self.lora}" if self.lora else "")


@dataclass(frozen=True)
class Point:
    """What led to a recipe: a method (or `parent`, or `candidate`) and its parameters."""

    method: str
    parameters: tuple[tuple[str, Any], ...] = ()

    def with_first(self, key: str, value: Any) -> Point:
        """Return the point with one more parameter, before the others."""
        return replace(self, parameters=((key, value), *self.parameters))

    @property
    def label(self) -> str:
        """The point in words, such as `linear alpha=0.4`."""
        return self.method + "".join(f" {key}={value}" for key, value in self.parameters)


@dataclass(frozen=True)
class Recipe(Identified):
    """The plan of one model: the models it is merged from, the merge method, its parameters and the dtype."""

    method: str = identity()
    """Merge method by mergekit's name; `passthrough` for a model as it is."""
    models: tuple[tuple[Source, dict[str, Any]], ...] = identity()
    """The models with their per-model parameters."""
    base_model: Source | None = identity()
    parameters: dict[str, Any] = identity()
    """Parameters of the whole merge."""
    dtype: str = identity()
    seed: int | None = identity(None)
    """Random seed, for the methods that draw random numbers; None for the others."""
    points: tuple[Point, ...] = provenance(())
    """Everything in the sweep that led to this recipe; the first one is its label."""

    @property
    def is_copy(self) -> bool:
        """Whether it is a copy of one model; all other recipes are merges."""
        return self.method == COPY

    @property
    def is_parent(self) -> bool:
        """Whether it is one of the sweep's parents as it is."""
        return any(point.method == "parent" for point in self.points)

    @property
    def sources(self) -> list[Source]:
        """The models and the base model."""
        return [*(source for source, _ in self.models), *([self.base_model] if self.base_model else [])]

    @property
    def missing(self) -> list[int]:
        """The ids of the served tokenizer that none of its models has a row for; mergekit writes zeros there."""
        missing = [set(source.rows.missing if source.rows else ()) for source in self.sources]
        return sorted(set.intersection(*missing))

    @property
    def label(self) -> str:
        """The label of the first point, such as `linear alpha=0.4`; the id where there is no point."""
        return self.points[0].label if self.points else self.id

    @property
    def names(self) -> list[str]:
        """The names that a user may give it: its labels, and the name of a parent or candidate."""
        own = (dict(point.parameters).get("name") for point in self.points)
        return [*(point.label for point in self.points), *(str(name) for name in own if name is not None)]

    def to_mergekit(self) -> dict[str, Any]:
        """Return the configuration that `mergekit-yaml` takes."""
        models = [
            {"model": source.reference, **({"parameters": parameters} if parameters else {})}
            for source, parameters in self.models
        ]
        config: dict[str, Any] = {"merge_method": self.method, "models": models, "dtype": self.dtype}
        if self.base_model is not None:
            config["base_model"] = self.base_model.reference
        if self.parameters:
            config["parameters"] = self.parameters
        if (rows := next((rows for source in self.sources if (rows := source.rows)), None)) is not None:
            config["tokenizer_source"] = Source("", "tokenizer", rows.folder).reference
        return config

    def to_yaml(self) -> str:
        """Return the file in DIR/recipes: plain mergekit YAML, with comments about what it cannot express."""
        lines = [f"# mergefront recipe {self.id}: {', '.join(point.label for point in self.points)}"]
        if self.seed is not None:
            lines.append(
                f"# random: drawn tensor by tensor, from seed {self.seed} and the tensor's name, so that order does"
            )
            lines.append(
                "# not matter; mergekit-yaml draws other numbers. checkpoints: {keep: true} writes the served tensors."
            )
        if any(source.lora for source, _ in self.models):
            lines.append("# needs: mergekit-yaml --lora-merge-cache DIR")
        if any(is_remote(source.model) for source, _ in self.models):
            lines.append("# mergekit cannot read object storage: copy the model to a folder, and name that folder here")
        return "\n".join(lines) + "\n" + yaml.dump(self.to_mergekit(), Dumper=yaml.CSafeDumper, sort_keys=False)


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as JSON values, its models by their names and digests; `recipe_from_json` reads it."""
    base = recipe.base_model
    return {
        **{f.name: getattr(recipe, f.name) for f in fields(recipe)},
        "models": [[source.name, source.digest, parameters] for source, parameters in recipe.models],
        "base_model": [base.name, base.digest] if base else None,
        "points": [[point.method, [list(pair) for pair in point.parameters]] for point in recipe.points],
    }


def recipe_from_json(stored: Mapping[str, Any], sources: Mapping[str, Source]) -> Recipe | None:
    """Make a recipe from what `recipe_to_json` returned; None where one of its models is gone or has other weights.

    Args:
        sources: name → resolved model.
    """
    base = stored["base_model"]
    named = [(name, digest) for name, digest, _ in stored["models"]] + ([tuple(base)] if base else [])
    if any(name not in sources or sources[name].digest != digest for name, digest in named):
        return None
    changed = {
        "models": tuple((sources[name], parameters) for name, _, parameters in stored["models"]),
        "base_model": sources[base[0]] if base else None,
        "points": tuple(
            Point(method, tuple((key, value) for key, value in pairs)) for method, pairs in stored["points"]
        ),
    }
    return Recipe(**{**stored, **changed})


def find_recipe(recipes: Sequence[Recipe], name: str) -> Recipe:
    """Find a recipe by id (or at least 4 digits of it), by a parent's name, or by a label such as `linear alpha=0.4`.

    Raises:
        UserError: no recipe matches, or several do.
    """
    exact = next((recipe for recipe in recipes if name in recipe.names), None)
    if exact is not None:
        return exact
    found = [recipe for recipe in recipes if recipe.id.startswith(name) and len(name) >= 4]
    if len(found) == 1:
        return found[0]
    labels = [point.label for recipe in recipes for point in recipe.points]
    known = [*labels, *(recipe.id for recipe in recipes)]
    what = f"matches {len(found)} recipes" if found else "is no recipe of this sweep"
    raise UserError(f"{name!r} {what}{hint(name, known)}; take an id, a parent's name, or one of: {', '.join(labels)}")


def single(source: Source, dtype: str, point: Point) -> Recipe:
    """Make the recipe of a model as it is, cast to the sweep's dtype."""
    return Recipe(COPY, ((source, {}),), None, {}, dtype, points=(point,))


def between(method: str, first: Source, second: Source, ratio: Any, parameters: dict[str, Any], dtype: str) -> Recipe:
    """Make the recipe that merges two models by a method with a ratio, with the first as base model.

    At a ratio of 0 or 1 without other parameters it is the copy of one model.

    Args:
        ratio: 0 is the first model and 1 the second; a number, or mergekit's gradient or filters over numbers.
        parameters: of the whole merge, besides the ratio.
    """
    meaning = METHODS[method].ratio
    assert meaning is not None, f"{method} has no ratio"
    point = Point(method, ((meaning.key, ratio),))
    if ratio in (0.0, 1.0) and not parameters:
        return single(second if ratio else first, dtype, point)
    of_first, of_second, whole = meaning.settings(ratio)
    models = ((first, of_first), (second, of_second))
    return Recipe(method, models, first, {**whole, **parameters}, dtype, points=(point,))
