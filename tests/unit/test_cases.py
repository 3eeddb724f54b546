"""`make cases` finds a case's commands, and what it answered, in the forms that cases have."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cases import commands, run_case

PROSE = """# A case

- **Input**: something (`python make.py`; then `mergefront plan made/sweep.yaml`, as `plan` does).
- **Right**: refused.
- **Today**: accepted, exit 0; `mergefront run made/sweep.yaml` fails.
- **Kind**: a kind.
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PROSE, ["python make.py", "mergefront plan made/sweep.yaml"]),
        (PROSE.replace("`mergefront", "`cd made && A=1 mergefront", 1), ["python make.py", "cd made && A=1 mergefront plan made/sweep.yaml"]),
        ("**Input.** Something.\n**Today.** Exit 0.\n", ["python make.py", "mergefront plan made/sweep.yaml"]),
        ("**Input.** `python make.py CHECKOUT`.\n**Today.** Exit 0.\n", ["python make.py CHECKOUT"]),
    ],
)  # fmt: skip
def test_commands_in_the_text_of_a_case(text: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "case.md").write_text(text)
    assert commands(tmp_path) == expected


def test_a_case_ends_at_its_first_error(tmp_path: Path) -> None:
    (tmp_path / "case.md").write_text(
        "**Input.** `python make.py`, `mergefront plan made/sweep.yaml`.\n**Today.** Exit 0.\n"
    )
    (tmp_path / "make.py").write_text("raise SystemExit('no input here')")
    outcome = run_case(tmp_path)
    assert (outcome.today, outcome.exit_code, outcome.answer) == ("Exit 0.", 1, "no input here")
    (tmp_path / "run.sh").write_text("python -c '1/0'")
    assert run_case(tmp_path).is_never_right
