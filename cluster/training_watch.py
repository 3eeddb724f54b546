"""Watching a worker group of fine-tuning, which reports nothing to the driver until it ends."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from cluster.nodes import kill_on
from cluster.timeouts import Timeout
from orchestrator.core.progress import say
from tasks.finetuning.run import Run


class Watch:
    """Watches the files of a worker group's runs, which change as it makes progress.

    Args:
        reference: Ray's reference of the task that runs the group.
        share: its runs.
        patience: seconds without a change that are always allowed.
    """

    def __init__(self, reference: Any, share: Sequence[Run], patience: float) -> None:
        self.reference, self.share, self.timeout = reference, share, Timeout(patience)
        self.verdict = ""
        """Why it was ended; empty where it was not."""
        self._changes, self._since, self._has_started = self._read(), time.monotonic(), False

    def check(self) -> None:
        """End the group where nothing has changed for far longer than ever before."""
        now, changes = time.monotonic(), self._read()
        if not self._processes():  # it waits for room in the cluster, as long as that takes
            self._since = now
        elif changes != self._changes:
            if self._has_started:  # the first change, the start, does not show how long its steps take
                self.timeout.observe(now - self._since)
            self._changes, self._since, self._has_started = changes, now, True
        if now - self._since > self.timeout.limit() and not self.verdict:
            self.verdict = f"no step for {now - self._since:.0f} s, far longer than one ever took before"
            say(f"fine-tuning hangs ({self.verdict}): its processes are ended and started again")
            self.end()

    def end(self) -> list[Any]:
        """Kill the group's processes; its runs can be resumed from their last checkpoints.

        Returns:
            Ray's references, which are ready when the processes have ended.
        """
        notes = [json.loads(file.read_text(encoding="utf-8")) for file in self._processes()]
        killed = [kill_on(node, pid) for node, pid in {(note["node"], note["pid"]) for note in notes}]
        ray.cancel(self.reference, force=True)
        return [*killed, self.reference]

    def _processes(self) -> list[Path]:
        return [file for run in self.share for file in run.files.processes]

    def _read(self) -> dict[Path, int]:
        notes = [file for run in self.share for file in (run.files.progress, run.files.result)]
        changes = {}
        for file in (*notes, *self._processes()):
            with contextlib.suppress(FileNotFoundError):  # a run's progress is removed when it is finished
                changes[file] = file.stat().st_mtime_ns
        return changes
