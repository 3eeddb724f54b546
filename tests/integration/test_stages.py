"""One command does what the file says: evaluate, search, fine-tune; each stage resumed from the folder of another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.commands import Run
from tests.helpers.results import finished, leaderboard, notes, rows
from tests.helpers.sweeps import FAKE, FINETUNE, GENERATION, OBJECTIVES, SEARCH


@pytest.mark.prove
def test_run_goes_as_far_as_the_file_or_until_says(sweep: Callable[..., Path], tmp_path: Path, mergefront: Run) -> None:
    out = tmp_path / "out"
    finetune = {**copy.deepcopy(FINETUNE), "starts": ["b", {"best": "clinical"}], "seeds": [0]}
    search = {**SEARCH, "budget": {"candidates": 3}}
    path = sweep(objectives=OBJECTIVES, search=search, workers=FAKE, generation=GENERATION, finetune=finetune)

    _, said = mergefront("run", path, "--out", out, "--until", "evaluate")
    assert not notes(out) and not (out / "tuning").exists() and "sampler" not in said
    grid = leaderboard(out)
    assert {row["status"] for row in grid} == {"scored"}

    mergefront("search", path, "--out", out)
    candidates = notes(out)
    assert len(candidates) == 3 and not (out / "tuning").exists()
    with_candidates = leaderboard(out)
    assert {row["recipe_id"] for row in with_candidates} >= {row["recipe_id"] for row in grid} | candidates.keys()

    # A run that stops earlier neither evaluates the candidates again nor loses them.
    answered = finished(out)
    mergefront("run", path, "--out", out, "--until", "evaluate")
    assert leaderboard(out) == with_candidates and finished(out) == answered
    assert "Hypervolume" in (out / "report.md").read_text()

    mergefront("run", path, "--out", out)
    assert notes(out) == candidates and leaderboard(out) == with_candidates
    tuned = rows(out, "tuning.parquet")
    assert len(tuned) == 2 and {row["status"] for row in tuned} == {"scored"}
    merges = {row["recipe_id"]: row["clinical"] for row in with_candidates if row["clinical"] is not None}
    parents = {row["recipe_id"] for row in with_candidates if row["method"] == "parent"}
    best = max((key for key in merges if key not in parents), key=lambda key: merges[key])
    starts = {row["start_id"] for row in tuned}
    assert merges[next(iter(starts - parents))] == merges[best], "the rule chooses among the search's merges too"
    page = (out / "report.md").read_text()
    assert "Hypervolume" in page and "Starting points" in page

    # With everything there, nothing is started.
    answered = finished(out)
    _, quiet = mergefront("sft", path, "--out", out)
    assert "starting" not in quiet and finished(out) == answered


@pytest.mark.slow
def test_every_word_for_run_takes_a_limit_of_gpu_hours(
    sweep: Callable[..., Path], tmp_path: Path, mergefront: Run
) -> None:
    out = tmp_path / "out"
    path = sweep(objectives=OBJECTIVES, search=SEARCH, workers={**FAKE, "block": 8, "fake_seconds": 0.05})
    _, said = mergefront("search", path, "--out", out, "--max-gpu-hours", "1e-4")
    assert "recipes are not finished; the same command resumes" in said
    some = finished(out)
    assert some and not notes(out)


@pytest.mark.parametrize(("word", "section"), [("search", "search"), ("sft", "finetune")])
def test_a_word_for_run_needs_its_section(
    sweep: Callable[..., Path], tmp_path: Path, mergefront: Run, word: str, section: str
) -> None:
    _, said = mergefront(word, sweep(), "--out", tmp_path / "out", expect=2)
    assert f"has no section {section}; add one (examples/" in said
    assert not (tmp_path / "out").exists()
