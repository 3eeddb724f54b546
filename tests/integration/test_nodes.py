"""The pool on several real raylets that are killed, drained and added while it works."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.pool import Pool
from cluster.queue import ATTEMPTS
from cluster.spec import WorkerSpec
from orchestrator.config.workers import Workers
from orchestrator.core.records import Answered, Block, Failure, Question, Serving
from orchestrator.recipes.recipe import Point, Recipe, Source, single

SERVING = Serving("t", None, (), 64, "x", (), "a", "/nowhere")
RECIPES = [single(Source(f"digest-{i}", f"m{i}", "/nowhere"), "float32", Point("parent")) for i in range(12)]
BY_ID = {recipe.id: recipe for recipe in RECIPES}


def spec(seconds: float) -> WorkerSpec:
    settings = Workers.model_validate({"backend": "fake", "gpus": 0, "fake_seconds": seconds})
    return WorkerSpec(SERVING, {}, Source("d", "a", "/nowhere"), {}, "float32", settings, 1, "/nowhere", None)


def blocks(recipes: list[Recipe], each: int) -> list[Block]:
    return [Block(r.id, tuple(Question((10 * b + q,), (1,)) for q in range(4))) for r in recipes for b in range(each)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room for workers, and two nodes with room for one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def kill_node(node: Any) -> None:
    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)


def drain(node: Any) -> None:
    from ray.core.generated import autoscaler_pb2

    client = ray._raylet.GcsClient(address=ray.get_runtime_context().gcs_address)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = client.drain_node(node.node_id, reason, "spot", int(time.time() * 1000) + 60_000)
    assert accepted, why


def test_nodes_are_killed_drained_and_added_and_each_block_is_asked_once(cluster: Cluster) -> None:
    work, told, done, where = blocks(RECIPES, 4), list[str](), list[Answered](), set[str]()
    doomed, leaving = list(cluster.worker_nodes)
    steps: list[tuple[int, Callable[[], object]]] = [
        (3, lambda: kill_node(doomed)),
        (6, lambda: cluster.add_node(num_cpus=2)),
        (9, lambda: drain(leaving)),
    ]
    with Pool(spec(0.05), limit=len(work), log=told.append) as pool:
        for result in pool.run(BY_ID, work, tick=0.1):
            if result is not None:
                assert isinstance(result, Answered), result
                done.append(result)
            where |= {slot.node for slot in pool.workers.slots if slot.block}
            if steps and len(done) >= steps[0][0]:
                steps.pop(0)[1]()
    assert sorted(a.block.recipe_id + a.block.id for a in done) == sorted(b.recipe_id + b.id for b in work)
    assert where >= {doomed.node_id, leaving.node_id} and len(where) == 3, "the new node had workers too"
    assert any("joined" in line for line in told)
    assert any("is being drained" in line for line in told)
    cluster.worker_nodes.discard(doomed)
    cluster.worker_nodes.discard(leaving)


def test_a_block_that_kills_is_tried_on_two_nodes_and_the_failure_names_them(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    work, told = blocks(RECIPES[:5], 2), list[str]()
    deadly, done, killed = work[0], list[Answered | Failure](), set[int]()
    with Pool(spec(0.1), limit=len(work), log=told.append) as pool:
        for result in pool.run(BY_ID, work, tick=0.05):
            done += [result] if result is not None else []
            for slot in pool.workers.slots:
                if slot.block == deadly and slot.place and slot.place.pid not in killed:  # a death is heard of later
                    os.kill(slot.place.pid, signal.SIGKILL)
                    killed.add(slot.place.pid)
    (failure,) = [result for result in done if isinstance(result, Failure)]
    assert failure.recipe_id == deadly.recipe_id and f"broke {ATTEMPTS} workers" in failure.message
    named = {part.split()[0].rstrip(",;)") for part in failure.message.split("on node ")[1:]}
    assert len(named) >= 2
    assert {r.block.recipe_id for r in done if isinstance(r, Answered)} >= {block.recipe_id for block in work[2:]}
