"""`mergefront ledger export`: all answers of a sweep as one Parquet table, for whoever analyses them elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.config import UserError
from orchestrator.recipe import Point, Recipe, Source, expand, single
from orchestrator.storage.blocks import Stored, block_folders, look
from orchestrator.storage.note import Note, ledger_place, read_note, read_questions
from orchestrator.storage.store import Store

SCHEMA = pa.schema(
    [
        ("recipe_id", pa.string()),
        ("label", pa.string()),
        ("method", pa.string()),
        ("parents", pa.string()),  # names, in the recipe's order
        ("parameters", pa.string()),  # JSON
        ("question_id", pa.string()),
        ("stage", pa.string()),  # as in orchestrator.storage.note.QUESTIONS; null where the sweep no longer asks it
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
"""A row an answer and use of its question."""

Uses = dict[str, list[tuple[Any, ...]]]
UNUSED = [(None, None, None, None)]
Scores = dict[str, dict[str, Any]]
"""Recipe → its row of a board."""


def export(out: Path, to: Path, texts: bool) -> tuple[int, list[str]]:
    """Write the answers under every serving and profile that the sweep has had.

    Args:
        to: a new file; mode 0600.
        texts: generated texts too; they may be patients'.

    Returns:
        Rows, and the damaged blocks that are not among them.

    Raises:
        UserError: no sweep, its ledger cannot be had, or `to` is there already or cannot be written.
    """
    if to.exists() or not to.parent.is_dir():
        raise UserError(f"--to {to}: exists already, or lies in no folder; name a new file")
    note = read_note(out)
    store, known, uses, scores = Store(ledger_place(note.config, out)), _recipes(out, note), _uses(out), _scores(out)
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
                table = _rows(block, known[block.recipe_id], uses, scores, texts)
                writer.write_table(table)
                rows += table.num_rows
        temporary.replace(to)
    finally:
        temporary.unlink(missing_ok=True)
    return rows, damaged


def _recipes(out: Path, note: Note) -> dict[str, Recipe]:
    """The sweep file's, the search's candidates, and the tuned ones (a joint search's candidates are), whose parent is
    where they started."""
    found = {recipe.id: recipe for recipe in expand(note.config, note.sources)}
    candidates = list((out / "search" / "candidates").glob("*.json"))
    if candidates and note.config.search and not note.config.search.finetune:
        from tune.space import SearchSpace

        space = SearchSpace(note.config, note.sources)
        found |= {file.stem: space.recipe(_json(file)["params"]) for file in candidates}
    for file in (out / "tuning").glob("*/RESULT.json"):
        told = _json(file)
        keys = (("start", "start_label"), ("task", "task"), ("examples", "budget"), ("seed", "seed"))
        point = Point(told["method"], tuple((key, told[name]) for key, name in keys))
        recipe = single(Source(file.parent.name, told["start_label"], ""), note.config.dtype, point)
        found[recipe.id] = recipe
    return found


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def _uses(out: Path) -> Uses:
    """Question → where it is asked: stage, objective, task, document."""
    found: Uses = {}
    for question, *use in zip(*(column.to_pylist() for column in read_questions(out).columns), strict=True):
        found.setdefault(question, []).append(tuple(use))
    return found


def _scores(out: Path) -> dict[str, Scores]:
    """Stage → the scores over its questions. A search's held-out questions have the objectives of the others, and a
    board of their own; what the second phase has tuned is in tuning.parquet, with the objectives of both phases."""
    asked = _board(out / "leaderboard.parquet") | _board(out / "tuning.parquet")
    return {"sweep": asked, "tuned": asked, "confirm": _board(out / "confirmed" / "leaderboard.parquet")}


def _board(file: Path) -> Scores:
    return {row["recipe_id"]: row for row in pq.read_table(file).to_pylist()} if file.exists() else {}


def _rows(block: Stored, recipe: Recipe, uses: Uses, scores: dict[str, Scores], texts: bool) -> pa.Table:
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
