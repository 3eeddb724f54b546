"""A recipe with a metric that is no number: it has no score, for a reason that every result names."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.cli.main import main
from orchestrator.results.board import Board
from orchestrator.stages.open import Sweep
from orchestrator.stages.publish import publish
from tests.helpers.results import leaderboard
from tests.helpers.tasks import TEXT, answered_sweep, rows, write_task

GRID = [{"method": "linear", "alpha": [0.2, 0.4, 0.5, 0.6, 0.8]}]
HEAD = TEXT.split("metric_list")[0] + "process_results: !function utils.judge\n"
PEARSON = """
import zlib
import numpy as np
constant = [False]
def judge(doc, results):
    if doc["question"].endswith(" 0?"):
        constant[0] = {constant}
    return {{"r": (doc["answer"], 3.0 if constant[0] else float(zlib.crc32(results[0].encode()) % 7))}}
def pearson(items):
    return float(np.corrcoef(*zip(*items))[0, 1])
"""
METRIC = "metric_list: [{metric: r, aggregation: !function utils.pearson, higher_is_better: true}]\n"
OBJECTIVES = {"x": {"tasks": ["own"]}, "clinical": {"tasks": ["demo_formulary"], "limit": 8}}
WHY = "x: own: r: its aggregation over 12 documents gives nan, which is no score"


def publish_with(folder: Path, constant: str) -> tuple[Sweep, Board]:
    """Publish a sweep with Pearson's r, where `constant` decides by the first reply that all replies count the same."""
    write_task(folder, HEAD + METRIC, rows(12), PEARSON.format(constant=constant))
    sweep = answered_sweep(folder, objectives=OBJECTIVES, recipes=GRID)
    return sweep, publish(sweep, None)


def test_a_recipe_without_a_score_is_named_and_compared_with_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, board = publish_with(tmp_path, "zlib.crc32(results[0].encode()) % 2 == 0")
    without = {row.recipe.id: row for row in board.rows if row.status == "unscored"}
    assert 0 < len(without) < len(board.rows)
    for row in without.values():
        assert row.failure and row.failure.message == WHY
        assert list(row.scores) == ["clinical"] and not row.on_front and not row.near_front
    table = {row["recipe_id"]: row for row in leaderboard(sweep.layout.root)}
    front = json.loads(sweep.layout.front.read_text())
    assert front["without_score"] == dict.fromkeys(without, WHY)
    assert not {each["recipe_id"] for each in front["front"]} & without.keys()
    for key, each in table.items():
        assert (each["reason"], each["x"] is None) == ((WHY, True) if key in without else (None, False))
        assert each["clinical"] is not None
    for page in (sweep.layout.report_html, sweep.layout.root / "report.md"):
        text = page.read_text()
        assert WHY in text and ">nan" not in text and " nan " not in text.replace("gives nan", "")
    out = str(sweep.layout.root)
    assert main(["status", out]) == 0
    assert capsys.readouterr().out.count(WHY) == len(without)
    other = next(row.recipe.id for row in board.rows if row.recipe.id not in without)
    assert main(["compare", out, next(iter(without)), other]) == 2
    assert f"is unscored and has no scores ({WHY})" in " ".join(capsys.readouterr().err.split())
    assert main(["report", out]) == 1
    assert capsys.readouterr().err.count(f"mergefront: unscored: {next(iter(without))}") == 1


def test_a_sweep_in_which_nothing_has_a_score_has_a_report(tmp_path: Path) -> None:
    sweep, board = publish_with(tmp_path, "True")
    assert {row.status for row in board.rows} == {"unscored"} and not board.front
    assert WHY in (sweep.layout.root / "report.md").read_text()
    assert pq.read_table(sweep.layout.leaderboard)["x"].null_count == len(board.rows)


def test_a_metric_of_some_documents_is_reported_with_their_number(tmp_path: Path) -> None:
    code = "def judge(doc, results): return {'hit': 1.0} if doc['answer'] < 2 or '3' in results[0] else {}"
    write_task(
        tmp_path, f"{HEAD}metric_list: [{{metric: hit, aggregation: mean, higher_is_better: true}}]\n", rows(8), code
    )
    board = publish(answered_sweep(tmp_path, objectives={"x": {"tasks": ["own"]}}), None)
    assert {row.status for row in board.rows} == {"scored"}
    (note,) = board.notes
    assert note.startswith("own: hit is over the documents that have it, as in lm-eval: ")
