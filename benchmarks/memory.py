"""What swapping costs in memory, on the CPU: the peak while recipes are merged into a running engine.

    .venv/bin/python -m benchmarks.memory [--method linear] [--swaps 5]

The last line is JSON, in 10^6 bytes: `before` is the engine with its weights and KV cache after it has answered, no
parent opened yet; `peak` the most that was resident during the swaps, memory-mapped parents included; `ratio` is
before + parents over the peak, so that 0.91 and more is within 10 %. `planned` is what `mergefront plan` says of such
an engine, parents included.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import tempfile
from pathlib import Path

from benchmarks.common import MEASURED, WORKERS, recipe, smollm2, start
from orchestrator.core.records import Question
from orchestrator.models.configs import read_model_config
from orchestrator.models.formats import read_plain_config
from orchestrator.models.headers import read_headers, weight_files
from orchestrator.sizing.layouts import host_bytes_needed
from orchestrator.sizing.placement import shape_of

STATUS = Path("/proc/self/status")


def resident(key: str) -> float:
    """`VmRSS` now or `VmHWM` at most since the last reset, in 10^6 bytes."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=MEASURED, default="linear")
    parser.add_argument("--swaps", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parents = smollm2(Path(folder))
        engine = start(parents[0], parents[1], Path(folder) / "engine")
        questions = [Question(tuple(range(10 + i, 200 + i)), (token,)) for i in range(100) for token in range(4)]
        engine.answer(questions)
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from now on
        for index in range(args.swaps):
            engine.load(recipe(args.method, parents, (index + 1) / (args.swaps + 1)))
        peak = resident("VmHWM")
        parameters = sum(math.prod(header.shape) for header in read_headers("parents", parents[0]).values())
        shape = shape_of(
            read_model_config("parents", read_plain_config("parents", parents[0] / "config.json")).sizes,
            parameters,
            "bfloat16",
        )
        size = sum((parent / file).stat().st_size for parent in parents for file in weight_files(parent)) / 1e6
    result = {
        "benchmark": f"memory {args.method}",
        "ratio": round((before + size) / peak, 3),
        "before": round(before),
        "parents": round(size),
        "peak": round(peak),
        "planned": round(host_bytes_needed(WORKERS, shape) / 1e6 + size),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
