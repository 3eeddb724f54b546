"""Kill what can be killed, at random moments, and see whether the result is the same.

    .venv/bin/python -m benchmarks.campaign [--runs 50] [--seed 0] [--kinds actor,driver] [--backend fake] [SWEEP.yaml]

A cluster of several real raylets is started on this machine. The sweep is run once undisturbed; then again and again,
each time into a new folder, with one kill -9 in it:

    actor        a worker, with its engine
    raylet       a node, with its worker; another node joins
    driver       `mergefront run` itself
    ledger       the driver, while it writes a block of answers (seen half-written, stopped, then killed)
    checkpoint   a worker, while it writes a merged checkpoint (sweeps with `checkpoints: {keep: true}`)

Where the driver died, the same command is given again. A run is good when its leaderboard is the undisturbed one
(timings aside), every block that was finished before the kill is there as it was, and no question was stored twice.
Without a SWEEP it is the demo: rehearsed on the fake backend, or for real with `--backend vllm`. The last line is JSON;
the exit status is 1 when a run was not good.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.common import small_demo
from benchmarks.kills import Machines, strike_actor_in_checkpoint, strike_driver_in_ledger
from orchestrator.config.backends import BACKENDS

TIMINGS = {"swap_s", "answer_s"}
KINDS = ("actor", "raylet", "driver", "ledger", "checkpoint")
ATTEMPTS = 3
"""Times that the command is given at most."""


@dataclass
class Result:
    run: int
    kind: str
    at: int
    """Blocks that were finished when it struck."""
    of: int
    commands: int
    seconds: float
    same: bool
    """The leaderboard."""
    twice: int
    """Finished blocks that were not left alone, and questions that were stored twice."""

    @property
    def good(self) -> bool:
        return self.same and not self.twice


def write_demo(folder: Path, backend: str) -> Path:
    """The demo with fewer questions. On the fake backend a question takes long enough to be hit in."""
    recipes = [{"method": "linear", "alpha": [0, 0.25, 0.5, 0.75, 1]}, {"method": "slerp", "t": [0.5]}]
    workers = {
        "backend": backend, "block": 20, "fake_seconds": 0.01, "patience": 120,
        "engine": {"max_model_len": 512, "enforce_eager": True, "kv_cache_gib": 0.25},
    }  # fmt: skip
    return small_demo(folder / "sweep.yaml", recipes, workers, checkpoints={"keep": BACKENDS[backend].measures})


# -------------------------------------------------------------------- one run
class Missed(Exception):
    """The run was over before the moment came."""


DRIVERS = multiprocessing.get_context("forkserver")
"""Each `mergefront run` is a process of its own, forked from one that has imported the libraries and done nothing else:
hundreds of starts need not take ten seconds each."""
PRELOADED = ["orchestrator.sweep", "orchestrator.report.page", "cluster.pool", "tasks.evaluation.judge"]


def mergefront(address: str, log: Path, arguments: list[str]) -> None:
    """What such a process does."""
    stream = log.open("ab")
    for descriptor in (1, 2):
        os.dup2(stream.fileno(), descriptor)
    os.environ["RAY_ADDRESS"] = address
    from orchestrator.cli.main import main

    sys.exit(main(arguments))


@dataclass
class Campaign:
    sweep: Path
    folder: Path
    machines: Machines

    def start(self, out: Path) -> ForkServerProcess:
        command = ["run", str(self.sweep), "--out", str(out)]
        driver = DRIVERS.Process(target=mergefront, args=(self.machines.cluster.address, self.log(out), command))
        driver.start()
        return driver

    def log(self, out: Path) -> Path:
        return out.with_suffix(".log")

    def undisturbed(self) -> Path:
        out = self.folder / "undisturbed"
        if finish(self.start(out)):
            raise SystemExit(self.log(out).read_text())
        return out

    def run(self, number: int, kind: str, rng: random.Random, wanted: Path) -> Result:
        """
        Args:
            wanted: the folder of the undisturbed run.

        Raises:
            Missed: the run was over before the blow fell.
        """
        out, began, commands = self.folder / f"run-{number:03}", time.monotonic(), 1
        of = len(markers(wanted))
        driver = self.start(out)
        before = self.strike(kind, driver, out, rng, rng.randint(1, of - 2))
        while finish(driver):
            if commands == ATTEMPTS:
                raise SystemExit(self.log(out).read_text())
            driver, commands = self.start(out), commands + 1
        after = markers(out)
        changed = sum(after.get(path) != marker for path, marker in before.items())
        stored = [question for marker in after for question in questions(out, marker)]
        twice = changed + len(stored) - len(set(stored))
        same = leaderboard(out) == leaderboard(wanted)
        return Result(number, kind, len(before), of, commands, round(time.monotonic() - began, 1), same, twice)

    def strike(
        self, kind: str, driver: ForkServerProcess, out: Path, rng: random.Random, blocks: int
    ) -> dict[Path, bytes]:
        """Wait for so many finished blocks and for a random part of the next, then kill.

        Returns:
            The blocks that were finished before.
        """
        wait(driver, lambda: len(markers(out)) >= blocks, 0.02)
        if kind == "ledger":
            wait(driver, lambda: strike_driver_in_ledger(driver, out), 0)
            return markers(out)
        if kind == "checkpoint":
            wait(driver, lambda: strike_actor_in_checkpoint(self.machines, out), 0)
            return markers(out)
        time.sleep(rng.random() / 4)
        found = markers(out)
        if not driver.is_alive():
            raise Missed
        match kind:
            case "actor":
                actors = self.machines.actors()
                if not actors:  # all is answered, and the driver writes its report
                    finish(driver)
                    raise Missed
                rng.choice(actors).kill()
            case "raylet":
                self.machines.kill_one(rng)
            case "driver":
                driver.kill()
        return found


def finish(driver: ForkServerProcess) -> int:
    """Its exit status, once it is over; a signal's number, negative, if one ended it."""
    driver.join()
    assert driver.exitcode is not None
    return driver.exitcode


