"""What the campaign kills: workers, nodes, drivers, and how it finds them in the middle of a write."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

TRIES = 5


class Machines:
    """A head without room for workers, and nodes with room for one each."""

    def __init__(self, nodes: int) -> None:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray asks for one, and the drivers inherit it
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(nodes):
            self.add()

    def add(self) -> None:
        for left in reversed(range(TRIES)):
            try:
                self.cluster.add_node(num_cpus=1)
                return
            except Exception:  # bare from Ray, which gives a raylet 30 s to start: a busy machine may need longer
                if not left:
                    raise

    def kill_one(self, rng: random.Random) -> None:
        """A node, and another one joins."""
        node = rng.choice(sorted(self.cluster.worker_nodes, key=lambda node: node.node_id))
        os.kill(raylet(node), signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)
        self.add()

    def actors(self) -> list[psutil.Process]:
        """The workers' processes."""
        found = []
        for node in self.cluster.worker_nodes:
            for process in psutil.Process(raylet(node)).children():
                with contextlib.suppress(psutil.NoSuchProcess):  # a child that ended meanwhile
                    if any("ray::Worker" in word for word in process.cmdline()[:1]):
                        found.append(process)
        return found


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def half_written_block(out: Path) -> Path | None:
    """A block's folder without its marker."""
    for recipe in os.scandir(out / "answers"):
        for block in os.scandir(recipe.path):
            if not os.path.exists(os.path.join(block.path, "SUCCESS")):
                return Path(block.path)
    return None


def half_written_checkpoint(out: Path) -> Path | None:
    folder = out / "checkpoints"
    return next((path for path in folder.glob(".*.tmp") if any(path.iterdir())), None) if folder.exists() else None


def strike_driver_in_ledger(driver: ForkServerProcess, out: Path) -> bool:
    """Stopped first, so that what is killed is seen to be in the middle of a block."""
    if half_written_block(out) is None:
        return False
    assert driver.pid is not None
    os.kill(driver.pid, signal.SIGSTOP)
    while psutil.Process(driver.pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
        time.sleep(0.001)
    if half_written_block(out) is not None:
        driver.kill()
        return True
    os.kill(driver.pid, signal.SIGCONT)
    return False


def strike_actor_in_checkpoint(machines: Machines, out: Path) -> bool:
    if half_written_checkpoint(out) is None:
        return False
    for actor in machines.actors():
        actor.suspend()
        temporary = half_written_checkpoint(out)
        if temporary and any(temporary.name in file.path for file in actor.open_files()):
            actor.kill()
            return True
        actor.resume()
    return False
