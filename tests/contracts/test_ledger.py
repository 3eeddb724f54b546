"""The ledger keeps all of a block or nothing of it, whatever happens, and never gives back what was not written; in a
folder and in object storage alike."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.core.records import Answer, Answered, Block, Decoding, Profile, Question, Serving
from orchestrator.core.store import StorageError, Store, patiently
from orchestrator.ledger.ledger import Ledger
from tests.helpers.paths import ROOT
from tests.helpers.storage import moto

SERVING = Serving("tokenizer", None, (0,), 512, "x", (), "a", "/nowhere")
PROFILE = Profile("fake", "float32", 1, "cpu")
QUESTIONS = [Question((i,), (i + 1,)) for i in range(40)]

Place = Callable[[], str]


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A new location each time."""
    bucket = request.getfixturevalue("bucket") if request.param == "s3" else lambda name: str(tmp_path / name)
    return lambda: bucket(uuid.uuid4().hex)


def asked(block: Block, logprob: float = -1.0) -> Answered:
    answers = tuple(Answer(question.id, logprob, True, None, 1) for question in block.questions)
    return Answered(block, answers, 2.0, 3.0, "here")


def logprobs(where: str) -> set[float | None]:
    return {answer.logprob for answer in Ledger(where, SERVING, PROFILE).answers("r").values()}


def files(store: Store) -> tuple[str, str]:
    """Of a ledger of one block: its Parquet file and its marker."""
    marker, data = sorted(entry.name for entry in store.list())
    return data, marker


def test_what_is_written_is_read_back_exactly(place: Place) -> None:
    texts = ["", "µ α\n", "a\x00b", "x" * 10_000]
    questions = [Question((i,), decoding=Decoding(8, ())) for i in range(len(texts))]
    answers = tuple(Answer(q.id, None, None, text, 3) for q, text in zip(questions, texts, strict=True))
    where = place()
    Ledger(where, SERVING, PROFILE).write(Answered(Block("r", tuple(questions)), answers, 0, 0, "w"))
    again = Ledger(where, SERVING, PROFILE)
    assert again.answers("r") == {answer.question_id: answer for answer in answers}
    assert again.damaged == []


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(done=st.lists(st.integers(0, 5), max_size=6, unique=True), size=st.integers(1, 16))
def test_after_any_interruption_the_open_blocks_are_those_not_written(place: Place, done: list[int], size: int) -> None:
    where, suites, workers = place(), [QUESTIONS[:25], QUESTIONS[20:]], Workers(block=size)
    ledger = Ledger(where, SERVING, PROFILE)
    whole = ledger.missing("r", suites, workers)
    assert sorted(q.id for block in whole for q in block.questions) == sorted(q.id for q in QUESTIONS)
    written = [whole[index] for index in done if index < len(whole)]
    for block in written:
        ledger.write(asked(block))
    left = [block.id for block in whole if block not in written]
    for view in (ledger, Ledger(where, SERVING, PROFILE)):
        assert [block.id for block in view.missing("r", suites, workers)] == left


def test_a_raised_limit_asks_only_the_new_questions(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, SERVING, PROFILE)
    for block in ledger.missing("r", [QUESTIONS[:10]], Workers(block=4)):
        ledger.write(asked(block))
    more = ledger.missing("r", [QUESTIONS], Workers(block=4))
    assert [q for block in more for q in block.questions] == QUESTIONS[10:]


def test_texts_come_in_blocks_of_four_batches(tmp_path: Path) -> None:
    texts = [Question((i,), decoding=Decoding(8, ())) for i in range(20)]
    workers = Workers(block=16, engine=EngineSettings(max_num_seqs=2))
    found = Ledger(tmp_path, SERVING, PROFILE).missing("r", [QUESTIONS[:20], texts], workers)
    assert [len(block.questions) for block in found] == [16, 4, 8, 8, 4]


def test_an_unfinished_block_was_never_asked(place: Place) -> None:
    where = place()
    Ledger(where, SERVING, PROFILE).write(asked(Block("r", tuple(QUESTIONS[:4]))))
    store = Store(where)
    store.delete(files(store)[1])
    again = Ledger(where, SERVING, PROFILE)
    assert again.answers("r") == {} and again.damaged == []


def _change(marker: bytes, **values: Any) -> bytes:
    return json.dumps({**json.loads(marker), **values}).encode()


