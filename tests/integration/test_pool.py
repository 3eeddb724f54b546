"""The pool on real Ray: workers that are killed, stopped or out of memory, blocks that kill, work that stops."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group_table

from cluster.errors import EngineStartError, described
from cluster.pool import Pool
from cluster.queue import ATTEMPTS
from cluster.session import session
from cluster.slots import Slot
from cluster.spec import WorkerSpec
from orchestrator.config.workers import Workers
from orchestrator.core.files import write_json
from orchestrator.core.records import Answered, Block, Failure, Question, Serving
from orchestrator.recipes.recipe import Point, Recipe, Source, single
from tests.helpers.errors import PLANTED, Raising

SERVING = Serving("t", None, (), 64, "x", (), "a", "/nowhere")
RECIPES = [single(Source(f"digest-{i}", f"m{i}", "/nowhere"), "float32", Point("parent")) for i in range(6)]
BY_ID = {recipe.id: recipe for recipe in RECIPES}
MEMORY = Path("/sys/fs/cgroup/memory")


def spec(seconds: float = 0.05, **workers: object) -> WorkerSpec:
    settings = Workers.model_validate({"backend": "fake", "gpus": 0, "fake_seconds": seconds, **workers})
    return WorkerSpec(SERVING, {}, Source("d", "a", "/nowhere"), {}, "float32", settings, 1, "/nowhere", None)


def blocks(recipes: list[Recipe], each: int = 3) -> list[Block]:
    return [Block(r.id, tuple(Question((10 * b + q,), (1,)) for q in range(4))) for r in recipes for b in range(each)]


def questions(work: list[Block]) -> list[str]:
    return sorted(block.recipe_id + question.id for block in work for question in block.questions)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with session():
        yield


Meddle = Callable[[Pool, list[Answered | Failure]], None]


def run(pool: Pool, work: list[Block], meddle: Meddle) -> list[Answered | Failure]:
    """All that comes of the work; `meddle` may do harm each time that the pool gives a sign of life."""
    done: list[Answered | Failure] = []
    for result in pool.run(BY_ID, work, tick=0.1):
        done += [result] if result is not None else []
        meddle(pool, done)
    return done


def nothing(pool: Pool, done: list[Answered | Failure]) -> None:
    """Does no harm."""


def asked(done: list[Answered | Failure]) -> list[Block]:
    return [result.block for result in done if isinstance(result, Answered)]


def pid(slot: Slot) -> int:
    assert slot.place is not None
    return slot.place.pid


def test_every_block_is_asked_once_and_workers_keep_to_their_recipe() -> None:
    work = blocks(RECIPES)
    with Pool(spec(count=2), limit=len(work)) as pool:
        done = run(pool, work, nothing)
    assert questions(asked(done)) == questions(work)
    workers: dict[str, set[str]] = {}
    for result in done:
        assert isinstance(result, Answered)
        workers.setdefault(result.block.recipe_id, set()).add(result.worker)
    assert sum(len(w) for w in workers.values()) <= len(RECIPES) + 1, "at most the last recipe is shared"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_hangs_is_replaced_and_its_block_asked_again(how: signal.Signals) -> None:
    work = blocks(RECIPES[:1])
    told: list[str] = []
    harmed: list[int] = []

    def harm(pool: Pool, done: list[Answered | Failure]) -> None:
        slot = pool.workers.slots[0]
        if not harmed and done and slot.block:
            harmed.append(pid(slot))
            os.kill(harmed[0], how)

    with Pool(spec(seconds=0.1, count=1, patience=2), limit=len(work), log=told.append) as pool:
        done = run(pool, work, harm)
    assert questions(asked(done)) == questions(work)
    assert len(told) == 1 and ("no answer for" if how == signal.SIGSTOP else "died") in told[0]
    psutil.wait_procs([psutil.Process(each) for each in harmed if psutil.pid_exists(each)], timeout=60)
    assert not psutil.pid_exists(harmed[0])


def test_a_block_that_kills_its_workers_fails_its_recipe_and_nobody_elses() -> None:
    work = blocks(RECIPES[:2], each=1)
    killed: list[int] = []

    def harm(pool: Pool, done: list[Answered | Failure]) -> None:
        slot = pool.workers.slots[0]
        if slot.block == work[0] and pid(slot) not in killed:  # a death is heard of later
            killed.append(pid(slot))
            os.kill(killed[-1], signal.SIGKILL)

    with Pool(spec(seconds=0.3, count=1), limit=len(work)) as pool:
        done = run(pool, work, harm)
    failures = [result for result in done if isinstance(result, Failure)]
    assert [(f.recipe_id, f.status, f.stage) for f in failures] == [(work[0].recipe_id, "failed", "worker")]
    assert len(killed) == ATTEMPTS
    assert all(f":{each} on node" in failures[0].message for each in killed), "the evidence"
    assert asked(done) == [work[1]]


def limit_addresses(worker: int) -> None:
    """Python then says MemoryError."""
    room = psutil.Process(worker).memory_info().vms + 2**28
    resource.prlimit(worker, resource.RLIMIT_AS, (room, room))


def limit_pages(worker: int) -> None:
    """Linux then kills the process."""
    group = MEMORY / f"mergefront-{os.getpid()}"
    try:
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(2**28))
        (group / "cgroup.procs").write_text(str(worker))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")


@pytest.fixture
def memory_group() -> Iterator[None]:
    yield
    with contextlib.suppress(OSError):
        (MEMORY / f"mergefront-{os.getpid()}").rmdir()


@pytest.mark.parametrize("limit", [limit_addresses, limit_pages])
def test_a_block_that_is_too_large_for_the_memory_is_asked_in_halves(
    limit: Callable[[int], None], memory_group: None
) -> None:
    warm, work = blocks(RECIPES[1:2], each=1), blocks(RECIPES[:1], each=2)
    told: list[str] = []
    with Pool(spec(count=1, fake_gib=1 / 8), limit=3, log=told.append) as pool:
        run(pool, warm, nothing)
        limit(pid(pool.workers.slots[0]))
        done = run(pool, work, nothing)
    assert questions(asked(done)) == questions(work)
    assert [len(block.questions) for block in asked(done)] == [2, 2, 4]
    assert len(told) == 1 and "too little memory for 4 questions: halved" in told[0]


def test_stopping_finishes_what_is_under_way_and_hands_out_no_more() -> None:
    work = blocks(RECIPES)
    done: list[object] = []
    with Pool(spec(count=1), limit=len(work)) as pool:
        for result in pool.run(BY_ID, work, stop=lambda: len(done) >= 2):
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
            assert len(pool.workers.slots) == 1, "the machine's two cores are one worker's"
            assert all(isinstance(r, Answered) for r in pool.run(BY_ID, work) if r is not None)
            groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
            bundles = [bundle["CPU"] for group in groups for bundle in group["bundles"].values()]
            assert bundles == [1.0] * (engine.get("pipeline_parallel_size", 0))
    too_many = (os.cpu_count() or 1) + 1
    with pytest.raises(EngineStartError, match=f"a worker needs {too_many} x 1 CPU on one node"):
        Pool(spec(engine={"pipeline_parallel_size": too_many}), limit=1)


def test_an_engine_that_cannot_start_ends_the_sweep_with_its_reason() -> None:
    broken = WorkerSpec(
        SERVING, {}, Source("d", "a", "/gone"), {}, "float32", Workers(count=1, gpus=0), 1, "/nowhere", None
    )
    with (
        pytest.raises(EngineStartError, match="the folder /gone does not exist") as told,
        Pool(broken, limit=1) as pool,
    ):
        list(pool.run(BY_ID, blocks(RECIPES[:1])))
    assert "Traceback" in told.value.detail or "fetch" in told.value.detail


def test_a_place_where_no_engine_starts_is_given_up_and_the_others_go_on() -> None:
    work = blocks(RECIPES[:4])
    told: list[str] = []
    with Pool(spec(seconds=0.2, count=2), limit=len(work), log=told.append) as pool:
        bad = pool.workers.slots[1]

        def harm(pool: Pool, done: list[Answered | Failure]) -> None:
            if bad in pool.workers.slots and not bad.has_engine:
                ray.kill(bad.actor)

        done = run(pool, work, harm)
        assert bad not in pool.workers.slots
    assert questions(asked(done)) == questions(work)
    assert "given up" in told[-1]


def test_a_cluster_that_was_there_is_left_running() -> None:
    with session():
        pass
    assert ray.is_initialized()


def test_whatever_is_raised_arrives_with_its_whole_message(tmp_path: Path) -> None:
    """Whichever library raised it and whatever Ray can pickle, from an actor and through a second one."""
    actor, second = (ray.remote(Raising).options(num_cpus=0).remote() for _ in range(2))
    for name, (_, message) in PLANTED.items():
        for call in (actor.fail.remote(name), second.pass_on.remote(actor, name)):
            with pytest.raises(RayError) as caught:
                ray.get(call)
            error = described(caught.value)
            assert str(error).startswith(message), name
            assert "serializable" not in str(error) and "\n" not in str(error)
            assert message.partition(":")[0] in error.detail
            assert (error.number, error.filename) == ((errno.ENOSPC, "/x") if name == "disk" else (None, ""))
            write_json(tmp_path / "failure.json", {"message": str(error), "detail": error.detail})
