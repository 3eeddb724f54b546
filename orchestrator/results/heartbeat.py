"""A driver's sign of life, for those who look from another machine.

The lock (`orchestrator.results.lock`) is the kernel's and dies with its process, but is seen on this machine alone. So
the driver also writes DIR/driver.json every few seconds; `status` reads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import psutil

from orchestrator.core.files import write_json
from orchestrator.results.layout import Layout

BEAT_S = 5.0
"""Seconds between two signs of life."""
DEAD_S = 60.0
"""Seconds without one after which a driver counts as dead; its clock may be another machine's."""


@dataclass(frozen=True)
class Driver:
    """What DIR/driver.json says."""

    host: str
    pid: int
    started: float
    seen: float
    """Seconds since the epoch, both by the driver's clock."""
    ended: bool = False
    """It left in good order: done, stopped or interrupted."""

    @property
    def state(self) -> Literal["at work", "ended", "dead"]:
        if self.ended:
            return "ended"
        gone = self.host == socket.gethostname() and not psutil.pid_exists(self.pid)
        return "dead" if gone or time.time() - self.seen > DEAD_S else "at work"


def read_driver(layout: Layout) -> Driver | None:
    """The driver that was here last; None where there was none."""
    try:
        return Driver(**json.loads(layout.driver.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


@contextlib.contextmanager
def driving(layout: Layout) -> Iterator[None]:
    """Give a sign of life every `BEAT_S` seconds, and a last one at the end."""
    started, over = time.time(), threading.Event()

    def beat(ended: bool) -> None:
        # A full disk costs the sign of life, not the sweep: what it must store says so itself.
        with contextlib.suppress(OSError):
            write_json(layout.driver, asdict(Driver(socket.gethostname(), os.getpid(), started, time.time(), ended)))

    def keep_beating() -> None:
        beat(False)
        while not over.wait(BEAT_S):
            beat(False)

    thread = threading.Thread(target=keep_beating, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        beat(True)