DAMAGE: dict[str, Callable[[bytes, bytes], tuple[bytes | None, bytes]]] = {
    "flipped bit": lambda data, marker: (data[:60] + bytes([data[60] ^ 1]) + data[61:], marker),
    "cut off": lambda data, marker: (data[:-10], marker),
    "gone": lambda data, marker: (None, marker),
    "marker cut off": lambda data, marker: (data, b'{"file": "'),
    "marker is no object": lambda data, marker: (data, b"[]"),
    "marker names a file elsewhere": lambda data, marker: (data, _change(marker, file="../../secret.parquet")),
    "marker with other rows": lambda data, marker: (data, _change(marker, rows=5)),
    "marker with another hash": lambda data, marker: (data, _change(marker, sha256="0" * 64)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_and_said_and_asked_again(place: Place, damage: str) -> None:
    where, block = place(), Block("r", tuple(QUESTIONS[:4]))
    Ledger(where, SERVING, PROFILE).write(asked(block))
    store = Store(where)
    file, marker = files(store)
    data, note = DAMAGE[damage](store.read(file), store.read(marker))
    store.delete(file)
    if data is not None:
        store.write(file, data)
    store.write(marker, note)
    ledger = Ledger(where, SERVING, PROFILE)
    assert ledger.answers("r") == {}
    assert len(ledger.damaged) == 1 and marker.removesuffix("/SUCCESS") in ledger.damaged[0]
    ledger.write(asked(block, -2.0))
    assert logprobs(where) == {-2.0}


def test_a_parquet_file_of_other_columns_is_damage(tmp_path: Path) -> None:
    """Its marker may well be right: a shared ledger is written by others."""
    import hashlib

    import pyarrow as pa

    Ledger(tmp_path, SERVING, PROFILE).write(asked(Block("r", tuple(QUESTIONS[:4]))))
    store = Store(tmp_path)
    file, marker = files(store)
    pq.write_table(pa.table({"question_id": ["a", "b", "c", "d"], "score": [1, 2, 3, 4]}), tmp_path / file)
    digest = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
    store.write(marker, _change(store.read(marker), sha256=digest))
    ledger = Ledger(tmp_path, SERVING, PROFILE)
    assert ledger.answers("r") == {}
    assert "other columns or rows" in ledger.damaged[0]


def test_two_writers_of_one_block_leave_one_of_the_two(place: Place) -> None:
    where = place()
    for logprob in (-1.0, -2.0):
        Ledger(where, SERVING, PROFILE).write(asked(Block("r", tuple(QUESTIONS[:4])), logprob))
    assert logprobs(where) == {-2.0}


def test_another_profile_or_serving_is_another_answer(place: Place) -> None:
    where, block = place(), Block("r", tuple(QUESTIONS[:4]))
    others = [(SERVING, Profile("fake", "bfloat16", 1, "cpu")), (Serving("t", None, (), 9, "x", (), "a", "/"), PROFILE)]
    Ledger(where, SERVING, PROFILE).write(asked(block, -1.0))
    for serving, profile in others:
        ledger = Ledger(where, serving, profile)
        assert ledger.answers("r") == {}
        ledger.write(asked(block, -2.0))
    assert logprobs(where) == {-1.0}


def test_costs_add_up(place: Place) -> None:
    where = place()
    ledger = Ledger(where, SERVING, PROFILE)
    for block in ledger.missing("r", [QUESTIONS], Workers(block=20)):
        ledger.write(asked(block))
    for view in (ledger, Ledger(where, SERVING, PROFILE)):
        assert view.costs("r") == {"swap_s": 4.0, "answer_s": 6.0}


def test_what_is_forgotten_is_asked_again(place: Place) -> None:
    where = place()
    ledger = Ledger(where, SERVING, PROFILE)
    for recipe in ("r", "s"):
        ledger.write(asked(Block(recipe, tuple(QUESTIONS[:4]))))
    ledger.forget("r")
    for view in (ledger, Ledger(where, SERVING, PROFILE)):
        assert (len(view.answers("r")), len(view.answers("s"))) == (0, 4)
        assert view.costs("r") == {"swap_s": 0.0, "answer_s": 0.0}


def test_a_ledger_with_little_room_knows_the_same(tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path, SERVING, PROFILE, room) for room in (0, 10, 1000)]
    recipes = [f"r{number}" for number in range(6)]
    for start in (0, 4, 8):
        for recipe in recipes:
            ledgers[0].write(asked(Block(recipe, tuple(QUESTIONS[start : start + 4]))))
    for ledger in ledgers:
        for recipe in [*recipes, *reversed(recipes)]:
            assert len(ledger.answers(recipe)) == ledger.count(recipe) == 12
            assert ledger.costs(recipe) == {"swap_s": 6.0, "answer_s": 9.0}
        assert [len(ledger.answers(recipe)) for recipe in ledger.ahead(recipes)] == [12] * 6
        assert len(ledger.missing_of(recipes, [QUESTIONS], Workers(block=4))) == 6 * 7


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    Ledger(tmp_path / "answers", SERVING, PROFILE).write(asked(Block("r", tuple(QUESTIONS[:4]))))
    for path in (tmp_path / "answers").rglob("*"):
        assert stat.S_IMODE(os.stat(path).st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_shared_folder_is_as_readable_as_who_made_it_said(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "team").chmod(0o770)
    Ledger(tmp_path / "team", SERVING, PROFILE).write(asked(Block("r", tuple(QUESTIONS[:4]))))
    for path in (tmp_path / "team").rglob("*"):
        assert stat.S_IMODE(os.stat(path).st_mode) == (0o770 if path.is_dir() else 0o660), path


# -------------------------------------------------------------------- many at once
WRITER = """
import sys
from orchestrator.ledger.ledger import Ledger
from orchestrator.core.records import Answer, Answered, Block, Profile, Question, Serving
where, number = sys.argv[1], int(sys.argv[2])
ledger = Ledger(where, Serving("tokenizer", None, (0,), 512, "x", (), "a", "/nowhere"), Profile("fake", "float32", 1, "cpu"))
for start in range(0, 40, 4):
    questions = tuple(Question((i,), (i + 1,)) for i in range(start, start + 4))
    answers = tuple(Answer(question.id, -1.0 - number, True, None, 1) for question in questions)
    for recipe in ("shared", f"own{number}"):
        ledger.write(Answered(Block(recipe, questions), answers, 0.1 * number, 3.0, "here"))
"""


def test_many_writers_and_a_reader(place: Place) -> None:
    where, writers = place(), 3
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, where, str(n)], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
        for n in range(writers)
    ]
    seen = 0
    while any(writer.poll() is None for writer in running):
        reader = Ledger(where, SERVING, PROFILE)
        found = reader.answers("shared")
        assert reader.damaged == []
        assert len(found) >= seen and len(found) % 4 == 0
        seen = len(found)
    assert [writer.returncode for writer in running] == [0] * writers
    ledger = Ledger(where, SERVING, PROFILE)
    blocks = [[ledger.answers("shared")[q.id].logprob for q in QUESTIONS[s : s + 4]] for s in range(0, 40, 4)]
    assert all(len(set(block)) == 1 for block in blocks), "every block is one writer's"
    assert [{a.logprob for a in ledger.answers(f"own{n}").values()} for n in range(writers)] == [
        {-1.0 - n} for n in range(writers)
    ]
    assert ledger.damaged == []


