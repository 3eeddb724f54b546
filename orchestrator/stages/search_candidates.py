"""The candidates of a search as recipes, from the files of the results folder alone."""

from __future__ import annotations

from orchestrator.core.files import read_json_if_exists
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.layout import Layout
from orchestrator.results.manifest import read_manifest
from tune.space import SearchSpace


def stored_candidates(layout: Layout) -> dict[str, Recipe]:
    """Read the merges that a search proposed, by recipe id.

    The candidates of a joint search are not among them: they are checkpoints of fine-tuning, found by their runs.

    Raises:
        UserError: the folder has no sweep.
    """
    manifest, files = read_manifest(layout), layout.proposals()
    if not files or manifest.config.search is None or manifest.config.search.finetune:
        return {}
    space = SearchSpace(manifest.config, manifest.sources)
    return {file.stem: space.recipe(read_json_if_exists(file)["params"]) for file in files}
