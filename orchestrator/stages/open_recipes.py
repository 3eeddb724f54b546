"""The recipes of a sweep file, and what is checked before its tasks are loaded: the same in `plan` and `run`."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Serving
from orchestrator.models.resolve import Files
from orchestrator.models.serving import make_serving, served_sources
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Recipe, Source
from orchestrator.results.layout import Layout
from orchestrator.sizing.disk import check_disk
from orchestrator.sizing.finetune_memory import check_memory
from orchestrator.sizing.layouts import check_host_cache, check_split
from orchestrator.sizing.placement import Shape, shape_of
from orchestrator.stages.finetune_starts import check_starts


@dataclass(frozen=True)
class OpenedRecipes:
    """The recipes of a sweep file, and what they are served with."""

    serving: Serving
    sources: dict[str, Source]
    """Name → resolved parent or candidate."""
    recipes: list[Recipe]
    shape: Shape
    """That of the models, with the number of weights of the largest one."""


def open_recipes(config: SweepConfig, files: dict[str, Files], layout: Layout) -> OpenedRecipes:
    """List the recipes of a sweep file, and check what is known before its tasks are loaded.

    Args:
        files: name → resolved parent or candidate.

    Raises:
        UserError: a starting point of fine-tuning names nothing, an engine cannot be split so, or disk, memory or KV
            cache is too small.
    """
    parameters = max(found.parameters for found in files.values())
    check_memory(config, parameters)
    first = files[next(iter(config.parents))].read
    shape = shape_of(first.sizes, parameters, config.dtype)
    check_split(config.workers, shape)
    if first.caches_all_layers:
        check_host_cache(config.workers, shape)
    serving = make_serving(config, files, layout.serving)
    sources = served_sources(config, files, serving)
    recipes = expand(config, sources)
    check_disk(config, parameters, len(recipes), dequantised=sum(found.dequantised for found in files.values()))
    check_starts(config, recipes)
    return OpenedRecipes(serving, sources, recipes, shape)
