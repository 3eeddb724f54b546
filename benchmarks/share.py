"""The share of the workers' time that goes to answering, in a sweep of 20 recipes with 500 lettered questions each.

    .venv/bin/python -m benchmarks.share [--recipes 20] [--questions 500]

SmolLM2-135M and MedMCQA, `mergefront run` from the command line. The last line is JSON: `share` is the time spent
answering over that and the time spent putting recipes into the engine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import DATA, MODELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=20)
    parser.add_argument("--questions", type=int, default=500)
    args = parser.parse_args()
    model = str(MODELS / "instruct")
    parents = {"clinical": {"model": model, "lora": str(MODELS / "adapter")}, "instruct": {"model": model}}
    with tempfile.TemporaryDirectory() as folder:
        inner = args.recipes - 2  # the parents are two of them
        grid = {"start": 1 / (inner + 1), "stop": inner / (inner + 1), "step": 1 / (inner + 1)}
        sweep = {
            "parents": parents,
            "recipes": [{"method": "slerp", "t": grid}],
            "objectives": {"letters": {"tasks": ["medmcqa"], "metric": "acc", "limit": args.questions}},
            "data_root": str(DATA),
            "tokenizer": "instruct",
            "workers": {"count": 1, "cpus": os.cpu_count(), "engine": {"max_model_len": 2048, "enforce_eager": True}},
        }
        path, out = Path(folder) / "sweep.yaml", Path(folder) / "run"
        path.write_text(json.dumps(sweep))  # JSON is YAML
        command = [str(Path(sys.executable).with_name("mergefront")), "run", str(path), "--out", str(out)]
        subprocess.run(command, check=True)
        import pyarrow.parquet as pq

        rows = pq.read_table(out / "leaderboard.parquet").to_pylist()
    answering, swapping = (sum(row[key] for row in rows) for key in ("answer_s", "swap_s"))
    result = {
        "benchmark": "share",
        "share": round(answering / (answering + swapping), 4),
        "answering_s": round(answering, 1),
        "swapping_s": round(swapping, 1),
        "recipes": len(rows),
        "questions": args.questions,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
