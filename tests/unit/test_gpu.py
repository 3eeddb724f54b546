"""`make gpu`: a step that fails, hangs or is not there is a line of the results, and the next one runs all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import STEPS, Step, run
from tests.helpers.paths import ROOT

SLEEP = ("-n", "1", "-r", "1", "import time; time.sleep(60)")
PLAIN = ("-n", "1", "-r", "1", "1")


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("json.tool", ("--compact", "FILE"), {"ok": True, "equal": 3}),
        ("json.tool", ("--compact", "GONE"), {"ok": False, "error": "exit code "}),
        ("timeit", SLEEP, {"ok": False, "error": "killed after 2 s: "}),
        ("timeit", PLAIN, {"ok": False, "error": "it printed no result: "}),
        ("benchmarks.gone", (), {"skipped": "there is no benchmarks.gone"}),
    ],
    ids=["result", "failure", "hang", "silence", "absence"],
)
def test_what_becomes_of_a_step(
    module: str, arguments: tuple[str, ...], expected: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "FILE").write_text(json.dumps({"equal": 3}))
    given = tuple(str(tmp_path / each) if each in ("FILE", "GONE") else each for each in arguments)
    line = run(Step("step", 60, module, given), False, tmp_path, 2 if arguments == SLEEP else 60)
    assert line["step"] == "step"
    for key, value in expected.items():
        assert line[key].startswith(value) if key == "error" else line[key] == value


def test_the_steps_are_those_of_the_documentation_and_fit_into_the_time() -> None:
    listed = [line.split("`")[1] for line in (ROOT / "docs" / "gpu.md").read_text().splitlines() if "| `" in line]
    assert listed == [step.name for step in STEPS]
    assert len({step.name for step in STEPS}) == len(STEPS)
