"""The contract suites of engines and of live merging, with the engines on the card (tests/contracts)."""

from __future__ import annotations

import re
import subprocess
import sys

from benchmarks.common import ROOT
from benchmarks.gpu.models import finish, parse, step_parser

SUITES = ["tests/contracts/test_engine.py", "tests/contracts/test_live.py"]
LEFT_OUT = ("fake", "mistral", "qwen", "tied", "bytes", "pieces", "architecture", "quantised", "place")
CHOSEN = " and ".join(f"not {word}" for word in LEFT_OUT)
"""The engine tests of one architecture, each engine on a tenth of the card to the end of the session; none of merges
without an engine, nor of how parameters are packed on CPUs."""


def main() -> None:
    parse(step_parser(__doc__, "small"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:warnings", "-p", "no:cacheprovider", "-k", CHOSEN]
    found = subprocess.run([*command, *SUITES], cwd=ROOT, capture_output=True, text=True)
    print(found.stdout, found.stderr, sep="\n")
    lines = found.stdout.splitlines()
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", lines[-1])}
    failed = [line.removeprefix("FAILED ")[:200] for line in lines if line.startswith(("FAILED", "ERROR"))]
    finish({**counts, "which": failed})
    raise SystemExit(found.returncode)


if __name__ == "__main__":
    main()
