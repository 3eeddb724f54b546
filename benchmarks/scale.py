"""What the driver costs as a sweep grows: scheduling, ledger, report.

    .venv/bin/python -m benchmarks.scale [--recipes 10000] [--workers 1000] [--raylets 2]

A sweep over the fake backend, with the very code of `mergefront run` (questions, queue, ledger with its fsyncs,
progress, scores, report), driven by a simulated clock in place of Ray: a block takes a lognormal time around half a
minute, and the driver, which is one process, answers one worker after the other in the time that it really takes.
Then the same on real raylets with real actors, as many as are asked for.

`driver_ms_per_recipe`: all that the driver does for a recipe between having opened the sweep and its last block being
stored, the fake answers themselves left out. `utilisation`: the share of the workers' simulated time that goes to
blocks, for recipes of `--blocks` blocks; what is missing is waiting for the driver and for the last block.
`utilisation_texts`: the same where every fourth block is of texts, which take 3 to 10 times as long and vary more.
`report_s`: `mergefront report`, from the stored answers to the page, without opening the sweep; `report_ratio`: how
many times as long it takes on one core. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import small_demo
from cluster.queue import Queue
from cluster.session import quiet
from orchestrator.config.load import load_config
from orchestrator.core.progress import Progress
from orchestrator.core.records import Answered, Block, Decoding, Question, RecipeStatus
from orchestrator.results.layout import Layout
from orchestrator.stages.compute import worker_spec
from orchestrator.stages.evaluate import missing_blocks
from orchestrator.stages.open import Sweep, open_sweep
from orchestrator.stages.publish import publish
from orchestrator.stages.record import record, storing
from tasks.serving.fake import FakeEngine

BLOCK_S, SIGMA, SWAP_S = 30.0, 0.5, 2.0
"""A lettered block's mean time, the standard deviation of its logarithm, and what another recipe costs first."""
TEXT_TIMES, TEXT_SIGMA, TEXT_MOST = (3.0, 10.0), 1.0, 4.0
"""A block of texts: how many times a lettered block's mean its own is, which is the same for all recipes; the standard
deviation of its logarithm; and how many times its mean it takes where every text is as long as it may be."""
TEXTS_OF = 4
"""One of so many blocks of a recipe is of texts, in the second simulation."""


def write_sweep(folder: Path, recipes: int, seconds: float = 0.0) -> Path:
    """The demo's parents and questions; as many Linear merges as are asked for."""
    grid = [{"method": "linear", "alpha": {"start": 0, "stop": 1, "step": 1 / (recipes - 1)}}]
    workers = {"backend": "fake", "block": 80, "fake_seconds": seconds, "engine": {"max_model_len": 512}}
    return small_demo(folder / f"sweep-{recipes}.yaml", grid, workers)


@dataclass
class Clock:
    """The driver's time, by part; a part can be entered again."""

    spent: dict[str, float] = field(default_factory=dict)
    """Wall seconds."""
    cpu: float = 0.0
    """Processor seconds of all parts; the rest of the wall's is waiting for the disk, or for a processor."""

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        began, busy = time.perf_counter(), time.process_time()
        yield
        self.spent[name] = self.spent.get(name, 0.0) + time.perf_counter() - began
        self.cpu += time.process_time() - busy

    @property
    def total(self) -> float:
        return sum(self.spent.values())


@dataclass
class Simulated:
    """Workers in simulated time. The driver is one: who is done waits until it has dealt with those before."""

    queue: Queue
    workers: int
    seconds: Callable[[Block], float]
    """How long a block takes."""
    now: float = 0.0
    """The driver's."""
    busy: float = 0.0
    _done: list[tuple[float, int, Block, float]] = field(default_factory=list)
    """When, by which worker, which block, and its seconds without those of the recipe's weights."""
    _loaded: dict[int, str] = field(default_factory=dict)

    def hand_out(self, worker: int) -> None:
        block = self.queue.take("node", self._loaded.get(worker), ("node",))
        if block is None:
            return
        swap = SWAP_S * (self._loaded.get(worker) != block.recipe_id)
        took = self.seconds(block)
        self._loaded[worker] = block.recipe_id
        self.busy += swap + took
        heapq.heappush(self._done, (self.now + swap + took, worker, block, took))

    def next(self) -> tuple[int, Block] | None:
        """Who is done next; time goes on to it."""
        if not self._done:
            return None
        at, worker, block, took = heapq.heappop(self._done)
        self.now = max(self.now, at)
        self.queue.answered(block, took)
        return worker, block


