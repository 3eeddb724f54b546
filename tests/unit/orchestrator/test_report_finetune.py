"""The report's part on fine-tuning, from a board whose numbers are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from orchestrator.config.finetune import Method
from orchestrator.core.records import RecipeStatus
from orchestrator.recipes.tuning import Start, Tuning, settings
from orchestrator.report.finetune import equivalents_table, forgotten_table, learned_table, series
from orchestrator.report.page import write_report
from orchestrator.results.board import Board, FinetunedRow, FinetuneResults, Row
from orchestrator.results.layout import Layout
from orchestrator.stages.finetune_starts import choose_starts
from tests.helpers.boards import VALUES, board, finetune, score

METHODS: tuple[Method, ...] = ("full", "lora")


def tuned_board() -> Board:
    """`pb` learns slowly, the merge `s2` fast and forgets a tenth of `medical`; LoRA a little less than all weights."""
    found = board(VALUES, "pb", {"nearest": "ideal"})
    rows = {row.recipe.id: row for row in found.rows}
    starts = []
    for start in choose_starts(found.config, found, None):
        row = rows[start.recipe.id]
        starts.append((start, dataclasses.replace(row, scores={**row.scores, "notes": score(0.1)})))
    runs = tuple(
        run(start, row, method, seed, size)
        for start, row in starts
        for method in METHODS
        for seed in (0, 1)
        for size in (8, 64, 512)
    )
    return dataclasses.replace(found, finetuning=FinetuneResults(tuple(starts), runs, ()))


def run(start: Start, row: Row, method: Method, seed: int, size: int) -> FinetunedRow:
    level = {8: 0.2, 64: 0.5, 512: 0.8}[size] if start.label == "pb" else {8: 0.5, 64: 0.7, 512: 0.9}[size]
    given = settings(finetune(), 100, method)
    tuning = Tuning(start.recipe, str(size), method, seed, given, "notes", start.label, size, str(size))
    notes = score(level - 0.02 * (method == "lora") + 0.01 * seed, seed=seed)
    medical = score(row.scores["medical"].value - 0.1, seed=seed)
    scores = {**row.scores, "medical": medical, "notes": notes}
    result = {"seconds": 36.0, "processes": 1, "device": "cuda", "losses": [2.0, 1.0], "truncated": 3}
    return FinetunedRow(tuning, Row(tuning.recipe(Path("/x"), "float32"), RecipeStatus.SCORED, scores, {}), result)


def test_tables_say_what_was_learned_what_it_is_worth_and_what_was_forgotten() -> None:
    found = tuned_board()
    assert found.finetuning is not None
    learned = learned_table(found.finetuning, "notes")
    assert learned.head == (
        "starting point",
        "0-shot",
        "full, 8",
        "full, 64",
        "full, 512",
        "lora, 8",
        "lora, 64",
        "lora, 512",
    )
    by_start = {row[0]: row for row in learned.rows}
    assert by_start["pb"][2] == "0.205 ± 0.007", "mean and standard deviation over seeds"
    worth = {(row[0], row[1], row[2]): row[3:] for row in equivalents_table(found, found.finetuning, "notes").rows}
    assert worth["full", "slerp x=s2: 8", "pb"][0] == "64"
    assert worth["full", "pb: 8", "slerp x=s2"][0] == "under 8"
    assert worth["full", "slerp x=s2: 512", "pb"][0] == "over 512"
    forgotten = forgotten_table(found, found.finetuning)
    assert all(row[5].startswith("-0.100") for row in forgotten.rows) and forgotten.head[5] == "medical"
    assert set(series(found.finetuning, "notes")) == {(s, m) for s in ("pb", "slerp x=s2") for m in METHODS}


def test_the_page_has_fine_tuning(tmp_path: Path) -> None:
    write_report(tuned_board(), Layout(tmp_path))
    page = (tmp_path / "report.md").read_text()
    for text in (
        "## Fine-tuning",
        "nearest the ideal point",
        "The settings are the paper's.",
        "figures/learning.png",
        "0.01",
    ):
        assert text in page
    assert (tmp_path / "figures" / "learning.png").stat().st_size > 10_000
    write_report(dataclasses.replace(tuned_board(), finetuning=None, awaits_finetuning=True), Layout(tmp_path))
    assert "It begins when every recipe" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "figures" / "learning.png").exists()