def wait(driver: ForkServerProcess, until: Callable[[], bool], tick: float) -> None:
    while not until():
        if not driver.is_alive():
            raise Missed
        time.sleep(tick)


# -------------------------------------------------------------------- what came of it
def leaderboard(out: Path) -> list[dict[str, Any]]:
    rows = pq.read_table(out / "leaderboard.parquet").to_pylist()
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in rows]


def markers(out: Path) -> dict[Path, bytes]:
    """The finished blocks."""
    return {path.relative_to(out): path.read_bytes() for path in out.glob("answers/*/*/SUCCESS")}


def questions(out: Path, marker: Path) -> list[tuple[str, str]]:
    """Recipe and question of every answer in a finished block."""
    file = (out / marker).parent / json.loads((out / marker).read_bytes())["file"]
    return [(marker.parts[1], key) for key in pq.read_table(file)["question_id"].to_pylist()]


def campaign(sweep: Path, folder: Path, runs: int, kinds: Sequence[str], seed: int, nodes: int) -> list[Result]:
    """All runs, each told as it is done."""
    DRIVERS.set_forkserver_preload(PRELOADED)
    machines = Machines(nodes)
    rng, results = random.Random(seed), list[Result]()
    try:
        work = Campaign(sweep, folder, machines)
        wanted = work.undisturbed()
        print(f"{'run':>4} {'killed':10} {'at block':>9} {'commands':>8} {'seconds':>8}  leaderboard, asked twice")
        number = 0
        while len(results) < runs:
            number += 1
            kind = kinds[len(results) % len(kinds)]
            try:
                results.append(result := work.run(number, kind, rng, wanted))
            except Missed:
                print(f"{number:4} {kind:10} missed: the run was over before", flush=True)
                continue
            told = f"{'same' if result.same else 'DIFFERENT'}, {result.twice}"
            at = f"{result.at}/{result.of}"
            print(f"{number:4} {kind:10} {at:>9} {result.commands:8} {result.seconds:8}  {told}", flush=True)
    finally:
        machines.cluster.shutdown()
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, nargs="?", metavar="SWEEP.yaml")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, default=3, help="with room for a worker each (default: 3)")
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="fake", help="of the demo")
    parser.add_argument("--kinds", default="actor,raylet,driver,ledger", help=f"of {', '.join(KINDS)}")
    args = parser.parse_args(arguments)
    kinds = args.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"--kinds: {', '.join(unknown)}: is none of {', '.join(KINDS)}")
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        sweep = args.sweep or write_demo(Path(name), args.backend)
        results = campaign(sweep.resolve(), Path(name), args.runs, kinds, args.seed, args.nodes)
    good = [result for result in results if result.good]
    told = {
        "benchmark": "campaign",
        "runs": len(results),
        "good": len(good),
        "killed": {kind: sum(result.kind == kind for result in results) for kind in kinds},
        "leaderboard_differs": sum(not result.same for result in results),
        "asked_twice": sum(result.twice for result in results),
        "seed": args.seed,
        "sweep": args.sweep.name if args.sweep else f"demo, {args.backend}",
    }
    print(json.dumps(told))
    return 0 if len(good) == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
