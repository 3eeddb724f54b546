"""A search's candidates as recipes, from its files alone."""

from __future__ import annotations

from orchestrator.core.files import read_json_if_exists
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.layout import Layout
from orchestrator.results.manifest import read_manifest
from tune.space import SearchSpace


def stored_candidates(layout: Layout) -> dict[str, Recipe]:
    """Recipe id → recipe, of the merges that a search proposed. Those of a joint search are not among them: what comes
    of fine-tuning is known by its run.

    Raises:
        UserError: the folder holds no sweep.
    """
    manifest, files = read_manifest(layout), layout.proposals()
    if not files or manifest.config.search is None or manifest.config.search.finetune:
        return {}
    space = SearchSpace(manifest.config, manifest.sources)
    return {file.stem: space.recipe(read_json_if_exists(file)["params"]) for file in files}
