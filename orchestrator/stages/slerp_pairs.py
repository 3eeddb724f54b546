"""How much of each SLERP pair is not simply linear: one pass over the parents, beside the sweep, once a pair."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

from orchestrator.config.backends import BACKENDS
from orchestrator.config.methods import METHODS
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.files import write_json
from orchestrator.core.text import one_line
from orchestrator.recipes.recipe import Source
from tasks.merging.checkpoint import slerp_share


def unknown_shares(config: SweepConfig, sources: dict[str, Source], file: Path) -> dict[str, tuple[Source, Source]]:
    """List the SLERP pairs of the sweep that are not in the file yet, or were measured on other weights.

    Args:
        file: slerp.json, which `slerp_shares` writes.
    """
    if not BACKENDS[config.workers.backend].measures:
        return {}
    known = _known(file)
    arcs = {name for name, method in METHODS.items() if method.ratio and method.ratio.arc}
    pairs = [grid.between or list(config.parents)[:2] for grid in config.recipes if grid.ratio and grid.method in arcs]
    wanted = {f"{first}/{second}": (sources[first], sources[second]) for first, second in pairs}
    return {pair: both for pair, both in wanted.items() if known.get(pair, {}).get("digests") != _digests(both)}


@contextlib.contextmanager
def slerp_shares(
    wanted: dict[str, tuple[Source, Source]], file: Path, scratch: Path, log: Callable[[str], None]
) -> Iterator[None]:
    """Start the passes on entry, and write the file on exit: `first/second` → `tasks.merging.checkpoint.slerp_share`.

    A pass that fails is logged, and tried again by the next run; the sweep does without.

    Args:
        wanted: as `unknown_shares` lists them.
        scratch: a folder for parents with an adapter merged in.
    """
    known, failed = _known(file), dict[str, Exception]()

    def measure() -> None:
        for pair, both in wanted.items():
            try:
                found = slerp_share(*both, str(scratch / pair.replace("/", "-")))
            except Exception as error:  # of a full disk, a damaged file, mergekit
                failed[pair] = error
            else:
                known[pair] = {**found, "digests": _digests(both)}

    # This process waits for the workers most of the time; another one would first have to load torch and mergekit.
    passes = Thread(target=measure, daemon=True)
    passes.start()
    yield
    passes.join()
    for pair, error in failed.items():
        log(f"how {pair} differ could not be measured: {one_line(error, 300)}")
    if wanted:
        write_json(file, known)


def _known(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _digests(pair: tuple[Source, Source]) -> list[str]:
    return [source.digest for source in pair]
