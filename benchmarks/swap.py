"""How long until an engine is ready to answer a new recipe: live merging against what people do today.

    ours      a recipe merged straight into the running engine
    floor     the same engine's reload_weights, fed with tensors that are ready in memory
    reload    `mergekit-yaml`, then reload_weights from its folder
    restart   `mergekit-yaml`, then a new engine in a new process

    .venv/bin/python benchmarks/swap.py --parents FOLDER FOLDER [--method slerp] [--repeat 5]

The parents are two folders of one architecture (default: those of examples/smollm2, as `make smollm2` leaves them).
The last line is JSON: `ratio` is restart's median over ours, `over_floor` ours over the floor; all times in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.config import Engine, Workers
from orchestrator.recipe import Recipe, Source
from orchestrator.records import Serving
from tasks.engine import VllmEngine
from tasks.merge import merged_folder
from tasks.weights import read_tensor

MODELS = Path(__file__).resolve().parents[1] / "examples" / "smollm2" / "models"
START = """
import sys
from pathlib import Path
from benchmarks.swap import start
start(*map(Path, sys.argv[1:]))
"""


def start(folder: Path, tokenizer: Path, scratch: Path) -> VllmEngine:
    serving = Serving("t", None, (), 2048, "x", (), "a", str(folder))
    workers = Workers(gpus=0.0, engine=Engine(enforce_eager=True))
    return VllmEngine(folder, tokenizer, serving, "bfloat16", workers, scratch)


def reload_ready(worker: Any) -> float:
    """In vLLM's worker: reload_weights from tensors that wait in memory; seconds."""
    tensors = [(name, read_tensor(file, name).clone()) for name, (file, _) in worker._boot.items()]

    def reload() -> None:
        worker.reload_weights(weights_iterator=iter(tensors), is_checkpoint_format=True)
        worker._retie()

    return seconds(reload)


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def recipe(method: str, parents: list[Source], ratio: float) -> Recipe:
    first, second = parents
    if method == "linear":
        models = ((first, {"weight": 1 - ratio}), (second, {"weight": ratio}))
        return Recipe("linear", models, first, {}, "bfloat16")
    return Recipe("slerp", ((first, {}), (second, {})), first, {"t": ratio}, "bfloat16")


def mergekit_yaml(wanted: Recipe, folder: Path) -> Path:
    """The command line, as its users run it."""
    config = folder.with_suffix(".yaml")
    config.write_text(wanted.to_yaml())
    command = [str(Path(sys.executable).with_name("mergekit-yaml")), str(config), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def measure(args: argparse.Namespace, scratch: Path) -> dict[str, list[float]]:
    parents = [Source(f"digest-{i}", f"p{i}", str(folder)) for i, folder in enumerate(args.parents)]
    engine = start(args.parents[0], args.parents[1], scratch / "engine")
    ratios = [round(0.1 + 0.8 * i / args.repeat, 3) for i in range(args.repeat)]
    engine.hold(recipe(args.method, parents, 0.95))  # opens the parents and, for SLERP, measures their angles
    times: dict[str, list[float]] = {name: [] for name in ("ours", "floor", "reload", "restart")}
    for index, ratio in enumerate(ratios):
        wanted = recipe(args.method, parents, ratio)
        times["ours"].append(seconds(lambda wanted=wanted: engine.hold(wanted)))
        times["floor"].append(engine.llm.collective_rpc(reload_ready)[0])
        folder = scratch / f"merged-{index}"
        merging = seconds(lambda wanted=wanted, folder=folder: mergekit_yaml(wanted, folder))
        times["reload"].append(merging + seconds(lambda folder=folder: engine.load(folder)))
        command = [sys.executable, "-c", START, str(folder), str(args.parents[1]), str(scratch / "fresh")]
        booting = seconds(lambda command=command: subprocess.run(command, check=True, capture_output=True))
        times["restart"].append(merging + booting)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parents", type=Path, nargs=2, help="two checkpoint folders")
    parser.add_argument("--method", choices=["linear", "slerp"], default="linear")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    with tempfile.TemporaryDirectory() as folder:
        if args.parents is None:
            adapted = Source("d", "clinical", str(MODELS / "instruct"), None, str(MODELS / "adapter"))
            args.parents = [merged_folder(adapted, folder), MODELS / "instruct"]
        times = measure(args, Path(folder))
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:8} median {median[name]:.3f} s  ({min(values):.3f} to {max(values):.3f})")
    result = {
        "benchmark": f"swap {args.method}",
        "ratio": round(median["restart"] / median["ours"], 1),
        "over_floor": round(median["ours"] / median["floor"], 2),
        **{f"{name}_s": round(value, 3) for name, value in median.items()},
        "repeat": args.repeat,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.python_version()}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
