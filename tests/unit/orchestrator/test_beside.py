"""Published figures beside a run's, from boards whose numbers are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from orchestrator.config.load import load_published
from orchestrator.config.published import Published
from orchestrator.core.records import Decoding
from orchestrator.ledger.spent import Spent
from orchestrator.report import figures, trajectories
from orchestrator.report.beside import Beside
from orchestrator.report.learning import learning_curves
from orchestrator.report.page import write_report
from orchestrator.report.published import costs_table, differing_table, finetuned_table, rows_table, words
from orchestrator.results.board import Board, TaskSummary
from orchestrator.results.layout import Layout
from tests.helpers.boards import tuned_board
from tests.helpers.paths import EXAMPLES
from tests.helpers.sweep_boards import BOARDS

PAPER: dict[str, Any] = {
    "source": "A paper",
    "names": {"Clinical": "pa", "Instruct": "pb", "Merge": "slerp", "Medical Avg": "medical", "Notes": "notes"},
    "rows": {
        "Clinical": {"Medical Avg": 0.5, "loss": 0.4, "Legal Avg": 0.2},
        "Merge": {"Medical Avg": 0.55},
        "Their other model": {"Medical Avg": 0.7, "loss": 0.7},
    },
    "evaluation": {"tasks": {"Medical Avg": ["x", "more"]}, "num_fewshot": 0, "apply_chat_template": None},
    "finetuned": {
        "Table 2": {"Merge": {"Notes": {0: 0.2, 8: 0.45, 64: 0.71, "all": 0.9}, "Letters": {8: 0.3}}},
        "Figure 4": {"Instruct": {"Notes": {512: 0.8}}, "Their other model": {"Notes": {8: 0.1}}},
    },
    "training": {
        "temperature": 0.3,
        "epochs": 3,
        "learning_rate": None,
        "min_steps": {"all": 200, "few": 100},
        "seeds": 1,
        "hardware": "1x B200",
    },
    "costs": {
        "merging": {"minutes": 40, "checkpoints": 9, "hardware": "1x B200"},
        "baseline": {"minutes": 1100, "labelled_examples": 409593},
    },
}


def beside(**changes: Any) -> Beside:
    board = tuned_board()
    assert board.finetuning is not None
    task = TaskSummary("notes", "clinical_mts_dialog", ("composite",), 20, 20, 0, decoding=Decoding(64, (), 0.3))
    tuned = dataclasses.replace(board.finetuning, tasks=(task,))
    summaries = tuple(TaskSummary(name, key, ("acc",), 20, 20, 0) for name, key in (("medical", "x"), ("loss", "y")))
    rows = tuple(
        dataclasses.replace(row, spent=(Spent("host:1", "Xeon", 100.0 + 20 * place, 2.0, 9.0),))
        for place, row in enumerate(board.rows)
    )
    board = dataclasses.replace(board, rows=rows, tasks=summaries, finetuning=tuned)
    return Beside(board, Published.model_validate({**PAPER, **changes}))


def test_a_figure_is_compared_with_this_runs_own_interval_and_what_differs() -> None:
    rows = {(row[0], row[2]): row for row in rows_table(beside()).rows}
    found = rows["Clinical", "Medical Avg"]
    assert found[1] == "pa (parent)" and found[4:7:2] == ("0.5", "+0.400")
    low, high = map(float, found[7].split(" to "))
    assert low < 0.4 < high
    assert found[3] == "tasks, num_fewshot, apply_chat_template (not said)"
    assert rows["Merge", "Medical Avg"][1] == "slerp x=s2", "the starting point of this method"
    for key in (("Clinical", "Legal Avg"), ("Their other model", "Medical Avg")):
        assert {rows[key][3], *rows[key][5:]} == {"–"}
    settings = {row[:3]: row[3] for row in differing_table(beside()).rows}
    assert settings["tasks", "more and x", "x"] == "Medical Avg"
    assert settings["apply_chat_template", "not said", "no"] == "Medical Avg and loss"
    assert settings["num_fewshot", "0", "each task file's"] == "Medical Avg and loss"


def test_fine_tuning_is_compared_budget_by_budget() -> None:
    before, eight, _, everything, letters = finetuned_table(beside(), "Table 2").rows
    assert [before[4], eight[4], everything[4], letters[4]] == ["0", "8", "all", "8"]
    assert before[5:8:2] == ("0.2", "-0.100") and before[3] == "–", "nothing was trained"
    assert eight[5] == "0.45" and abs(float(eight[7]) - 0.05) < 0.005, "the mean over seeds of full fine-tuning"
    low, high = map(float, eight[8].split(" to "))
    assert low < 0.05 < high
    assert eight[3] == "epochs, learning_rate (not said), seeds, hardware"
    assert {*everything[6:], *letters[6:]} == {"–"}, "this run has no such budget, and no such task"
    (instruct, other) = finetuned_table(beside(), "Figure 4").rows
    assert instruct[1] == "pb" and abs(float(instruct[7])) < 0.005 and other[1] == "–"
    settings = {row[:3] for row in differing_table(beside()).rows}
    assert settings >= {("epochs", "3", "15"), ("seeds", "1", "3"), ("hardware", "1x B200", "1x NVIDIA H100")}
    one = Beside(tuned_board(seeds=1), Published.model_validate(PAPER))
    assert finetuned_table(one, "Table 2").rows[1][8] == "not known from one seed"


def test_costs_are_compared_for_each_model() -> None:
    merging, baseline = costs_table(beside()).rows
    assert merging[1:] == ("4.4 min", "1x B200", "0", "2.0 s", "1 CPU core (Xeon)", "0")
    assert baseline[1:4] == ("18.3 h", "–", "409,593") and baseline[4] == "–"


def test_names_that_are_nothing_here_are_said() -> None:
    said = " ".join(words(beside()))
    assert "This run has nothing by these names: Their other model, Legal Avg and Letters." in said
    assert "does not show that the two are equal" in said
    other = beside(names={**PAPER["names"], "Clinical": "px"})
    assert "Clinical (here: px)" in " ".join(words(other))


def faces(figure: Figure, panel: int = 0) -> list[tuple[float, float]]:
    """The places of the open markers of a panel."""
    return [
        tuple(points.get_offsets()[0])
        for points in figure.axes[panel].collections
        if points.get_zorder() == 8 and not len(points.get_facecolors())
    ]


def names(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_published_points_are_open_markers_in_three_figures() -> None:
    laid = beside()
    front, curves = figures.front(laid.board, laid), learning_curves(laid.board, laid)
    assert front is not None and curves is not None
    assert front.axes[0].get_xlabel().startswith("loss") and front.axes[0].get_ylabel() == "medical"
    assert faces(front) == [(0.4, 0.5), (0.7, 0.7)], "only what has both objectives"
    assert {"Clinical (published)", "Their other model (published)"} <= {
        text.get_text() for text in front.axes[0].texts
    }
    assert names(front)[-1] == "published"
    assert faces(curves) == [(8.0, 0.45), (64.0, 0.71), (512.0, 0.8)] and names(curves)[-1] == "published"
    without = figures.front(laid.board)
    assert without is not None and "published" not in names(without) and not faces(without)


def test_published_points_lie_on_the_ratio_of_this_runs_recipe() -> None:
    board = BOARDS["paper"]()
    rows = {"theirs": {"medical": 0.61}, "clinical": {"medical": 0.5, "instruction": 0.2}}
    laid = Beside(board, Published.model_validate({"source": "x", "names": {"theirs": "slerp t=0.4"}, "rows": rows}))
    figure = trajectories.trajectories(board, laid)
    assert figure is not None and names(figure)[-1] == "published"
    assert set(faces(figure)) == {(0.4, 0.61), (0.0, 0.5)} and set(faces(figure, 1)) == {(0.0, 0.2)}


def test_the_papers_file_lies_beside_any_run(tmp_path: Path) -> None:
    board: Board = tuned_board()
    report = write_report(board, Layout(tmp_path), load_published(EXAMPLES / "paper_figures.yaml"))
    text = report.with_suffix(".md").read_text()
    for title in ("## Beside published figures", "### Table 2", "### Figure 4", "### What it took"):
        assert title in text
    assert "GatorTronLlama_SFT (here: baseline)" in text and "IU-Xray (here: radiology)" in text
    assert "| SLERP Merge | slerp x=s2 | MIMIC-BHC | – | 0 | 0.2478 | – |" in text
