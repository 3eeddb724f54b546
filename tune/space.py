"""From the `search:` section to Optuna's parameters, from their values to a recipe, and back for a warm start.

A method is one category; each of its ranges is one float for each knot and module. The parameters of different methods
have different names, so that the space is conditional on the method, as Optuna's grouped samplers expect. In a joint
search every trial has the parameters of its fine-tuning too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import Trial

from orchestrator.config.methods import METHODS
from orchestrator.config.search import Range, Space
from orchestrator.config.sweep import SweepConfig
from orchestrator.recipes.recipe import Point, Recipe, Source, between
from tasks.finetuning.run import Run

METHOD = "method"
FINETUNE, LOG = "finetune.", "learning_rate"
"""The prefix of the parameters of fine-tuning, and the one on a logarithmic scale."""
OTHER = "other"
FILTERS = {
    "attention": ("self_attn",),
    "mlp": ("mlp",),
    "norms": ("norm",),
    "embeddings": ("embed_tokens", "lm_head"),
}
"""Module → the parts of tensor names that mergekit's filters look for."""
DIGITS = 4
Params = dict[str, Any]
Distribution: TypeAlias = FloatDistribution | CategoricalDistribution


@dataclass(frozen=True)
class Candidate:
    """What a search proposed: it stays what it is when the search space changes later."""

    params: Params
    """The point of the space that it was proposed at."""
    merge: Recipe
    finetune: Params
    """The settings of its fine-tuning in a joint search; else empty."""


@dataclass(frozen=True)
class SearchSpace:
    """All points that a search can propose, and the recipe at each of them.

    Args:
        sources: name → resolved parent.
        make_run: of a joint search: a merge and the point's fine-tuning → the run whose checkpoint is the candidate.
    """

    config: SweepConfig
    sources: Mapping[str, Source]
    make_run: Callable[[Recipe, Params], Run] | None = None

    @property
    def entries(self) -> dict[str, Space]:
        """Label → entry; the label is the method, numbered from its second entry on."""
        assert self.config.search is not None, "the sweep has a search"
        labels: dict[str, Space] = {}
        for entry in self.config.search.space:
            count = sum(other.method == entry.method for other in labels.values())
            labels[entry.method + (f"-{count + 1}" if count else "")] = entry
        return labels

    def floats(self, label: str) -> dict[str, FloatDistribution]:
        """Make the parameters of one method, by name (`slerp.t.attention[2]`)."""
        return {
            f"{label}.{name}": FloatDistribution(value.low, value.high)
            for path, value in _ranges(self.entries[label])
            for name in _names(path, value)
        }

    @property
    def finetune(self) -> dict[str, Distribution]:
        """The parameters of fine-tuning in a joint search; every trial has them."""
        given = self.config.search.finetune if self.config.search else None
        if given is None:
            return {}
        bounds = {"learning_rate": given.learning_rate, "epochs": given.epochs}
        choices = {"rank": given.rank, "examples": given.examples}
        return {
            **{FINETUNE + key: FloatDistribution(b.low, b.high, log=key == LOG) for key, b in bounds.items() if b},
            **{FINETUNE + key: CategoricalDistribution(values) for key, values in choices.items() if values},
        }

    def names(self, label: str) -> list[str]:
        """List the parameters of a trial of this method, without `method` itself."""
        return [*self.floats(label), *self.finetune]

    @property
    def dimensions(self) -> int:
        """The largest number of parameters that a trial has, without `method`."""
        return max(len(self.names(label)) for label in self.entries)

    def distributions(self, params: Params) -> dict[str, Distribution]:
        """Make the distributions of exactly the parameters that a trial has."""
        label = params.get(METHOD, next(iter(self.entries)))
        return {**self._method(), **self.floats(label), **self.finetune}

    def _method(self) -> dict[str, Distribution]:
        labels = list(self.entries)
        return {METHOD: CategoricalDistribution(labels)} if len(labels) > 1 else {}

    def suggest(self, trial: Trial) -> Params:
        """Have Optuna suggest a point of the space."""
        labels = list(self.entries)
        label = trial.suggest_categorical(METHOD, labels) if len(labels) > 1 else labels[0]
        for name, span in self.floats(label).items():
            trial.suggest_float(name, span.low, span.high)
        for name, values in self.finetune.items():
            if isinstance(values, FloatDistribution):
                trial.suggest_float(name, values.low, values.high, log=values.log)
            else:
                trial.suggest_categorical(name, values.choices)
        return dict(trial.params)

    # ---------------------------------------------------------------- recipes
    def candidate(self, params: Params) -> Candidate:
        """Make the candidate at a point. Learning rates are small: they have three significant digits."""
        own = {name.removeprefix(FINETUNE): params[name] for name in self.finetune}
        short = {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in own.items()}
        return Candidate(params, self.merge(params), short)

    def recipe(self, candidate: Candidate) -> Recipe:
        """Make the recipe of a candidate: a merge, or in a joint search the checkpoint of its fine-tuning."""
        run = self.run(candidate)
        if run is None:
            return candidate.merge
        merged = candidate.merge.points[0]
        point = Point(f"{merged.method}+{run.tuning.method}", (*merged.parameters, *candidate.finetune.items()))
        return replace(run.recipe, points=(point,))

    def run(self, candidate: Candidate) -> Run | None:
        """Make the training run that must finish before the candidate can be evaluated; None outside a joint search."""
        return self.make_run(candidate.merge, candidate.finetune) if self.make_run else None

    def merge(self, params: Params) -> Recipe:
        """Make the merge at a point; numbers are rounded to four digits, so that its YAML is readable."""
        label = params.get(METHOD, next(iter(self.entries)))
        entry = self.entries[label]
        own = {name.removeprefix(f"{label}."): round(params[name], DIGITS) for name in self.floats(label)}
        point = Point(label, tuple(own.items()))
        parameters = self._settle("", entry.parameters, own)
        if entry.ratio is None:
            return self._general(entry, parameters, own, point)
        first, second = (self.sources[name] for name in entry.between or list(self.config.parents)[:2])
        ratio = _setting(_ratio_key(entry), entry.ratio, own)
        recipe = between(entry.method, first, second, ratio, parameters, self.config.dtype)
        return replace(recipe, points=(point,))

    def _general(self, entry: Space, parameters: Params, own: Params, point: Point) -> Recipe:
        models = tuple(
            (self.sources[name], self._settle(f"{name}.", given, own)) for name, given in entry.models.items()
        )
        base = self.sources[entry.base_model] if entry.base_model else None
        seed = self.config.seed if METHODS[entry.method].random else None
        return Recipe(entry.method, models, base, parameters, self.config.dtype, seed, (point,))

    @staticmethod
    def _settle(prefix: str, given: Mapping[str, Any], own: Params) -> Params:
        """The parameters with values in place of ranges."""
        return {
            key: _setting(prefix + key, value, own) if isinstance(value, Range) else value
            for key, value in given.items()
        }

    def params_of(self, candidate: Candidate) -> Params | None:
        """Find the point of the space that an earlier candidate is, if it is one: the space may have changed since."""
        stored = {name: value for name, value in candidate.params.items() if name != METHOD}
        for label in self.entries:
            params = {**({METHOD: label} if len(self.entries) > 1 else {}), **stored}
            if self.has(params):
                same = self.candidate(params)
                if same.merge.id == candidate.merge.id and same.finetune == candidate.finetune:
                    return params
        return self.params_of_merge(candidate.merge)

    def has(self, params: Params) -> bool:
        """Whether these are all parameters of a point of the space, and each is in its range."""
        spans = self.distributions(params)
        return spans.keys() == params.keys() and all(
            span.low <= params[name] <= span.high
            if isinstance(span, FloatDistribution)
            else params[name] in span.choices
            for name, span in spans.items()
        )

    def params_of_merge(self, recipe: Recipe) -> Params | None:
        """Find the point of the space that a merge (or a parent) is, if it is one: a warm start.

        In a joint search none is, for none is fine-tuned.
        """
        if self.finetune:
            return None
        for label, entry in self.entries.items():
            ratio, value = entry.ratio, self._ratio_of(entry, recipe)
            if ratio and value is not None and ratio.low <= value <= ratio.high:
                method = {METHOD: label} if len(self.entries) > 1 else {}
                return {**method, **dict.fromkeys(self.floats(label), value)}
        return None

    def _ratio_of(self, entry: Space, recipe: Recipe) -> float | None:
        """The ratio of a recipe between the entry's two parents, a parent itself included; None of any other."""
        meaning = METHODS[entry.method].ratio
        pair = entry.between or list(self.config.parents)[:2]
        names = [source.name for source, _ in recipe.models]
        if meaning is None or any(isinstance(value, Range) for value in entry.parameters.values()):
            return None
        if recipe.is_copy:
            return float(pair.index(names[0])) if names[0] in pair else None
        if recipe.method != entry.method or names != pair:
            return None
        value = meaning.read(recipe.models[1][1], recipe.parameters)
        if not isinstance(value, int | float):
            return None
        first, second = (source for source, _ in recipe.models)
        same = between(entry.method, first, second, float(value), dict(entry.parameters), recipe.dtype)
        return float(value) if same.id == recipe.id else None  # not with another base model or other parameters


