"""The leaderboard as files: leaderboard.parquet, front.json, tuning.parquet and the recipes as mergekit YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.core.files import make_private, write_atomic, write_json
from orchestrator.ledger.ledger import COSTS
from orchestrator.results.board import Board, FinetuneResults, Row
from orchestrator.results.layout import Layout
from orchestrator.stats.scores import as_row


def write_board(board: Board, layout: Layout) -> None:
    """Write leaderboard.parquet, front.json, the recipes as mergekit YAML and, of fine-tuning, tuning.parquet."""
    if board.finetuning and board.config.finetune:
        write_finetuning(board.finetuning, {**board.objectives, **board.config.finetune.tasks}, layout)
    rows = [_leaderboard_row(board, row) for row in board.rows]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_schema(board)), sink)
    write_atomic(layout.leaderboard, sink.getvalue().to_pybytes())
    make_private(layout.recipes)
    for row in board.rows:
        write_atomic(layout.recipe(row.recipe.id), row.recipe.to_yaml(), flush=False)
    front = [
        {
            "recipe_id": row.recipe.id,
            "method": row.method,
            "parameters": row.parameters,
            "objectives": {name: {"value": row.scores[name].value, "se": row.scores[name].se} for name in row.scores},
        }
        for row in board.front
    ]
    directions = {name: board.objectives[name].direction for name in board.axes}
    near = [row.recipe.id for row in board.rows if row.near_front]
    unscored = {row.recipe.id: row.failure.message for row in board.rows if row.failure}
    write_json(layout.front, {"objectives": directions, "front": front, "near_front": near, "without_score": unscored})


def write_finetuning(results: FinetuneResults, objectives: Iterable[str], layout: Layout) -> None:
    """Write tuning.parquet: a row for each run of fine-tuning."""
    rows = [
        {
            "tuning_id": run.tuning.id,
            "recipe_id": run.row.recipe.id,
            "start": run.tuning.start_label,
            "start_id": run.tuning.start.id,
            "task": run.tuning.task,
            "method": run.tuning.method,
            "examples": run.tuning.examples,
            "seed": run.tuning.seed,
            "status": run.row.status,
            "train_s": run.result.get("seconds"),
            "processes": run.result.get("processes"),
            "device": run.result.get("device_name"),
            **as_row(run.row.scores),
        }
        for run in results.runs
    ]
    columns = [(key, pa.string()) for key in ("tuning_id", "recipe_id", "start", "start_id", "task", "method")]
    columns += [("examples", pa.int64()), ("seed", pa.int64()), ("status", pa.string()), ("train_s", pa.float64())]
    columns += [("processes", pa.int64()), ("device", pa.string())]
    columns += [(key, pa.float64()) for name in objectives for key in (name, f"{name}_se")]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), sink)
    write_atomic(layout.tuning_table, sink.getvalue().to_pybytes())


def _schema(board: Board) -> pa.Schema:
    columns = [("recipe_id", pa.string()), ("method", pa.string()), ("parameters", pa.string())]
    columns += [("status", pa.string()), ("on_front", pa.bool_()), ("near_front", pa.bool_())]
    columns += [(key, pa.float64()) for name in board.objectives for key in (name, f"{name}_se")]
    return pa.schema([*columns, *((key, pa.float64()) for key in COSTS), ("reason", pa.string())])


def _leaderboard_row(board: Board, row: Row) -> dict[str, Any]:
    return {
        "recipe_id": row.recipe.id,
        "method": row.method,
        "parameters": json.dumps(row.parameters),
        "status": row.status,
        "on_front": row.on_front,
        "near_front": row.near_front,
        **as_row(row.scores),
        **row.costs,
        "reason": row.failure.message if row.failure else None,
    }
