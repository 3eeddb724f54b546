"""Commands as users give them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from tests.helpers.paths import ROOT
from tests.helpers.results import finished

Run = Callable[..., tuple[str, str]]
"""The fixture `mergefront`."""


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "orchestrator", *map(str, args)]


def command_line(*args: object, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as users do."""
    done = subprocess.run(command(*args), cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def start(path: Path, out: Path) -> subprocess.Popen[bytes]:
    def listen_to_interrupts() -> None:
        # A job in the background of a script is started deaf to SIGINT, and would hand that down.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        command("run", path, "--out", out),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=listen_to_interrupts,
    )


def wait_for_blocks(running: subprocess.Popen[bytes], out: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while len(finished(out)) < count:
        assert running.poll() is None, "it ended before it was interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refused(path: Path, capsys: pytest.CaptureFixture[str], expected: str) -> None:
    """`plan` refuses a sweep file with one message."""
    assert main(["plan", str(path)]) == 2
    message = capsys.readouterr().err
    assert expected in " ".join(message.split())
    assert "Traceback" not in message
    assert message.count("mergefront: error:") == 1