def drive(sweep: Sweep, workers: int, clock: Clock) -> None:
    """`mergefront run` without Ray: what `orchestrator.stages.evaluate` and `cluster.pool` do, part by part."""
    with clock.part("open_blocks"):
        blocks = missing_blocks(sweep, sweep.grid)
    with clock.part("queue"):
        queue = Queue()
        queue.add(blocks)
        simulated = Simulated(queue, workers, durations())
        for worker in range(workers):
            simulated.hand_out(worker)
    engine = FakeEngine()
    with Progress(blocks) as progress, contextlib.ExitStack() as stack:
        store = stack.enter_context(storing(sweep, sweep.layout))
        while (done := simulated.next()) is not None:
            worker, block = done
            engine.recipe_id = block.recipe_id
            asked = Answered(block, tuple(engine.answer(block.questions)), SWAP_S, BLOCK_S, "simulated")
            with clock.part("ledger"):
                store(asked)
            with clock.part("progress"):
                progress.update(asked)
            with clock.part("queue"):
                simulated.hand_out(worker)
        with clock.part("ledger"):
            stack.close()


def durations() -> Callable[[Block], float]:
    """Draw the seconds of blocks, the same in each run."""
    generator, means = random.Random(0), dict[str, float]()

    def lognormal(mean: float, sigma: float) -> float:
        return mean * generator.lognormvariate(-(sigma**2) / 2, sigma)

    def seconds(block: Block) -> float:
        if not block.writes:
            return lognormal(BLOCK_S, SIGMA)
        if block.id not in means:
            means[block.id] = BLOCK_S * generator.uniform(*TEXT_TIMES)
        return min(lognormal(means[block.id], TEXT_SIGMA), TEXT_MOST * means[block.id])

    return seconds


def utilisation(recipes: int, each: int, workers: int, driver_s: float, *, texts: bool) -> float:
    """The queue alone, with blocks of one question; `driver_s` a block is what was measured."""
    decoding = Decoding(256, ())
    questions = [
        Question((number,), decoding=decoding if texts and number % TEXTS_OF == TEXTS_OF - 1 else None)
        for number in range(each)
    ]
    queue = Queue()
    queue.add(Block(str(recipe), (question,)) for recipe in range(recipes) for question in questions)
    simulated = Simulated(queue, workers, durations())
    for worker in range(workers):
        simulated.hand_out(worker)
    while (done := simulated.next()) is not None:
        simulated.now += driver_s
        simulated.hand_out(done[0])
    return simulated.busy / (workers * simulated.now)


def measure(folder: Path, recipes: int, workers: int) -> dict[str, Any]:
    """One sweep of so many recipes, and its report, on one core and on all."""
    clock = Clock()
    sweep = open_sweep(load_config(write_sweep(folder, recipes)), Layout(folder / f"out-{recipes}"))
    with contextlib.redirect_stderr(open(os.devnull, "w")):
        drive(sweep, workers, clock)
    usable = os.sched_getaffinity(0)
    alone, reporting = report(sweep, {min(usable)}), report(sweep, usable)
    blocks = sum(1 for _ in sweep.layout.answers.glob("*/*/SUCCESS"))
    parts = {name: round(1000 * spent / recipes, 3) for name, spent in clock.spent.items()}
    cost = f"driver {1000 * clock.total / recipes:.2f} ms a recipe, {1000 * clock.cpu / recipes:.2f} of them processor"
    reports = f"report {reporting:.1f} s, on one core {alone:.1f}"
    print(f"{recipes} recipes, {blocks} blocks: {cost}; {parts}; {reports}", flush=True)
    return {"recipes": recipes, "blocks": blocks, "clock": clock, "report": reporting, "alone": alone}


