"""The demo with drafts and without: `make prove`, or

pytest -m prove -s tests/proofs/test_drafts.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.common import ROOT

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]
DEMO = ROOT / "examples" / "demo.yaml"


def run(tmp_path: Path, drafts: bool) -> Path:
    sweep = yaml.safe_load(DEMO.read_text())
    sweep["workers"]["engine"]["drafts"] = drafts
    for parent in sweep["parents"].values():
        parent["model"] = str((DEMO.parent / parent["model"]).resolve())
    sweep["include_path"] = [str((DEMO.parent / each).resolve()) for each in sweep["include_path"]]
    path, out = tmp_path / f"drafts-{drafts}.yaml", tmp_path / f"drafts-{drafts}"
    path.write_text(yaml.safe_dump(sweep))
    subprocess.run([sys.executable, "-m", "orchestrator", "run", str(path), "--out", str(out)], cwd=ROOT, check=True)
    return out


def test_the_demo_has_the_same_answers_with_drafts(tmp_path: Path) -> None:
    """In float32 every text is the same; so are scores, log-probabilities to a rounding."""
    with_drafts, without = run(tmp_path, True), run(tmp_path, False)
    tables = [pq.read_table(out / "leaderboard.parquet") for out in (with_drafts, without)]
    costs = [name for name in tables[0].column_names if name in ("swap_s", "answer_s")]
    assert tables[0].drop_columns(costs).equals(tables[1].drop_columns(costs))
    said = re.search(r"([\d.]+) tokens a step", (with_drafts / "report.html").read_text())
    assert said and float(said[1]) > 1.5
    assert "tokens a step" not in (without / "report.html").read_text()
    print(f"{said[1]} tokens a step")
