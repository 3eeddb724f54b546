"""The candidates of a search as recipes, from the files of the results folder alone."""

from __future__ import annotations

from orchestrator.recipes.recipe import Recipe
from orchestrator.results.layout import Layout
from orchestrator.results.manifest import read_manifest
from tune.space import SearchSpace
from tune.standings import read_candidates


def stored_candidates(layout: Layout) -> dict[str, Recipe]:
    """Read the merges that a search proposed, by recipe id.

    The candidates of a joint search are not among them: they are checkpoints of fine-tuning, found by their runs.

    Raises:
        UserError: the folder has no sweep, or as `read_candidates`.
    """
    manifest = read_manifest(layout)
    if manifest.config.joint:
        return {}
    standings, _ = read_candidates(layout.proposals(), SearchSpace(manifest.config, manifest.sources))
    return {standing.recipe.id: standing.recipe for standing in standings}