def report(sweep: Sweep, cores: set[int]) -> float:
    """Score a finished sweep anew and write its report on some cores; seconds."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    again = open_sweep(sweep.config, sweep.layout)
    began = time.perf_counter()
    board = publish(again, None)
    taken = time.perf_counter() - began
    os.sched_setaffinity(0, usable)
    assert len(board.rows) == len(sweep.recipes) and all(row.status == RecipeStatus.SCORED for row in board.rows)
    return taken


def on_raylets(folder: Path, raylets: int, cpus: int, recipes: int) -> dict[str, float]:
    """A real run: raylets on this machine, actors of the fake backend, the driver's own CPU time."""
    path = write_sweep(folder, recipes, seconds=1 / 80)
    command = [sys.executable, "-m", "benchmarks.scale", "--real", str(path), str(raylets), str(cpus)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def real(path: Path, raylets: int, cpus: int) -> None:
    import ray
    from ray.cluster_utils import Cluster

    from cluster.pool import Pool

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(raylets):
        cluster.add_node(num_cpus=cpus)
    ray.init(cluster.address, log_to_driver=False)
    sweep = open_sweep(load_config(path), Layout(path.parent / "real"))
    blocks, recipes = missing_blocks(sweep, sweep.grid), {recipe.id: recipe for recipe in sweep.recipes}
    busy, first, cpu, results = 0.0, 0.0, 0.0, 0
    with Pool(worker_spec(sweep), limit=len(blocks)) as pool:
        for result in pool.run(recipes, blocks):
            record(sweep, sweep.layout, result)
            if isinstance(result, Answered):
                if not first and all(slot.has_engine for slot in pool.workers.slots):
                    first, cpu, busy, results = time.perf_counter(), time.process_time(), -result.answer_s, 0
                busy, results = busy + result.answer_s + result.swap_s, results + 1
        wall, cpu = time.perf_counter() - first, time.process_time() - cpu
        workers = len(pool.workers.slots)
    told = {
        "workers": workers,
        "driver_cpu_ms_per_block": 1000 * cpu / results,
        "utilisation": busy / (wall * workers),
    }
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps(told))


def main(arguments: Sequence[str] | None = None) -> None:
    quiet()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1000, help="simulated ones")
    parser.add_argument("--blocks", type=int, default=16, help="of a recipe, where utilisation is simulated")
    parser.add_argument("--raylets", type=int, default=2, help="real ones, each with four workers; 0 for none")
    parser.add_argument("--real", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.real:
        return real(Path(args.real[0]), *map(int, args.real[1:]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = measure(folder, args.recipes // 10, args.workers)
        large = measure(folder, args.recipes, args.workers)
        raylets = on_raylets(folder, args.raylets, 4, 200) if args.raylets else {}
    per_recipe = [1000 * run["clock"].total / run["recipes"] for run in (small, large)]
    per_block = large["clock"].total / large["blocks"]
    simulation = args.recipes, args.blocks, args.workers, per_block
    result = {
        "benchmark": "scale",
        "driver_ms_per_recipe": round(per_recipe[1], 2),
        "utilisation": round(utilisation(*simulation, texts=False), 4),
        "utilisation_texts": round(utilisation(*simulation, texts=True), 4),
        "report_s": round(large["report"], 1),
        "report_ratio": round(large["alone"] / large["report"], 2),
        "linearity": round(per_recipe[1] / per_recipe[0], 2),
        "driver_cpu_ms_per_recipe": round(1000 * large["clock"].cpu / large["recipes"], 2),
        "driver_ms_per_block": round(1000 * per_block, 2),
        "parts_ms_per_recipe": {k: round(1000 * s / large["recipes"], 2) for k, s in large["clock"].spent.items()},
        "recipes": large["recipes"],
        "blocks_per_recipe": large["blocks"] / large["recipes"],
        "workers": args.workers,
        "raylets": {key: round(value, 3) for key, value in raylets.items()},
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
