"""Runs a folder of cases, and prints for each what mergefront answers now beside what it answered when it was written.

A case is a folder with `make.py`, which writes its input to ./made, and `case.md`, which says in paragraphs that begin
with **Input**, **Right**, **Today** and **Kind** what is tried, what the right answer is, and what the answer was. Its
command is in `run.sh`, or in backquotes in the paragraph **Input**, where `<id>` stands for a recipe of the leaderboard
(a candidate of the search, if there is one), NAME for each sweep file in ./made, and CHECKOUT for this repository. The
cases run in a copy.

    python -m benchmarks.cases FOLDER [CASE …]      (make cases CASES=FOLDER)

The table is Markdown; whether an answer is right is for the reader to say. The exit status is 1 if a command ended in a
traceback or ran out of time, which is never right.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 900
COMMAND = re.compile(r"`((?:cd \S+ && )?(?:[A-Z_]+=\S+ )*(?:python make\.py|mergefront [a-z]+ )[^`]*)`")
"""A command in the text of a case."""
MAKE = "python make.py"
QUIET = ("WARNING", "INFO", "Warning", "warnings.warn", "[transformers]")
"""Parts of lines that libraries print, and that are no answer."""
WIDTH = 200
"""Most characters of an answer in the table."""


@dataclass(frozen=True)
class Outcome:
    """What a case's commands came to."""

    case: str
    today: str
    """The answer when the case was written, as it says."""
    exit_code: int
    """That of the last command that ran; 124 where it ran out of time."""
    answer: str
    """The last line that was printed."""

    @property
    def is_never_right(self) -> bool:
        """Whether it ended in a traceback or ran out of time."""
        return self.exit_code == 124 or "Traceback" in self.answer


def paragraph(text: str, name: str) -> str:
    """Return the paragraph of case.md that begins with a bold word, in one line; empty where there is none."""
    found = re.search(rf"^(?:- )?\*\*{name}\*?\*?\.?\*?\*?:?(.*?)(?=^(?:- )?\*\*|\Z)", text, re.DOTALL | re.MULTILINE)
    return " ".join(found[1].strip("* .:").split()) if found else ""


def commands(folder: Path) -> list[str]:
    """List the shell commands of a case, in their order."""
    if (folder / "run.sh").exists():
        return ["bash run.sh"]
    found = COMMAND.findall(paragraph((folder / "case.md").read_text(encoding="utf-8"), "Input"))
    if not any(command.startswith(MAKE) for command in found):
        found.insert(0, MAKE)
    only_makes = all(command.startswith(MAKE) for command in found)
    is_checked_by_make = any("CHECKOUT" in command for command in found)
    return [*found, *(["mergefront plan made/sweep.yaml"] if only_makes and not is_checked_by_make else [])]


def filled(command: str, folder: Path) -> list[str]:
    """Put what is there now in the place of a command's placeholders."""
    command = command.replace("CHECKOUT", shlex.quote(str(ROOT)))
    if "<id>" in command:
        command = command.replace("<id>", _recipe(folder / "out"))
    if "NAME" in command:
        return [command.replace("NAME", file.stem) for file in sorted((folder / "made").glob("*.yaml"))]
    return [command]


def _recipe(out: Path) -> str:
    rows = pq.read_table(out / "leaderboard.parquet").to_pylist()
    candidates = {file.stem for file in (out / "search" / "candidates").glob("*.json")}
    return str(next((row["recipe_id"] for row in rows if row["recipe_id"] in candidates), rows[-1]["recipe_id"]))


def run_case(folder: Path) -> Outcome:
    """Run a case in its folder, up to the first command that fails."""
    environment = {
        "RAY_ADDRESS": "local",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "MERGEFRONT_TRUST": str(folder),
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    today = paragraph((folder / "case.md").read_text(encoding="utf-8"), "Today")
    code, answers = 0, []
    for command in commands(folder):
        for one in filled(command, folder):
            code, answer = _run(one, folder, environment)
            answers.append(answer)
        if code:
            break
    return Outcome(folder.name, today, code, " / ".join(answers[1:] if len(answers) > 1 else answers))


def _run(command: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run one command; returns its exit code, and its last line or where its traceback ended."""
    try:
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, timeout=LIMIT_S, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        return 124, f"no end after {LIMIT_S} s"
    printed = (done.stdout + done.stderr if done.returncode else done.stderr + done.stdout).decode(errors="replace")
    lines = [line for line in re.split(r"[\n\r]", printed) if line.strip() and not any(part in line for part in QUIET)]
    last = (lines or ["(nothing printed)"])[-1].replace(str(folder), "…").removeprefix("mergefront: error: ")
    return done.returncode, ("Traceback … " if "Traceback (most" in printed else "") + last


def row(cells: list[str]) -> str:
    """Format a row of the table."""
    short = [cell if len(cell) <= WIDTH else cell[:WIDTH] + " …" for cell in cells]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in short) + " |"


def main() -> int:
    """Run the cases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of cases")
    parser.add_argument("case", nargs="*", help="names of cases (default: all)")
    args = parser.parse_args()
    never_right = 0
    print(row(["case", "when it was written", "exit", "now"]), row(["---"] * 4), sep="\n")
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "cases"
        shutil.copytree(args.folder, copy)
        subprocess.run(["chmod", "-R", "u+w", copy], check=True)
        for file in sorted(copy.glob("*/case.md")):
            if not args.case or file.parent.name in args.case:
                outcome = run_case(file.parent)
                never_right += outcome.is_never_right
                print(row([outcome.case, outcome.today, str(outcome.exit_code), outcome.answer]), flush=True)
    return 1 if never_right else 0


if __name__ == "__main__":
    sys.exit(main())
