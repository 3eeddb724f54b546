"""Ray, joined or started: an existing cluster when RAY_ADDRESS names one, else a local one that ends with us."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.config import UserError
from orchestrator.files import make_private

PACKAGES = ("orchestrator", "tasks", "tune", "cluster")
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Nobody's usage is reported to anyone, and workers do not talk over the progress bar."""


def quiet() -> None:
    """Set `QUIET` where nothing else is set. Libraries read these when they are imported: call it before any is."""
    os.environ.update({key: os.environ.get(key, value) for key, value in QUIET.items()})


def check_packages() -> None:
    """The four packages have common names; say so when another distribution's stands in the way.

    Raises:
        UserError: one of them is not the one beside this file.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
        if found != home:
            raise UserError(
                f"the package {name!r} would be imported from {found}, not from {home}; another distribution has "
                "the same name: run mergefront from its own environment (make setup), without PYTHONPATH"
            )


@contextlib.contextmanager
def session(spill: Path | None = None) -> Iterator[None]:
    """Ray for the time of a sweep. A cluster that was there before is left running.

    Args:
        spill: where a cluster of our own writes objects that do not fit into memory: they may hold clinical text.
    """
    quiet()
    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    # A local cluster is nobody else's business: it listens on loopback alone and shows no dashboard.
    local: dict[str, Any] = {}
    if address == "local":
        local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        if spill is not None:
            local["object_spilling_directory"] = str(make_private(spill))
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": dict(QUIET)},
        **local,
    )
    if threading.current_thread() is threading.main_thread():
        # Ray took this over on the way; Slurm's and Kubernetes' SIGTERM is an interruption like Ctrl-C.
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        ray.shutdown()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt
