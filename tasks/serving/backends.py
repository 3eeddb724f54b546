"""The engines, by the name of their backend.

To add one: an entry in `orchestrator.config.backends`, a module with its engine beside this one, and a function here
that opens it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config.workers import Workers
from orchestrator.core.records import Serving
from tasks.serving.boot import Boot
from tasks.serving.engine import Engine
from tasks.serving.fake import FakeEngine


@dataclass(frozen=True)
class Opening:
    """What an engine may need to start.

    Args:
        boot: brings the models to this node and says what the engine starts with; only for engines that load weights.
        scratch: folder of this worker alone, for parents with an adapter merged in.
        keep: folder to keep merged checkpoints in, or None to write none.
    """

    workers: Workers
    serving: Serving
    boot: Callable[[], Boot]
    scratch: Path
    keep: Path | None = None


def open_engine(opening: Opening) -> Engine:
    """Start an engine of the sweep's backend.

    Raises:
        UserError: a parent is not available on this node, or the engine does not fit.
        Exception: whatever the backend raises when the settings do not go together.
    """
    return OPENERS[opening.workers.backend](opening)


def _open_vllm(opening: Opening) -> Engine:
    # A guard: this module imports torch at its top, which the fake backend does not need.
    from tasks.serving.vllm_engine import VllmEngine

    return VllmEngine(opening.boot(), opening.serving, opening.scratch, opening.keep)


def _open_fake(opening: Opening) -> Engine:
    return FakeEngine(opening.workers.fake_seconds, opening.workers.fake_gib)


OPENERS: dict[str, Callable[[Opening], Engine]] = {"vllm": _open_vllm, "fake": _open_fake}
"""Backend → the function that opens its engine."""
