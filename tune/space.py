"""From the `search:` section to Optuna's parameters, and from their values to a recipe, and back for a warm start.

A method is one category; each of its ranges is one float a knot and module. The parameters of different methods have
different names, so that the space is conditional on the method, as Optuna's grouped samplers expect. In a joint search
every trial has the parameters of its fine-tuning too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import Trial

from orchestrator.config.methods import METHODS
from orchestrator.config.search import Range, Space
from orchestrator.config.sweep import SweepConfig
from orchestrator.recipes.recipe import Point, Recipe, Source, between

if TYPE_CHECKING:
    from tasks.finetuning.train import Run

METHOD = "method"
TUNED, LOG = "finetune.", "learning_rate"
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


@dataclass(frozen=True)
class SearchSpace:
    """
    Args:
        sources: name → resolved parent.
        tuner: of a joint search: a merge and its point's fine-tuning → the run that makes a candidate of it.
    """

    config: SweepConfig
    sources: Mapping[str, Source]
    tuner: Callable[[Recipe, Params], Run] | None = None

    @property
    def entries(self) -> dict[str, Space]:
        """A label each: the method, numbered from its second entry on."""
        assert self.config.search is not None, "the sweep has a search"
        labels: dict[str, Space] = {}
        for entry in self.config.search.space:
            count = sum(other.method == entry.method for other in labels.values())
            labels[entry.method + (f"-{count + 1}" if count else "")] = entry
        return labels

    def floats(self, label: str) -> dict[str, FloatDistribution]:
        """The parameters of one method, by name (`slerp.t.attention[2]`)."""
        return {
            f"{label}.{name}": FloatDistribution(value.low, value.high)
            for path, value in _ranges(self.entries[label])
            for name in _names(path, value)
        }

    @property
    def tuned(self) -> dict[str, FloatDistribution | CategoricalDistribution]:
        """The parameters of fine-tuning in a joint search; every trial has them."""
        tuned = self.config.search.finetune if self.config.search else None
        if tuned is None:
            return {}
        spans = {"learning_rate": tuned.learning_rate, "epochs": tuned.epochs}
        choices = {"rank": tuned.rank, "examples": tuned.examples}
        return {
            **{TUNED + key: FloatDistribution(s.low, s.high, log=key == LOG) for key, s in spans.items() if s},
            **{TUNED + key: CategoricalDistribution(values) for key, values in choices.items() if values},
        }

    def names(self, label: str) -> list[str]:
        """The parameters of a trial of this method, but for the method."""
        return [*self.floats(label), *self.tuned]

    @property
    def dimensions(self) -> int:
        return max(len(self.names(label)) for label in self.entries)

    def distributions(self, params: Params) -> dict[str, BaseDistribution]:
        """Of exactly the parameters that a trial has."""
        label = params.get(METHOD, next(iter(self.entries)))
        return {**self._method(), **self.floats(label), **self.tuned}

    def _method(self) -> dict[str, BaseDistribution]:
        labels = list(self.entries)
        return {METHOD: CategoricalDistribution(labels)} if len(labels) > 1 else {}

    def suggest(self, trial: Trial) -> Params:
        """Have Optuna propose a point of the space."""
        labels = list(self.entries)
        label = trial.suggest_categorical(METHOD, labels) if len(labels) > 1 else labels[0]
        for name, span in self.floats(label).items():
            trial.suggest_float(name, span.low, span.high)
        for name, values in self.tuned.items():
            if isinstance(values, FloatDistribution):
                trial.suggest_float(name, values.low, values.high, log=values.log)
            else:
                trial.suggest_categorical(name, values.choices)
        return dict(trial.params)

    # ---------------------------------------------------------------- recipes
    def recipe(self, params: Params) -> Recipe:
        """The recipe at a point: a merge, or in a joint search what comes of its fine-tuning."""
        run = self.run(params)
        if run is None:
            return self.merge(params)
        merged = run.tuning.start.points[0]
        point = Point(f"{merged.method}+{run.tuning.method}", (*merged.parameters, *self._own(params).items()))
        return replace(run.recipe, points=(point,))

    def run(self, params: Params) -> Run | None:
        """The run to train before the recipe can be evaluated; None where the search does not fine-tune."""
        if self.tuner is None:
            return None
        return self.tuner(self.merge(params), self._own(params))

    def _own(self, params: Params) -> Params:
        """The point's fine-tuning. Learning rates are small: three significant digits."""
        found = {name.removeprefix(TUNED): params[name] for name in self.tuned}
        return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in found.items()}

    def merge(self, params: Params) -> Recipe:
        """The merge at a point. Numbers are rounded to four digits, so that its YAML can be read."""
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

    def params_of(self, recipe: Recipe) -> Params | None:
        """The point of the space that a recipe of the grid (or a parent) is, if it is one: a warm start. In a joint
        search none is, for none is fine-tuned."""
        if self.tuned:
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
        return float(value) if isinstance(value, int | float) else None


def _ratio_key(entry: Space) -> str:
    meaning = METHODS[entry.method].ratio
    assert meaning is not None, f"{entry.method} has no ratio"
    return meaning.key


def _ranges(entry: Space) -> Iterator[tuple[str, Range]]:
    """Where the entry searches for numbers: (`alpha`, range), (`clinical.weight`, range), …"""
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
    """mergekit's parameter: a number, a gradient (list of numbers), or filters. What is the same everywhere is said
    once, so that it is the same recipe."""
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
