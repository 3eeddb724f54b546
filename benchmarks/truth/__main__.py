"""Run every part, two at a time."""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

PARTS = ("search", "finetune", "front")


def run(part: str, quick: bool) -> tuple[str, dict[str, float], float]:
    start = time.monotonic()
    figures: dict[str, float] = import_module(f"benchmarks.truth.{part}").measure(quick)
    return part, figures, time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=import_module("benchmarks.truth").__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer draws: whether it runs, not what it measures")
    quick = parser.parse_args().quick
    found: dict[str, float] = {}
    with ProcessPoolExecutor(2) as pool:
        for part, figures, seconds in pool.map(run, PARTS, [quick] * len(PARTS)):
            print(f"{part}: {seconds:.0f} s", flush=True)
            found |= figures
    print(json.dumps({key: round(value, 4) for key, value in found.items()}))


if __name__ == "__main__":
    main()