def _ratio_key(entry: Space) -> str:
    meaning = METHODS[entry.method].ratio
    assert meaning is not None, f"{entry.method} has no ratio"
    return meaning.key


def _ranges(entry: Space) -> Iterator[tuple[str, Range]]:
    """The settings that the entry searches, with their ranges: `alpha`, `clinical.weight`, and so on."""
    named: dict[str, Any] = {_ratio_key(entry): entry.ratio} if entry.ratio else {}
    named |= {f"{model}.{key}": value for model, given in entry.models.items() for key, value in given.items()}
    for path, value in {**named, **entry.parameters}.items():
        if isinstance(value, Range):
            yield path, value


def _names(path: str, value: Range) -> list[str]:
    modules = [*value.modules, OTHER] if value.modules else [""]
    return [
        path + (f".{module}" if module else "") + (f"[{knot}]" if value.knots > 1 else "")
        for module in modules
        for knot in range(value.knots)
    ]


def _setting(path: str, value: Range, own: Params) -> Any:
    """The value of a parameter for mergekit: a number, a gradient (list of numbers), or filters.

    What is the same everywhere is written once, so that it is the same recipe.
    """
    numbers = [own[name] for name in _names(path, value)]
    if len(set(numbers)) == 1:
        return float(numbers[0])
    spans = [numbers[start : start + value.knots] for start in range(0, len(numbers), value.knots)]
    settings: list[Any] = [span[0] if len(set(span)) == 1 else span for span in spans]
    if not value.modules:
        return settings[0]
    named = zip(value.modules, settings, strict=False)
    filters = [{"filter": part, "value": setting} for module, setting in named for part in FILTERS[module]]
    return [*filters, {"value": settings[-1]}]
