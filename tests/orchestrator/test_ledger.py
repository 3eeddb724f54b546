"""The ledger keeps all of a block or nothing of it, whatever happens, and never gives back what was not written."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config import Engine, Workers
from orchestrator.ledger import Ledger
from orchestrator.records import Answer, Asked, Block, Decoding, Profile, Question, Serving

SERVING = Serving("tokenizer", None, (0,), 512, "x", (), "a", "/nowhere")
PROFILE = Profile("fake", "float32", 1, "cpu")
QUESTIONS = [Question((i,), (i + 1,)) for i in range(40)]


def asked(block: Block, logprob: float = -1.0) -> Asked:
    answers = tuple(Answer(question.id, logprob, True, None, 1) for question in block.questions)
    return Asked(block, answers, 2.0, 3.0, "here")


def test_what_is_written_is_read_back_exactly(tmp_path: Path) -> None:
    texts = ["", "µ α\n", "a\x00b", "x" * 10_000]
    questions = [Question((i,), decoding=Decoding(8, ())) for i in range(len(texts))]
    answers = tuple(Answer(q.id, None, None, text, 3) for q, text in zip(questions, texts, strict=True))
    Ledger(tmp_path, SERVING, PROFILE).write(Asked(Block("r", tuple(questions)), answers, 0, 0, "w"))
    again = Ledger(tmp_path, SERVING, PROFILE)
    assert again.answers("r") == {answer.question_id: answer for answer in answers}
    assert again.damaged == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=6, unique=True), st.integers(1, 16))
def test_after_any_interruption_the_open_blocks_are_those_not_written(done: list[int], size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = Ledger(Path(folder), SERVING, PROFILE).missing(
            "r", [QUESTIONS[:25], QUESTIONS[20:]], Workers(block=size)
        )
        assert sorted(q.id for block in whole for q in block.questions) == sorted(q.id for q in QUESTIONS)
        ledger = Ledger(Path(folder), SERVING, PROFILE)
        written = [whole[index] for index in done if index < len(whole)]
        for block in written:
            ledger.write(asked(block))
        left = [block.id for block in whole if block not in written]
        for view in (ledger, Ledger(Path(folder), SERVING, PROFILE)):
            assert [
                block.id for block in view.missing("r", [QUESTIONS[:25], QUESTIONS[20:]], Workers(block=size))
            ] == left


def test_a_raised_limit_asks_only_the_new_questions(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, SERVING, PROFILE)
    for block in ledger.missing("r", [QUESTIONS[:10]], Workers(block=4)):
        ledger.write(asked(block))
    more = ledger.missing("r", [QUESTIONS], Workers(block=4))
    assert [q for block in more for q in block.questions] == QUESTIONS[10:]


def test_texts_come_in_blocks_of_four_batches(tmp_path: Path) -> None:
    texts = [Question((i,), decoding=Decoding(8, ())) for i in range(20)]
    workers = Workers(block=16, engine=Engine(max_num_seqs=2))
    found = Ledger(tmp_path, SERVING, PROFILE).missing("r", [QUESTIONS[:20], texts], workers)
    assert [len(block.questions) for block in found] == [16, 4, 8, 8, 4]


@pytest.mark.parametrize("crash", ["before the marker", "while writing"])
def test_an_unfinished_block_was_never_asked(tmp_path: Path, crash: str) -> None:
    ledger = Ledger(tmp_path, SERVING, PROFILE)
    block = Block("r", tuple(QUESTIONS[:4]))
    ledger.write(asked(block))
    (marker,) = tmp_path.glob("r/*/SUCCESS")
    if crash == "before the marker":
        marker.unlink()
    else:
        marker.rename(marker.with_name(".SUCCESS.tmp"))
    assert Ledger(tmp_path, SERVING, PROFILE).answers("r") == {}


@pytest.mark.parametrize("damage", ["flipped bit", "cut off", "gone", "marker cut off"])
def test_damage_is_found_and_said_and_asked_again(tmp_path: Path, damage: str) -> None:
    block = Block("r", tuple(QUESTIONS[:4]))
    Ledger(tmp_path, SERVING, PROFILE).write(asked(block))
    (file,) = tmp_path.glob("r/*/*.parquet")
    data = bytearray(file.read_bytes())
    if damage == "flipped bit":
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "cut off":
        file.write_bytes(data[:-10])
    elif damage == "gone":
        file.unlink()
    else:
        (file.parent / "SUCCESS").write_text('{"file": "')
    ledger = Ledger(tmp_path, SERVING, PROFILE)
    assert ledger.answers("r") == {}
    assert len(ledger.damaged) == 1 and str(file.parent) in ledger.damaged[0]
    ledger.write(asked(block, -2.0))
    assert {a.logprob for a in Ledger(tmp_path, SERVING, PROFILE).answers("r").values()} == {-2.0}


def test_two_writers_of_one_block_leave_one_of_the_two(tmp_path: Path) -> None:
    block = Block("r", tuple(QUESTIONS[:4]))
    for logprob in (-1.0, -2.0):
        Ledger(tmp_path, SERVING, PROFILE).write(asked(block, logprob))
    assert {a.logprob for a in Ledger(tmp_path, SERVING, PROFILE).answers("r").values()} == {-2.0}


def test_another_profile_or_serving_is_another_answer(tmp_path: Path) -> None:
    block = Block("r", tuple(QUESTIONS[:4]))
    others = [(SERVING, Profile("fake", "bfloat16", 1, "cpu")), (Serving("t", None, (), 9, "x", (), "a", "/"), PROFILE)]
    Ledger(tmp_path, SERVING, PROFILE).write(asked(block, -1.0))
    for serving, profile in others:
        ledger = Ledger(tmp_path, serving, profile)
        assert ledger.answers("r") == {}
        ledger.write(asked(block, -2.0))
    assert {a.logprob for a in Ledger(tmp_path, SERVING, PROFILE).answers("r").values()} == {-1.0}


def test_costs_add_up(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, SERVING, PROFILE)
    for block in ledger.missing("r", [QUESTIONS], Workers(block=20)):
        ledger.write(asked(block))
    for view in (ledger, Ledger(tmp_path, SERVING, PROFILE)):
        assert view.costs("r") == {"swap_s": 4.0, "answer_s": 6.0}


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    Ledger(tmp_path / "answers", SERVING, PROFILE).write(asked(Block("r", tuple(QUESTIONS[:4]))))
    for path in (tmp_path / "answers").rglob("*"):
        assert stat.S_IMODE(os.stat(path).st_mode) == (0o700 if path.is_dir() else 0o600), path
