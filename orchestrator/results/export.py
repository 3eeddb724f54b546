"""`mergefront ledger export`: all answers of a sweep as one Parquet table, to analyse elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.core.errors import UserError
from orchestrator.core.files import read_json_if_exists
from orchestrator.core.store import Store
from orchestrator.ledger.blocks import Stored, block_folders, look
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Point, Recipe, Source, single
from orchestrator.results.layout import Layout
from orchestrator.results.manifest import Manifest, ledger_location, read_manifest, read_questions

SCHEMA = pa.schema(
    [
        ("recipe_id", pa.string()),
        ("label", pa.string()),
        ("method", pa.string()),
        ("parents", pa.string()),  # names, in the recipe's order
        ("parameters", pa.string()),  # JSON
        ("question_id", pa.string()),
        ("stage", pa.string()),  # as in orchestrator.results.manifest.QUESTIONS; null where the sweep no longer has it
        ("objective", pa.string()),
        ("task", pa.string()),
        ("document", pa.int64()),
        ("logprob", pa.float64()),
        ("is_greedy", pa.bool_()),
        ("text", pa.string()),  # null unless asked for
        ("tokens", pa.int32()),
        ("objective_score", pa.float64()),  # the recipe's, over the questions of this stage; null where it has none
        ("serving", pa.string()),
        ("profile", pa.string()),  # JSON
        ("worker", pa.string()),
        ("written", pa.timestamp("ms", tz="UTC")),
    ]
)
"""One row for each answer and each use of its question (a question may belong to several tasks)."""

Uses = dict[str, list[tuple[Any, ...]]]
"""Question id → what it is for: (stage, objective, task, document) for each use."""
UNUSED = [(None, None, None, None)]
Scores = dict[str, dict[str, Any]]
"""Recipe id → its row of a leaderboard file."""


def export(layout: Layout, to: Path, candidates: Mapping[str, Recipe], *, texts: bool) -> tuple[int, list[str]]:
    """Write the answers of every serving and numeric profile that the sweep was run with to a Parquet file.

    Args:
        to: a file that does not exist yet; its mode is 0600.
        candidates: recipe id → recipe, of the sweep's search.
        texts: whether to include generated texts, which may be patients'.

    Returns:
        The number of rows, and the damaged blocks that were left out.

    Raises:
        UserError: the folder has no sweep, its ledger cannot be read, or `to` exists or its folder does not.
    """
    if to.exists() or not to.parent.is_dir():
        raise UserError(f"--to {to}: exists already, or lies in no folder; name a new file")
    manifest = read_manifest(layout)
    store, known = Store(ledger_location(manifest.config, layout)), {**_recipes(layout, manifest), **candidates}
    uses, scores = _uses(layout), _scores(layout)
    damaged, rows = [], 0
    folders = [folder for folder in block_folders(store) if folder.split("/")[0] in known]
    temporary = to.with_name(f".{to.name}.tmp")
    temporary.touch(mode=0o600)
    try:
        with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
            for block in store.together(lambda folder: look(store, folder), folders):
                if not isinstance(block, Stored):
                    damaged.append(str(block))
                    continue
                table = _block_rows(block, known[block.recipe_id], uses, scores, texts)
                writer.write_table(table)
                rows += table.num_rows
        temporary.replace(to)
    finally:
        temporary.unlink(missing_ok=True)
    return rows, damaged


def _recipes(layout: Layout, manifest: Manifest) -> dict[str, Recipe]:
    """Recipes of the sweep file and tuned checkpoints (so a joint search's candidates too), by recipe id.

    The parent of a tuned checkpoint is its starting point.
    """
    found = {recipe.id: recipe for recipe in expand(manifest.config, manifest.sources)}
    for run in layout.runs():
        if run.is_finished:
            result = read_json_if_exists(run.result)
            keys = (("start", "start_label"), ("task", "task"), ("examples", "budget"), ("seed", "seed"))
            point = Point(result["method"], tuple((key, result[name]) for key, name in keys))
            recipe = single(Source(run.path.name, result["start_label"], ""), manifest.config.dtype, point)
            found[recipe.id] = recipe
    return found


def _uses(layout: Layout) -> Uses:
    """Read what every question is for."""
    found: Uses = {}
    for question, *use in zip(*(column.to_pylist() for column in read_questions(layout).columns), strict=True):
        found.setdefault(question, []).append(tuple(use))
    return found


def _scores(layout: Layout) -> dict[str, Scores]:
    """Stage → the scores over its questions.

    Scores on a search's held-out questions have the same objectives and a leaderboard of their own; tuned checkpoints
    are in tuning.parquet, with all objectives.
    """
    scores = _board(layout.leaderboard) | _board(layout.tuning_table)
    return {"sweep": scores, "tuned": scores, "confirm": _board(layout.confirmed.leaderboard)}


def _board(file: Path) -> Scores:
    return {row["recipe_id"]: row for row in pq.read_table(file).to_pylist()} if file.exists() else {}


def _block_rows(block: Stored, recipe: Recipe, uses: Uses, scores: dict[str, Scores], texts: bool) -> pa.Table:
    marker, point = block.marker, recipe.points[0]
    parents = ", ".join(source.name for source, _ in recipe.models)
    head = (block.recipe_id, recipe.label, point.method, parents, json.dumps(dict(point.parameters)))
    tail = (marker.serving, json.dumps(marker.profile), marker.worker, int(marker.written * 1000))
    rows = [
        (
            *head,
            answer.question_id,
            *use,
            answer.logprob,
            answer.is_greedy,
            answer.text if texts else None,
            answer.tokens,
            scores.get(use[0], {}).get(block.recipe_id, {}).get(use[1]),
            *tail,
        )
        for answer in block.answers
        for use in uses.get(answer.question_id, UNUSED)
    ]
    return pa.table([list(column) for column in zip(*rows, strict=True)], schema=SCHEMA)
