"""The driver's heartbeat, which shows on any machine whether a sweep is running.

The lock (`orchestrator.results.lock`) is the kernel's and ends with its process, but can be seen on that machine only.
So the driver also writes DIR/driver.json every few seconds; `status` reads it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import psutil

from orchestrator.core.files import read_json_if_exists, write_json
from orchestrator.results.layout import Layout

BEAT_S = 5.0
"""Seconds between two heartbeats."""
DEAD_S = 60.0
"""Seconds without a heartbeat after which a driver counts as dead; its clock may be another machine's."""


@dataclass(frozen=True)
class Driver:
    """The process that runs or ran a sweep, as DIR/driver.json has it."""

    host: str
    pid: int
    started: float
    """Seconds since the epoch, by the driver's clock."""
    seen: float
    """The last heartbeat: seconds since the epoch, by the driver's clock."""
    ended: bool = False
    """Whether it ended cleanly: done, stopped or interrupted."""

    @property
    def state(self) -> Literal["at work", "ended", "dead"]:
        """Whether it runs, has ended cleanly, or is dead: its process is gone or its last heartbeat is too old."""
        if self.ended:
            return "ended"
        gone = self.host == socket.gethostname() and not psutil.pid_exists(self.pid)
        return "dead" if gone or time.time() - self.seen > DEAD_S else "at work"


def read_driver(layout: Layout) -> Driver | None:
    """Read the latest driver of a results folder; None where there was none, or its file cannot be read."""
    try:
        fields = read_json_if_exists(layout.driver)
        return Driver(**fields) if fields else None
    except (ValueError, TypeError):
        return None


@contextlib.contextmanager
def driving(layout: Layout) -> Iterator[None]:
    """Write a heartbeat every `BEAT_S` seconds, and a last one at the end."""
    started, over = time.time(), threading.Event()

    def beat(ended: bool) -> None:
        # A full disk costs the heartbeat, not the sweep: where an answer cannot be stored, that raises an error.
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
