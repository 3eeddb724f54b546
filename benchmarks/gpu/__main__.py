"""Everything that only a GPU can show, in one command of under 9 minutes, without a network.

    .venv/bin/python -m benchmarks.gpu [--steps swap sleep …] [--budget 530] [--results FILE]

Each step is a process of its own with a limit of its own; what fails or runs too long does not stop the rest. The last
line of a step is JSON. With the card, the versions and the seconds it took it becomes one line of the results, which
are appended as soon as they are there. Steps that need no more than cores run without a GPU too, on smaller models.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.session import QUIET
from orchestrator.config.backends import BACKENDS
from orchestrator.core.packages import HOME
from tasks.device import device_name

BUDGET_S = 530.0
SLOWER = 5
"""How much longer everything may take without a GPU, where nobody waits for a card."""
MODEL_BYTES = 33e9
"""Bytes of the largest models that a step makes: two of 8B in bfloat16."""
RESULTS = HOME / "benchmarks" / "data" / "gpu.jsonl"
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "RAY_ADDRESS": "local", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True)
class Step:
    """One step: a module that prints a line of JSON, which takes `--gpu` and `--scratch`."""

    name: str
    limit_s: float
    """Seconds after which its processes are killed."""
    module: str = ""
    arguments: tuple[str, ...] | None = None
    """Its own, for a program that has neither `--gpu` nor `--scratch`."""
    needs: Path | None = None
    """A folder without which it is skipped."""

    def command(self, gpu: bool, scratch: Path) -> list[str]:
        """Return the command that runs it."""
        module = self.module or f"benchmarks.gpu.{self.name}"
        ours = ["--scratch", str(scratch), *(["--gpu"] if gpu else [])]
        return [sys.executable, "-m", module, *(ours if self.arguments is None else self.arguments)]


STEPS = [
    Step("speed", 60),
    Step("merges", 100),
    Step("swap", 200),
    Step("sleep", 80),
    Step("sweep", 150),
    Step("memory", 80),
    Step("lora", 100),
    Step("drafts", 120, "benchmarks.drafts", (), HOME / "examples" / "smollm2" / "models"),
    Step("contracts", 200),
]
"""In the order of what a card is needed for most: where the time is short, the last ones get what is left of it."""


def run(step: Step, gpu: bool, scratch: Path, limit_s: float) -> dict[str, Any]:
    """Run a step, and return its line: its own result, or what went wrong."""
    if step.module and importlib.util.find_spec(step.module) is None:
        return {"step": step.name, "skipped": f"there is no {step.module}"}
    if step.needs and not step.needs.is_dir():
        return {"step": step.name, "skipped": f"there is no {step.needs.relative_to(HOME)}"}
    command, log = step.command(gpu, scratch), scratch / f"{step.name}.log"
    path = os.pathsep.join(filter(None, [str(HOME), os.environ.get("PYTHONPATH")]))
    environment = {**QUIET, **OFFLINE, **os.environ, "PYTHONPATH": path}
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=HOME, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit_s)
            wrong = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            wrong = f"killed after {limit_s:.0f} s"
        _kill(process)
    found, tail = _last_json(log)
    wrong = wrong or ("" if found else "it printed no result")
    seconds = {"seconds": round(time.monotonic() - began, 1)}
    return {"step": step.name, "ok": not wrong, **seconds, **found, **({"error": f"{wrong}: {tail}"} if wrong else {})}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a step's process and those that it started and left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            time.sleep(0 if process.poll() is not None else 3)
    process.wait()


def _last_json(log: Path) -> tuple[dict[str, Any], str]:
    """Read a step's result (the last line of JSON, else empty) and the end of what it wrote."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                return json.loads(line), " | ".join(lines[-3:])[-600:]
    return {}, " | ".join(lines[-6:])[-1200:]


def machine(gpu: bool) -> dict[str, Any]:
    """Describe this machine and the versions, for every line."""
    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    return {
        "card": _card() if gpu else device_name(gpu=False),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "vllm": BACKENDS["vllm"].version,
        **{name: installed.get(name) for name in ("torch", "transformers")},
        "at": time.strftime("%Y-%m-%d %H:%M"),
    }


def _card() -> str:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def has_gpu() -> bool:
    """Whether this machine has a GPU, as the Makefile finds out."""
    listed = shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0
    return bool(listed)


def in_memory() -> Path | None:
    """Return a folder in memory where it has room for the models, for pinned copies and as much beside; else None."""
    memory = Path("/dev/shm")
    room = memory.is_dir() and shutil.disk_usage(memory).free > 1.3 * MODEL_BYTES
    return memory if room and psutil.virtual_memory().available > 3 * MODEL_BYTES else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [step.name for step in STEPS]
    parser.add_argument("--steps", nargs="+", choices=names, default=names)
    parser.add_argument("--device", choices=["gpu", "cpu"], help="default: gpu where nvidia-smi lists one")
    parser.add_argument("--budget", type=float, help=f"seconds for all steps; default: {BUDGET_S:g} with a GPU")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON Lines, appended to")
    parser.add_argument("--logs", type=Path, default=Path("runs") / "gpu", help="folder for what the steps print")
    args = parser.parse_args()
    gpu = has_gpu() if args.device is None else args.device == "gpu"
    slower = 1 if gpu else SLOWER
    budget_s = args.budget or BUDGET_S * slower
    about, ends, failed = machine(gpu), time.monotonic() + budget_s, 0
    home = in_memory()
    args.logs.mkdir(parents=True, exist_ok=True)
    for step in (step for step in STEPS if step.name in args.steps):
        limit_s = min(step.limit_s * slower, ends - time.monotonic())
        with tempfile.TemporaryDirectory(prefix=f"mergefront-{step.name}-", dir=home) as folder:
            if limit_s > 15:
                line = run(step, gpu, Path(folder), limit_s)
                for log in Path(folder).glob(f"{step.name}.log"):
                    shutil.copy(log, args.logs)
            else:
                line = {"step": step.name, "skipped": f"the budget of {budget_s:g} s is spent"}
        failed += not line.get("ok", True)
        text = json.dumps({**line, **about})
        print(text, flush=True)
        with args.results.open("a") as file:
            file.write(text + "\n")
    print(f"{failed} of {len(args.steps)} steps failed; results in {args.results}, logs in {args.logs}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