def test_the_store_is_listed_once(bucket: Any) -> None:
    where = bucket("listed")
    ledger = Ledger(where, SERVING, PROFILE)
    recipes = [f"r{number}" for number in range(20)]
    for recipe in recipes:
        ledger.write(asked(Block(recipe, tuple(QUESTIONS[:4]))))
    before = bucket.log.read_text().count("list-type=2")
    again = Ledger(where, SERVING, PROFILE)
    assert sum(len(again.answers(recipe)) for recipe in again.ahead(recipes)) == 80
    assert bucket.log.read_text().count("list-type=2") - before == 1


# -------------------------------------------------------------------- storage that cannot be had
def test_storage_that_goes_away_is_waited_for_and_nothing_stored_is_lost(bucket: Any) -> None:
    """All three at once: pyarrow itself tries for six seconds before it says so."""
    where, blocks = bucket("away"), [Block("r", tuple(QUESTIONS[start : start + 4])) for start in (0, 4, 8)]
    writer, reader = Ledger(where, SERVING, PROFILE), Ledger(where, SERVING, PROFILE)
    writer.write(asked(blocks[0]))
    assert reader.answers("s") == {}
    told: list[str] = []
    bucket.door.shut()
    with ThreadPoolExecutor(3) as pool:
        impatient = pool.submit(patiently, lambda: writer.write(asked(blocks[1])), told.append, 0)
        reading = pool.submit(reader.answers, "r")
        early: list[Future[Any]] = [impatient, reading]

        def back(text: str) -> None:
            told.append(text)
            wait(early)
            bucket.door.open()

        pool.submit(patiently, lambda: writer.write(asked(blocks[2])), back).result()
    for stopped, what in ((impatient, "written"), (reading, "read")):
        with pytest.raises(StorageError, match=rf"ledger: .* cannot be {what} .* the same command resumes"):
            stopped.result()
    assert len(told) == 1 and "trying again for 300 s" in told[0]
    assert reader.damaged == [], "what cannot be reached is not damaged"
    known = {*Ledger(where, SERVING, PROFILE).answers("r")}
    assert known == {question.id for index in (0, 2) for question in blocks[index].questions}


def test_a_bucket_that_is_not_there_is_said(bucket: Any) -> None:
    with pytest.raises(StorageError, match="there is no bucket 'other'"):
        Store(bucket("x").replace("bucket/", "other/"))


def test_wrong_credentials_are_said(tmp_path: Path) -> None:

    with (
        moto(tmp_path / "log", INITIAL_NO_AUTH_ACTION_COUNT="0") as port,
        pytest.raises(StorageError, match=r"ledger: .* cannot be opened .*credentials") as caught,
    ):
        Store(f"s3://bucket/x?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1")
    assert "secret" not in str(caught.value)
