"""The main job from the outside: the command line, real Ray, and, for the demo, real merging, serving and scoring."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.commands import Run, command_line, start, wait_for_blocks
from tests.helpers.paths import EXAMPLES, ROOT
from tests.helpers.results import finished, leaderboard


# -------------------------------------------------------------------- the command line, over the fake backend
def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from orchestrator.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "import orchestrator.config.sweep, orchestrator.recipes.recipe, orchestrator.core.records\n"
        "print('heavy', sorted({'torch', 'ray', 'vllm', 'transformers', 'mergekit', 'lm_eval'} & set(sys.modules)))"
    )
    started = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert started.stdout.strip().endswith("heavy []")


def test_a_sweep_from_plan_to_compare(sweep: Callable[..., Path], tmp_path: Path, mergefront: Run) -> None:
    path, out = sweep(), tmp_path / "out"
    plan = json.loads(mergefront("plan", path, "--json")[0])
    assert len(plan["recipes"]) == 4
    assert plan["points"] == 7
    assert not out.exists()

    first = command_line("run", path, "--out", out)
    assert f"report: {out / 'report.html'}" in first.stdout
    assert "starting engines" in first.stderr
    blocks, rows = finished(out), leaderboard(out)
    assert [row["method"] for row in rows] == ["parent", "parent", "linear", "slerp"]
    assert {row["status"] for row in rows} == {"scored"}
    asked = sum(json.loads(marker)["rows"] for marker in blocks.values())
    assert asked == plan["questions"]

    _, again = mergefront("run", path, "--out", out)
    assert "starting engines" not in again
    assert finished(out) == blocks

    for file in ("leaderboard.parquet", "report.md", "report.html", "front.json"):
        (out / file).unlink()
    mergefront("report", out)
    assert leaderboard(out) == rows
    front = json.loads((out / "front.json").read_text())
    assert {item["recipe_id"] for item in front["front"]} == {row["recipe_id"] for row in rows if row["on_front"]}
    assert "fake" in (out / "report.md").read_text().lower()
    assert "learning rate" in (out / "report.md").read_text().lower(), "the assumptions are part of the report"

    told, _ = mergefront("compare", out, "a", "linear alpha=0.5")
    assert "demo_formulary" in told and "95 % interval" in told
    _, wrong = mergefront("compare", out, "a", "linear alpha=0.6", expect=2)
    assert "'linear alpha=0.6' is no recipe of this sweep; did you mean 'linear alpha=0.5'?" in wrong

    for row in rows:
        recipe = yaml.safe_load((out / "recipes" / f"{row['recipe_id']}.yaml").read_text())
        assert recipe["merge_method"] in {"passthrough", "linear", "slerp"}


def test_a_raised_limit_asks_only_the_new_questions(
    sweep: Callable[..., Path], tmp_path: Path, mergefront: Run
) -> None:
    out = tmp_path / "out"
    objectives = {"clinical": {"tasks": ["demo_formulary"], "limit": 10}}
    mergefront("run", sweep(objectives=objectives), "--out", out)
    before = finished(out)
    objectives["clinical"]["limit"] = 25
    mergefront("run", sweep(objectives=objectives), "--out", out)
    after = finished(out)
    assert before.items() <= after.items()

    def asked(blocks: dict[Path, bytes]) -> list[tuple[str, str]]:
        files = [(marker.parts[-3], marker.parent / json.loads(text)["file"]) for marker, text in blocks.items()]
        return [(recipe, row) for recipe, file in files for row in pq.read_table(file)["question_id"].to_pylist()]

    everything = asked(after)
    assert len(everything) == len(set(everything)), "no question twice"
    assert len(everything) == 25 * 4 * 4 and len(asked(before)) == 10 * 4 * 4


def test_a_budget_stops_cleanly_and_the_same_command_goes_on(
    sweep: Callable[..., Path], tmp_path: Path, mergefront: Run
) -> None:
    workers = {"backend": "fake", "fake_seconds": 0.02, "block": 8, "count": 1, "engine": {"max_model_len": 512}}
    path, out = sweep(workers=workers), tmp_path / "out"
    _, stopped = mergefront("run", path, "--out", out, "--max-gpu-hours", 4 / 3600)
    assert "recipes are not finished; the same command resumes" in stopped
    assert "pending" in {row["status"] for row in leaderboard(out)}
    before = finished(out)
    mergefront("run", path, "--out", out)
    assert before.items() <= finished(out).items()
    assert {row["status"] for row in leaderboard(out)} == {"scored"}


def test_an_interrupt_exits_with_130_and_keeps_what_is_finished(sweep: Callable[..., Path], tmp_path: Path) -> None:
    workers = {"backend": "fake", "fake_seconds": 0.05, "block": 8, "engine": {"max_model_len": 512}}
    path, out = sweep(workers=workers), tmp_path / "out"
    running = start(path, out)
    wait_for_blocks(running, out, 2)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"interrupted; the same command resumes from here" in errors
    assert b"Traceback" not in errors
    assert len(finished(out)) >= 2


# -------------------------------------------------------------------- the demo, for real
@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, run to its end without interruption."""
    out = tmp_path_factory.mktemp("demo") / "out"
    command_line("run", EXAMPLES / "demo.yaml", "--out", out)
    return out


@pytest.mark.slow
def test_the_demo_has_the_trade_off_it_promises(demo: Path) -> None:
    rows = leaderboard(demo)
    assert len(rows) == 20
    assert {row["status"] for row in rows} == {"scored"}
    clinical, instruct = rows[:2]
    assert [row["method"] for row in rows[:2]] == ["parent", "parent"]
    assert clinical["clinical"] - instruct["clinical"] >= 0.25
    assert instruct["instruction"] - clinical["instruction"] >= 0.25
    front = [row for row in rows if row["on_front"]]
    assert len(front) >= 3
    assert any(row["method"] != "parent" for row in front)
    (share,) = json.loads((demo / "slerp.json").read_text()).values()
    assert share["curved"] >= 0.5
    assert list((demo / "checkpoints").rglob("*.safetensors")) == [], "merged checkpoints are removed after use"


@pytest.mark.prove  # test_campaign.py kills the driver, nodes and workers of a sweep over the fake backend
def test_killed_in_the_middle_it_ends_up_the_same(demo: Path, tmp_path: Path) -> None:
    path, out = EXAMPLES / "demo.yaml", tmp_path / "out"
    running = start(path, out)
    wait_for_blocks(running, out, 4)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    before = finished(out)
    assert 4 <= len(before) < len(finished(demo)), "killed after at least four finished blocks, and before the last"
    command_line("run", path, "--out", out)
    assert before.items() <= finished(out).items(), "no finished block was asked again"
    assert leaderboard(out) == leaderboard(demo)
    fronts = [json.loads((folder / "front.json").read_text()) for folder in (out, demo)]
    assert fronts[0] == fronts[1]
