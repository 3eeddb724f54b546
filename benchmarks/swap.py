"""How long until an engine is ready to answer a new recipe: live merging against what people do today.

    ours      a recipe merged straight into the running engine
    floor     the same engine's reload_weights, fed with tensors that are ready in memory
    reload    `mergekit-yaml`, then reload_weights from its folder
    restart   `mergekit-yaml`, then a new engine in a new process

    .venv/bin/python -m benchmarks.swap --parents FOLDER FOLDER [--method slerp] [--repeat 5]

The parents are two folders of one architecture (default: those of examples/smollm2, as `make smollm2` leaves them).
The last line is JSON: `ratio` is restart's median over ours, `over_floor` ours over the floor; all times in seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import MEASURED, ROOT, mergekit_yaml, recipe, seconds, smollm2, start, tell
from orchestrator.models.headers import read_tensor

START = """
import sys
from functools import partial
from pathlib import Path
from benchmarks.common import start
start(*map(Path, sys.argv[1:]))
"""


def reload_ready(worker: Any) -> float:
    """In vLLM's worker: reload_weights from tensors that wait in memory; seconds."""
    tensors = [(name, read_tensor(worker._folder / header.file, name).clone()) for name, header in worker._boot.items()]

    def reload() -> None:
        worker.reload_weights(weights_iterator=iter(tensors), is_checkpoint_format=True)
        worker._retie()

    return seconds(reload)


def measure(args: argparse.Namespace, scratch: Path) -> dict[str, list[float]]:
    engine = start(args.parents[0], args.parents[1], scratch / "engine")
    recipes = [recipe(args.method, args.parents, round(0.1 + 0.8 * i / args.repeat, 3)) for i in range(args.repeat)]
    engine.load(recipe(args.method, args.parents, 0.95))  # opens the parents and, for SLERP, measures their angles
    times: dict[str, list[float]] = {name: [] for name in ("ours", "floor", "reload", "restart")}
    # Side by side, before what takes minutes: an engine in a sweep comes from answering, not from a long sleep.
    for wanted in recipes:
        times["ours"].append(seconds(partial(engine.load, wanted)))
        times["floor"].append(engine.llm.collective_rpc(reload_ready)[0])
    for index, wanted in enumerate(recipes):
        folder = scratch / f"merged-{index}"
        merging = seconds(partial(mergekit_yaml, wanted, folder))
        times["reload"].append(merging + seconds(partial(engine.load_checkpoint, folder)))
        command = [sys.executable, "-c", START, str(folder), str(args.parents[1]), str(scratch / "fresh")]
        booting = seconds(partial(subprocess.run, command, check=True, capture_output=True))
        times["restart"].append(merging + booting)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parents", type=Path, nargs=2, help="two checkpoint folders")
    parser.add_argument("--method", choices=MEASURED, default="linear")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        args.parents = args.parents or smollm2(Path(folder))
        times = measure(args, Path(folder))
    over_floor = statistics.median(times["ours"]) / statistics.median(times["floor"])
    tell(f"swap {args.method}", "ours", "restart", times, over_floor=round(over_floor, 2))


if __name__ == "__main__":
    main()
