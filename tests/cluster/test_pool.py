"""The pool on real Ray: workers that are killed, blocks that kill, work that stops."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import ray
from ray.util.placement_group import placement_group_table

from cluster.pool import ATTEMPTS, EngineStartError, Pool
from cluster.session import session
from cluster.worker import WorkerSpec
from orchestrator.config import Workers
from orchestrator.recipe import Point, Recipe, Source, single
from orchestrator.records import Asked, Block, Failure, Question, Serving

SERVING = Serving("t", None, (), 64, "x", (), "a", "/nowhere")
RECIPES = [single(Source(f"digest-{i}", f"m{i}", "/nowhere"), "float32", Point("parent")) for i in range(6)]


def spec(seconds: float = 0.05, **workers: object) -> WorkerSpec:
    settings = Workers.model_validate({"backend": "fake", "fake_seconds": seconds, **workers})
    return WorkerSpec(SERVING, {}, Source("d", "a", "/nowhere"), "float32", settings, 1, "/nowhere", None)


def blocks(recipes: list[Recipe], each: int = 3) -> list[Block]:
    return [Block(r.id, tuple(Question((10 * b + q,), (1,)) for q in range(4))) for r in recipes for b in range(each)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with session():
        yield


def by_recipe(recipes: list[Recipe]) -> dict[str, Recipe]:
    return {recipe.id: recipe for recipe in recipes}


def test_every_block_is_asked_once_and_workers_keep_to_their_recipe() -> None:
    work = blocks(RECIPES)
    with Pool(spec(count=2), limit=len(work)) as pool:
        done = [result for result in pool.run(by_recipe(RECIPES), work) if result is not None]
    assert all(isinstance(result, Asked) for result in done)
    assert sorted(a.block.id + a.block.recipe_id for a in done) == sorted(b.id + b.recipe_id for b in work)
    workers: dict[str, set[str]] = {}
    for asked in done:
        workers.setdefault(asked.block.recipe_id, set()).add(asked.worker)
    assert sum(len(w) for w in workers.values()) <= len(RECIPES) + 1, "at most the last recipe is shared"


def test_a_killed_worker_is_replaced_and_its_block_asked_again() -> None:
    work = blocks(RECIPES[:4])
    with Pool(spec(seconds=0.2, count=2), limit=len(work)) as pool:
        done, killed = [], None
        for result in pool.run(by_recipe(RECIPES), work):
            if result is not None:
                done.append(result)
            if killed is None and len(done) >= 2 and pool.slots[0].block:
                killed = pool.pids[0]
                os.kill(killed, signal.SIGKILL)
        assert killed is not None
        assert pool.pids[0] != killed
    assert all(isinstance(result, Asked) for result in done)
    assert sorted(a.block.id + a.block.recipe_id for a in done) == sorted(b.id + b.recipe_id for b in work)


def test_a_block_that_kills_its_workers_fails_its_recipe_and_nobody_elses() -> None:
    work = blocks(RECIPES[:2], each=1)
    deadly = work[0]
    kills = 0
    with Pool(spec(seconds=0.6, count=1), limit=len(work)) as pool:
        done = []
        for result in pool.run(by_recipe(RECIPES), work):
            done += [result] if result is not None else []
            if pool.slots[0].block == deadly:
                os.kill(pool.pids[0], signal.SIGKILL)
                kills += 1
    assert kills == ATTEMPTS
    failures = [result for result in done if isinstance(result, Failure)]
    assert [(f.recipe_id, f.status, f.stage) for f in failures] == [(deadly.recipe_id, "failed", "worker")]
    assert [a.block.recipe_id for a in done if isinstance(a, Asked)] == [work[1].recipe_id]


def test_stopping_finishes_what_is_under_way_and_hands_out_no_more() -> None:
    work = blocks(RECIPES)
    done: list[object] = []
    with Pool(spec(count=1), limit=len(work)) as pool:
        for result in pool.run(by_recipe(RECIPES), work, stop=lambda: len(done) >= 2):
            if result is not None:
                done.append(result)
    assert 2 <= len(done) <= 3


def test_a_worker_that_fits_nowhere_is_refused_with_the_numbers() -> None:
    with pytest.raises(EngineStartError, match="a worker needs 999 CPU on one node, but the cluster's nodes have 2"):
        Pool(spec(cpus=999.0), limit=1)


def test_the_ranks_of_a_worker_are_held_together() -> None:
    """Two ranks are one actor, and so on one node; two stages are a placement group, which goes with the pool."""
    work = blocks(RECIPES[:2], each=1)
    for engine in ({"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2}):
        with Pool(spec(engine=engine), limit=len(work)) as pool:
            assert len(pool.slots) == 1, "the machine's two cores are one worker's"
            assert all(isinstance(r, Asked) for r in pool.run(by_recipe(RECIPES), work) if r is not None)
            groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
            bundles = [bundle["CPU"] for group in groups for bundle in group["bundles"].values()]
            assert bundles == [1.0] * (engine.get("pipeline_parallel_size", 0))
    with pytest.raises(EngineStartError, match=f"a worker needs {os.cpu_count() + 1} x 1 CPU on one node"):
        Pool(spec(engine={"pipeline_parallel_size": os.cpu_count() + 1}), limit=1)


def test_an_engine_that_cannot_start_ends_the_sweep_with_its_reason() -> None:
    broken = WorkerSpec(SERVING, {}, Source("d", "a", "/gone"), "float32", Workers(count=1), 1, "/nowhere", None)
    with (
        pytest.raises(EngineStartError, match="the folder /gone does not exist") as told,
        Pool(broken, limit=1) as pool,
    ):
        list(pool.run(by_recipe(RECIPES), blocks(RECIPES[:1])))
    assert "Traceback" in told.value.detail or "fetch" in told.value.detail


def test_a_place_where_no_engine_starts_is_given_up_and_the_others_go_on() -> None:
    work = blocks(RECIPES[:4])
    with Pool(spec(seconds=0.4, count=2), limit=len(work)) as pool:
        done, kills, given_up = [], 0, pool.slots[1]
        for result in pool.run(by_recipe(RECIPES), work):
            done += [result] if result is not None else []
            if given_up in pool.slots and given_up.block is None and kills < ATTEMPTS:
                ray.kill(given_up.actor)
                kills += 1
                given_up.holds = None
    assert sorted(a.block.id + a.block.recipe_id for a in done) == sorted(b.id + b.recipe_id for b in work)


def test_a_cluster_that_was_there_is_left_running() -> None:
    with session():
        pass
    assert ray.is_initialized()
