"""From the entries of `recipes:` to recipes, each once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from orchestrator.config.methods import METHODS
from orchestrator.config.recipes import RecipeGrid
from orchestrator.config.settings import grid_values
from orchestrator.config.sweep import SweepConfig
from orchestrator.recipes.recipe import Point, Recipe, Source, between, single


def expand(config: SweepConfig, sources: dict[str, Source]) -> list[Recipe]:
    """List every recipe of the sweep once, the parents first, in the order of the file.

    Args:
        sources: name → resolved parent or candidate, for all names in the sweep.
    """
    found: dict[str, Recipe] = {}
    for recipe in itertools.chain(_as_they_are(config, sources), _grids(config, sources)):
        known = found.get(recipe.id)
        points = tuple(dict.fromkeys((*known.points, *recipe.points))) if known else recipe.points
        found[recipe.id] = replace(known or recipe, points=points)
    return list(found.values())


def _as_they_are(config: SweepConfig, sources: dict[str, Source]) -> Iterator[Recipe]:
    for kind, names in (("parent", config.parents), ("candidate", config.candidates)):
        for name in names:
            yield single(sources[name], config.dtype, Point(kind, (("name", name),)))


def _grids(config: SweepConfig, sources: dict[str, Source]) -> Iterator[Recipe]:
    for grid in config.recipes:
        yield from _along(config, sources, grid) if grid.models is None else _product(config, sources, grid)


def _along(config: SweepConfig, sources: dict[str, Source], grid: RecipeGrid) -> Iterator[Recipe]:
    """Yield the merges of two parents along the ratio, for every combination of the entry's other parameters."""
    first, second = (sources[name] for name in (grid.between or list(config.parents)[:2]))
    axes = {key: grid_values(value) for key, value in grid.parameters.items()}
    for ratio in grid.ratio or ():
        for chosen in itertools.product(*axes.values()):
            parameters = dict(zip(axes, chosen, strict=True))
            recipe = between(grid.method, first, second, _number(ratio), parameters, config.dtype)
            point = Point(grid.method, tuple((key, _plain(value)) for key, value in recipe.points[0].parameters))
            if len(config.parents) > 2:  # of two parents the label need not name them
                point = point.with_first("between", f"{first.name}/{second.name}")
            more = tuple((key, _plain(value)) for key, value in parameters.items() if len(axes[key]) > 1)
            yield replace(recipe, points=(replace(point, parameters=(*point.parameters, *more)),))


def _product(config: SweepConfig, sources: dict[str, Source], grid: RecipeGrid) -> Iterator[Recipe]:
    """Yield a recipe for every combination of the `{grid: [...]}` values of one entry."""
    axes: list[tuple[tuple[str, ...], list[Any]]] = []
    for name, parameters in (grid.models or {}).items():
        axes += [((name, key), grid_values(value)) for key, value in parameters.items()]
    axes += [(("", key), grid_values(value)) for key, value in grid.parameters.items()]
    for chosen in itertools.product(*(values for _, values in axes)):
        setting = {path: value for (path, _), value in zip(axes, chosen, strict=True)}
        per_model = {
            name: {key: setting[name, key] for key in parameters} for name, parameters in (grid.models or {}).items()
        }
        shown = tuple((".".join(filter(None, path)), value) for path, value in setting.items())
        yield Recipe(
            grid.method,
            tuple((sources[name], parameters) for name, parameters in per_model.items()),
            sources[grid.base_model] if grid.base_model else None,
            {key: setting["", key] for key in grid.parameters},
            config.dtype,
            config.seed if METHODS[grid.method].random else None,
            (Point(grid.method, tuple((key, _plain(value)) for key, value in shown)),),
        )


def _number(ratio: Any) -> Any:
    """A ratio as recipes have it: a float where it is a number."""
    return float(ratio) if isinstance(ratio, int) else ratio


def _plain(value: Any) -> Any:
    """A value in a label: text in place of a gradient, and filters in words (`self_attn [0, 1], else 0.5`)."""
    entries = [value] if isinstance(value, dict) else value
    if isinstance(entries, list) and entries and isinstance(entries[0], dict):
        return ", ".join(f"{entry.get('filter') or 'else'} {entry['value']}" for entry in entries)
    return value if isinstance(value, str | int | float | bool) else str(value)
