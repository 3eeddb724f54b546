"""How much of each SLERP pair is not simply linear: one pass over the parents, beside the sweep, once a pair."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import ray

from orchestrator.config import SweepConfig
from orchestrator.files import write_json
from orchestrator.recipe import Source
from tasks.merge import slerp_share


@contextlib.contextmanager
def slerp_shares(config: SweepConfig, sources: dict[str, Source], out: Path) -> Iterator[None]:
    """Start the passes on entry, write `out/slerp.json` (`first/second` → tasks.merge.slerp_share) on exit.

    Raises:
        RayTaskError: a parent could not be read.
    """
    file = out / "slerp.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    wanted = {}
    if config.workers.backend == "vllm":
        for grid in config.recipes:
            if grid.method == "slerp" and grid.models is None:
                first, second = grid.between or list(config.parents)[:2]
                wanted[f"{first}/{second}"] = (sources[first], sources[second])
    task = ray.remote(num_cpus=0)(slerp_share)
    scratch = str(out / "checkpoints" / "scratch" / "shares")
    started = {
        pair: task.remote(*both, scratch)
        for pair, both in wanted.items()
        if known.get(pair, {}).get("digests") != [source.digest for source in both]
    }
    yield
    for pair, reference in started.items():
        known[pair] = {**ray.get(reference), "digests": [source.digest for source in wanted[pair]]}
    if started:
        write_json(file, known)
