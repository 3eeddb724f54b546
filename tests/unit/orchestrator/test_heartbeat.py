"""A driver's sign of life."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from orchestrator.results.heartbeat import read_driver
from orchestrator.results.layout import Layout
from tests.helpers.paths import ROOT


def test_a_driver_that_was_killed_is_dead_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib, time; from orchestrator.results.heartbeat import *\nfrom orchestrator.results.layout import Layout\nwith driving(Layout(pathlib.Path(sys.argv[1]))): time.sleep(60)"
    driver = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
    while (found := read_driver(Layout(tmp_path))) is None:
        time.sleep(0.02)
    assert found.state == "at work" and found.pid == driver.pid
    driver.kill()
    driver.wait()
    after = read_driver(Layout(tmp_path))
    assert after is not None and after.state == "dead"
