"""The report's part on fine-tuning, from a board whose numbers are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from orchestrator.core.errors import UserError
from orchestrator.ledger.spent import Spent
from orchestrator.report.compare import print_comparison
from orchestrator.report.finetune import costs_table, forgotten_table
from orchestrator.report.learning import (
    ONE_SEED,
    equivalents_table,
    gaps,
    gaps_table,
    gaps_words,
    learned_table,
    series,
)
from orchestrator.report.page import write_report
from orchestrator.report.retention import merges_table, tuned_table
from orchestrator.report.terminal import console
from orchestrator.results.layout import Layout
from tests.helpers.boards import METHODS, tuned_board


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
    value, error = by_start["pb"][2].split(" ± ")
    assert float(value) == pytest.approx(0.2, abs=0.01) and 0 < float(error) < 0.02
    worth = {(row[0], row[1], row[2]): row[3:] for row in equivalents_table(found, found.finetuning, "notes").rows}
    assert worth["full", "slerp x=s2: 8", "pb"][1] == "8 to 512"
    assert worth["full", "pb: 8", "slerp x=s2"] == ("under 8", "under 8")
    assert worth["full", "slerp x=s2: 512", "pb"] == ("over 512", "over 512")
    forgotten = forgotten_table(found, found.finetuning)
    assert forgotten.head[5] == "medical" and len(forgotten.rows) == 12
    assert all(float(row[5].split(" ")[0]) == pytest.approx(-0.05, abs=0.01) for row in forgotten.rows)
    assert set(series(found.finetuning, "notes")) == {(s, m) for s in ("pb", "slerp x=s2") for m in METHODS}


def test_starting_points_are_compared_over_seeds_and_documents() -> None:
    found = tuned_board()
    assert found.finetuning is not None
    differences = gaps(found.finetuning, "notes")
    table = gaps_table(differences, 1.0)
    assert [row[:4] for row in table.rows if row[0] == "full"] == [
        ("full", "slerp x=s2", "pb", budget) for budget in ("mean of all", "8", "64", "512")
    ]
    assert all(row[4] == "better" for row in table.rows if row[3] == "mean of all"), "by 0.2 of errors of 0.01"
    assert "2 means over the budgets and 6 differences at a budget hold together at 95 %" in gaps_words(differences)
    tuned = tuned_table(found, found.finetuning)
    assert len(tuned.rows) == 24 and {row[4:6] for row in tuned.rows} == {("medical", "pa"), ("loss", "pb")}
    merges = merges_table(found)
    assert merges.rows and all(row[3] in ("", "retained", "lost") for row in merges.rows)


def test_from_one_seed_nothing_is_said_of_another() -> None:
    found = tuned_board(seeds=1)
    assert found.finetuning is not None
    for table in (
        gaps_table(gaps(found.finetuning, "notes"), 1.0),
        equivalents_table(found, found.finetuning, "notes"),
        tuned_table(found, found.finetuning),
    ):
        assert table.rows and all(row[-1] == ONE_SEED for row in table.rows)
    assert all(ONE_SEED in row[5] for row in forgotten_table(found, found.finetuning).rows)
    assert "there is none from one seed" in gaps_words(gaps(found.finetuning, "notes"))


def test_merging_answering_and_training_have_their_own_costs() -> None:
    found = tuned_board()
    assert found.finetuning is not None
    begin = 1000.0
    rows = [
        dataclasses.replace(
            row,
            spent=tuple(
                # Two workers side by side: each loads for 2 s and answers for 10 s.
                Spent(f"node:{worker}", "NVIDIA H100", begin + 12 * (place + 1), 2.0, 10.0)
                for worker in range(2)
            ),
        )
        for place, row in enumerate(found.rows)
    ]
    table = costs_table(dataclasses.replace(found, rows=tuple(rows)), found.finetuning)
    merging, answering, tuned, *_ = table.rows
    assert merging[0] == "merging: 4 merges loaded into engines" and merging[2:] == ("8.0 s", "16.0 s", "0")
    assert answering[0] == "answering: 6 recipes evaluated" and answering[2:] == ("60.0 s", "2.0 min", "0")
    assert "NVIDIA H100" in merging[1] and merging[1].startswith("2 ")
    assert tuned == ("fine-tuning: notes, full, one run (mean of 6)", "1 GPU (NVIDIA H100)", "36.0 s", "36.0 s", "8")


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


def test_compare_takes_runs_of_all_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    found = tuned_board()
    names = [f"full start={start} task=notes examples=64" for start in ("slerp x=s2", "pb")]
    a, b = map(found.find_seeds, names)
    assert set(a) == {0, 1, 2} and list(found.find_seeds(f"{names[0]} seed=1")) == [None]
    print_comparison(found, a, [b], console())
    said = capsys.readouterr().out
    assert "+0.2" in next(line for line in said.splitlines() if line.startswith("notes")) and "paired by seed" in said
    print_comparison(found, a, [b, found.find_seeds("pa")], console())
    assert "The 5 intervals for new seeds and documents hold at once" in capsys.readouterr().out
    with pytest.raises(UserError, match="no seed that both have"):
        print_comparison(found, {1: a[1], 2: a[2]}, [{0: b[0]}], console())


def test_the_mean_over_budgets_is_of_the_seeds_that_all_budgets_have() -> None:
    found = tuned_board()
    assert found.finetuning is not None
    some = [run for run in found.finetuning.runs if run.tuning.examples != 64 or run.tuning.seed != 0]
    of = {
        gap.budget: gap.difference.seeds
        for gap in gaps(dataclasses.replace(found.finetuning, runs=tuple(some)), "notes")
    }
    assert of == {"mean of all": 2, "8": 3, "64": 2, "512": 3}
    one = [run for run in found.finetuning.runs if run.tuning.examples == 8]
    assert [gap.budget for gap in gaps(dataclasses.replace(found.finetuning, runs=tuple(one)), "notes")] == ["8"] * 2
