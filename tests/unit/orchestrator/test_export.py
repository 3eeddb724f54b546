"""Export: a row an answer."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.config.workers import Workers
from orchestrator.core.errors import UserError
from orchestrator.core.files import write_json
from orchestrator.core.records import Question
from orchestrator.recipes.recipe import Point, Source, single
from orchestrator.results.export import export
from tasks.evaluation.suites import SuiteTask
from tests.helpers.answers import LETTERS, Results, asked


def test_export_has_a_row_an_answer_and_texts_only_where_asked(results: Results, tmp_path: Path) -> None:
    for recipe in range(len(results.recipes)):
        results.answer(recipe)
    for name, texts in (("plain", False), ("texts", True)):
        rows, damaged = export(results.layout, tmp_path / f"{name}.parquet", {}, texts=texts)
        table = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
        assert rows == len(table) == 4 * 18 and damaged == []
        assert {row["text"] for row in table} == ({None, "a patient's text"} if texts else {None})
        assert stat.S_IMODE(os.stat(tmp_path / f"{name}.parquet").st_mode) == 0o600
    assert {row["label"] for row in table} == {"parent name=a", "parent name=b", "linear alpha=0.5", "slerp t=0.5"}
    one = next(r for r in table if r["label"] == "linear alpha=0.5" and r["question_id"] == LETTERS[5].id)
    assert (one["parents"], one["method"], json.loads(one["parameters"])) == ("a, b", "linear", {"alpha": 0.5})
    assert (one["objective"], one["task"], one["document"], one["logprob"]) == ("clinical", "letters", 2, -1.0)
    with pytest.raises(UserError, match="exists already"):
        export(results.layout, tmp_path / "plain.parquet", {}, texts=False)


def test_export_gives_each_stage_its_own_scores(sweep: Callable[..., Path], tmp_path: Path) -> None:
    """Held-out questions those of the confirmed board, fine-tuned recipes those of tuning.parquet, others none."""
    results = Results(sweep(), tmp_path / "out")
    held_out, cards = ([Question((stage, i), (i,)) for i in range(6)] for stage in (100, 200))
    stages = {
        "confirm": [SuiteTask("clinical", "letters", None, [], 6, held_out, list(range(6)))],
        "tuned": [SuiteTask("cards", "texts", None, [], 6, cards, list(range(6)))],
    }
    results.write_uses(sweep=results.suites, **stages)
    run = results.out / "tuning" / ("ab" * 10)
    told = {"method": "lora", "start_label": "linear alpha=0.5", "task": "cards", "budget": "8", "seed": 0}
    (results.out / "confirmed").mkdir()
    run.mkdir(parents=True)
    write_json(run / "RESULT.json", told)
    finalist, other = results.recipes[2:]
    tuned = single(Source(run.name, "", ""), "float32", Point("tuned")).id
    boards = {
        "leaderboard": [{"recipe_id": finalist, "clinical": 0.5}, {"recipe_id": other, "clinical": 0.25}],
        "confirmed/leaderboard": [{"recipe_id": finalist, "clinical": 0.375}],
        "tuning": [{"recipe_id": tuned, "clinical": 0.125, "cards": 0.75}],
    }
    for name, rows in boards.items():
        pq.write_table(pa.Table.from_pylist(rows), results.out / f"{name}.parquet")
    for recipe in (finalist, other, tuned):
        for block in results.ledger.missing(recipe, [LETTERS, held_out, cards], Workers(block=64)):
            results.ledger.write(asked(block))
    export(results.layout, tmp_path / "to.parquet", {}, texts=False)
    rows = pq.read_table(tmp_path / "to.parquet").to_pylist()
    assert {(row["recipe_id"], row["stage"], row["objective_score"]) for row in rows} == {
        (finalist, "sweep", 0.5), (finalist, "confirm", 0.375), (finalist, "tuned", None),
        (other, "sweep", 0.25), (other, "confirm", None), (other, "tuned", None),
        (tuned, "sweep", 0.125), (tuned, "confirm", None), (tuned, "tuned", 0.75),
    }  # fmt: skip
