"""examples/demo.yaml from end to end: recipes, an engine on the card as a Ray worker, the report."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

from benchmarks.common import ROOT, seconds
from benchmarks.gpu.models import finish, parse, step_parser


def main() -> None:
    args = parse(step_parser(__doc__, "small"))
    out = args.scratch / "out"
    command = [sys.executable, "-m", "orchestrator", "run", str(ROOT / "examples" / "demo.yaml"), "--out", str(out)]
    spent = seconds(partial(subprocess.run, command, check=True, env={**os.environ, "RAY_ADDRESS": "local"}))
    import pyarrow.parquet as pq

    rows = pq.read_table(out / "leaderboard.parquet").to_pylist()
    finish(
        {
            "recipes": len(rows),
            "run_s": round(spent, 1),
            "answering_s": round(sum(row["answer_s"] for row in rows), 1),
            "swapping_s": round(sum(row["swap_s"] for row in rows), 2),
            "on_front": sum(row["on_front"] for row in rows),
            "scores": {
                f"{row['method']} {row['parameters']}": [round(row[name], 3) for name in ("clinical", "instruction")]
                for row in rows
            },
        }
    )


if __name__ == "__main__":
    main()
