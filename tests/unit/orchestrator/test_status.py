"""Status, export, gc and merge: from the files alone, of sweeps that live, died, or were damaged."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli.main import main
from orchestrator.config.load import load_config
from orchestrator.config.workers import Workers
from orchestrator.core.errors import UserError
from orchestrator.core.files import write_json
from orchestrator.core.records import Answer, Asked, Block, Decoding, Profile, Question, Serving
from orchestrator.core.store import Store
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.merge import merge
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_profile, make_serving
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Point, Source, single
from orchestrator.results.export import export
from orchestrator.results.gc import GRACE_S, collect, find_garbage, open_store
from orchestrator.results.heartbeat import Driver, driving, read_driver
from orchestrator.results.manifest import Note, write_note, write_questions
from orchestrator.results.status import describe, read_status
from tasks.evaluation.suites import SuiteTask
from tests.helpers.paths import ROOT

SERVING = Serving("tokenizer", None, (0,), 512, "x", (), "a", "/nowhere")
PROFILE = Profile("fake", "float32", 1, "cpu")
LETTERS = [Question((i,), (i + 1,)) for i in range(12)]
TEXTS = [Question((i,), decoding=Decoding(8, ())) for i in range(6)]


def asked(
    block: Block, logprob: float = -1.0, worker: str = "node:1", swap_s: float = 1.0, answer_s: float = 3.0
) -> Asked:
    answers = tuple(
        Answer(q.id, None, None, "a patient's text", 3) if q.decoding else Answer(q.id, logprob, True, None, 0)
        for q in block.questions
    )
    return Asked(block, answers, swap_s, answer_s, worker)


class Results:
    """A results folder as `run` writes it, with two objectives and four recipes, as far as the test answers them."""

    def __init__(self, path: Path, out: Path) -> None:
        self.out, config = out, load_config(path)
        files = resolve(config)
        sources = {name: found.source for name, found in files.items()}
        serving = make_serving(config, files, out / "serving")
        note = Note(config, sources, serving, make_profile(config), {})
        write_note(out, note)
        self.suites = [
            SuiteTask("clinical", "letters", None, [], 6, LETTERS, [i // 2 for i in range(12)]),
            SuiteTask("instruction", "texts", None, [], 6, TEXTS, list(range(6))),
        ]
        write_questions(out, {"sweep": self.suites})
        self.recipes = [recipe.id for recipe in expand(config, sources)]
        self.place = config.ledger or str(out / "answers")
        self.ledger = Ledger(self.place, serving, note.profile)
        self.blocks = {r: self.ledger.missing(r, [LETTERS, TEXTS], Workers(block=6)) for r in self.recipes}

    def answer(self, recipe: int, blocks: slice = slice(None), **how: Any) -> None:
        for block in self.blocks[self.recipes[recipe]][blocks]:
            self.ledger.write(asked(block, **how))


@pytest.fixture(params=["folder", "s3"])
def results(request: pytest.FixtureRequest, sweep: Callable[..., Path], tmp_path: Path) -> Results:
    place = request.getfixturevalue("bucket")(tmp_path.name) if request.param == "s3" else None
    return Results(sweep(ledger=place), tmp_path / "out")


def damage(store: Store) -> None:
    """Flip a bit of one Parquet file."""
    name = next(entry.name for entry in store.list() if entry.name.endswith(".parquet"))
    data = store.read(name)
    store.write(name, data[:40] + bytes([data[40] ^ 1]) + data[41:])


# -------------------------------------------------------------------- status
def test_status_counts_what_run_would_find(results: Results) -> None:
    results.answer(0)
    results.answer(1, slice(2), worker="node:2")
    failures = results.out / "failures"
    failures.mkdir()
    write_json(failures / f"{results.recipes[3]}.json", {"status": "invalid", "stage": "merge", "message": "NaN"})
    with driving(results.out):
        while read_driver(results.out) is None:
            time.sleep(0.01)
        status = read_status(results.out)
    assert status.state == "at work"
    assert status.recipes == {"done": 1, "pending": 2, "invalid": 1, "failed": 0}
    assert (status.answered, status.questions) == (18 + 12, 3 * 18)
    assert status.per_second is not None and status.left_s == pytest.approx(24 / status.per_second)
    assert [(worker.name, worker.blocks) for worker in status.workers] == []
    assert status.worker_hours == pytest.approx(5 * 4 / 3600)
    assert status.failures[0]["message"] == "NaN"
    assert status.damaged == []
    after = read_status(results.out)
    assert (after.state, after.per_second, after.answered) == ("ended", None, 30)
    assert "1 done, 2 pending, 1 invalid" in describe(after)


def test_status_of_a_dead_sweep_names_its_workers_and_its_damage(results: Results) -> None:
    dead = Driver("elsewhere", 4, time.time() - 900, time.time() - 600)
    write_json(results.out / "driver.json", dead.__dict__)
    results.answer(0, worker="node:1")
    results.answer(1, slice(1), worker="node:2")
    status = read_status(results.out)
    assert (status.state, status.answered) == ("dead", 18 + 6)
    assert [(worker.name, worker.blocks, worker.answers) for worker in status.workers] == [
        ("node:1", 3, 18),
        ("node:2", 1, 6),
    ]
    damage(Store(results.place))
    status = read_status(results.out)
    assert status.answered == 18 and len(status.damaged) == 1
    assert "does not match its SHA-256; run asks it again" in describe(status)
    assert "gave its last sign 10.0 min ago; the same command goes on" in describe(status)


@pytest.mark.parametrize(
    ("gpus", "ranks", "hours", "shown"),
    [(1.0, 2, 2.0, ", 2.00 GPU hours"), (0.5, 1, 0.5, ", 0.50 GPU hours"), (0.0, 2, 0.0, "")],
)
def test_gpu_hours_are_those_of_all_gpus_of_an_engine(
    sweep: Callable[..., Path], tmp_path: Path, gpus: float, ranks: int, hours: float, shown: str
) -> None:
    engine = {"max_model_len": 512, "tensor_parallel_size": ranks}
    results = Results(sweep(workers={"backend": "fake", "gpus": gpus, "engine": engine}), tmp_path / "out")
    results.answer(0, slice(1), swap_s=600.0, answer_s=3000.0)
    status = read_status(results.out)
    assert (status.worker_hours, status.gpu_hours) == (pytest.approx(1.0), pytest.approx(hours))
    assert f"1.00 worker hours{shown}\n" in describe(status) + "\n"
    workers = load_config(tmp_path / "sweep.yaml").workers
    assert workers.gpu_hours(3600.0) == (hours or 1.0), "in a budget a worker without a GPU counts as one"


def test_a_driver_that_was_killed_is_dead_at_once(tmp_path: Path) -> None:
    code = "import sys, pathlib, time; from orchestrator.results.heartbeat import *\nwith driving(pathlib.Path(sys.argv[1])): time.sleep(60)"
    driver = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
    while (found := read_driver(tmp_path)) is None:
        time.sleep(0.02)
    assert found.state == "at work" and found.pid == driver.pid
    driver.kill()
    driver.wait()
    assert found.state == "dead"


def test_status_is_quick_and_starts_nothing(sweep: Callable[..., Path], tmp_path: Path) -> None:
    results = Results(sweep(), tmp_path / "out")
    results.answer(0)
    code = (
        "import sys; from orchestrator.cli.main import main\n"
        f"assert main(['status', {str(results.out)!r}, '--json']) == 0\n"
        "heavy = {'torch', 'ray', 'vllm', 'transformers', 'mergekit', 'lm_eval', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answered"] == 18


def test_no_sweep_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["status", str(tmp_path)], ["ledger", "gc", str(tmp_path)]):
        assert main(command) == 2
        assert "holds no sweep (no sweep.json); give the folder that `run --out` wrote" in capsys.readouterr().err
    assert main(["ledger", "merge", str(tmp_path), str(tmp_path)]) == 2
    assert "holds neither a sweep nor a ledger" in capsys.readouterr().err
    assert main(["ledger", "merge", "s3://key:secret@bucket/x", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "ledger: the address holds a password in a URL" in told and "secret@" not in told


# -------------------------------------------------------------------- export
def test_export_has_a_row_an_answer_and_texts_only_where_asked(results: Results, tmp_path: Path) -> None:
    for recipe in range(len(results.recipes)):
        results.answer(recipe)
    for name, texts in (("plain", False), ("texts", True)):
        rows, damaged = export(results.out, tmp_path / f"{name}.parquet", texts)
        table = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
        assert rows == len(table) == 4 * 18 and damaged == []
        assert {row["text"] for row in table} == ({None, "a patient's text"} if texts else {None})
        assert stat.S_IMODE(os.stat(tmp_path / f"{name}.parquet").st_mode) == 0o600
    assert {row["label"] for row in table} == {"parent name=a", "parent name=b", "linear alpha=0.5", "slerp t=0.5"}
    one = next(r for r in table if r["label"] == "linear alpha=0.5" and r["question_id"] == LETTERS[5].id)
    assert (one["parents"], one["method"], json.loads(one["parameters"])) == ("a, b", "linear", {"alpha": 0.5})
    assert (one["objective"], one["task"], one["document"], one["logprob"]) == ("clinical", "letters", 2, -1.0)
    with pytest.raises(UserError, match="exists already"):
        export(results.out, tmp_path / "plain.parquet", False)


def test_export_gives_each_stage_its_own_scores(sweep: Callable[..., Path], tmp_path: Path) -> None:
    """Held-out questions those of the confirmed board, fine-tuned recipes those of tuning.parquet, others none."""
    results = Results(sweep(), tmp_path / "out")
    held_out, cards = ([Question((stage, i), (i,)) for i in range(6)] for stage in (100, 200))
    stages = {
        "confirm": [SuiteTask("clinical", "letters", None, [], 6, held_out, list(range(6)))],
        "tuned": [SuiteTask("cards", "texts", None, [], 6, cards, list(range(6)))],
    }
    write_questions(results.out, {"sweep": results.suites, **stages})
    run = results.out / "tuning" / ("ab" * 10)
    told = {"method": "lora", "start_label": "linear alpha=0.5", "task": "cards", "budget": "8", "seed": 0}
    (results.out / "confirmed").mkdir()
    run.mkdir(parents=True)
    write_json(run / "RESULT.json", told)
    finalist, other = results.recipes[2:]
    tuned = single(Source(run.name, "", ""), "float32", Point("tuned")).id
    boards = {
        "leaderboard": [{"recipe_id": finalist, "clinical": 0.5}, {"recipe_id": other, "clinical": 0.25}],
        "confirmed/leaderboard": [{"recipe_id": finalist, "clinical": 0.375}],
        "tuning": [{"recipe_id": tuned, "clinical": 0.125, "cards": 0.75}],
    }
    for name, rows in boards.items():
        pq.write_table(pa.Table.from_pylist(rows), results.out / f"{name}.parquet")
    for recipe in (finalist, other, tuned):
        for block in results.ledger.missing(recipe, [LETTERS, held_out, cards], Workers(block=64)):
            results.ledger.write(asked(block))
    export(results.out, tmp_path / "to.parquet", False)
    rows = pq.read_table(tmp_path / "to.parquet").to_pylist()
    assert {(row["recipe_id"], row["stage"], row["objective_score"]) for row in rows} == {
        (finalist, "sweep", 0.5), (finalist, "confirm", 0.375), (finalist, "tuned", None),
        (other, "sweep", 0.25), (other, "confirm", None), (other, "tuned", None),
        (tuned, "sweep", 0.125), (tuned, "confirm", None), (tuned, "tuned", 0.75),
    }  # fmt: skip


# -------------------------------------------------------------------- gc
def test_gc_tells_first_and_takes_only_what_nothing_refers_to(
    sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(sweep(), tmp_path / "out")
    answers, old = tmp_path / "out" / "answers", time.time() - GRACE_S - 10
    results.answer(0)
    results.answer(0)  # the files of the first time are superseded: three
    results.answer(1, slice(2))
    (answers / results.recipes[1]).rename(tmp_path / "aside")
    results.ledger.forget(results.recipes[1])
    (tmp_path / "aside").rename(answers / results.recipes[1])
    unfinished, broken = sorted((answers / results.recipes[1]).iterdir())
    (unfinished / "SUCCESS").unlink()
    (broken / "SUCCESS").write_text("{")
    (tmp_path / "out" / ".report.md.12345678.tmp").write_text("half")
    for folder in ("checkpoints/scratch/0/lora", "checkpoints/" + "a" * 20, "checkpoints/" + results.recipes[2]):
        (tmp_path / "out" / folder).mkdir(parents=True)
        (tmp_path / "out" / folder / "model.safetensors").write_bytes(b"x" * 100)
    (answers / "notes.txt").write_text("the user's own")

    assert {each.what for each in find_garbage(results.out) if each.in_ledger} == set(), "a writer may be at work"
    for file in answers.rglob("*"):
        os.utime(file, (old, old))
    before = {path for path in (tmp_path / "out").rglob("*")}
    garbage = find_garbage(results.out)
    kinds = {what: sum(each.what == what for each in garbage) for what in {each.what for each in garbage}}
    assert kinds == {
        "ledger: superseded or left over": 3,
        "ledger: of blocks that were never finished": 1,
        "ledger: of damaged blocks": 2,
        "half-written files": 1,
        "scratch of engines": 1,
        "checkpoints of recipes that the sweep no longer has": 1,
    }
    assert main(["ledger", "gc", str(results.out)]) == 0
    told = capsys.readouterr().out
    assert f"{sum(each.size for each in garbage):,} bytes  in all" in told and "`--yes` deletes" in told
    assert {path for path in (tmp_path / "out").rglob("*")} == before

    answered = read_status(results.out).answered
    assert main(["ledger", "gc", str(results.out), "--yes"]) == 0
    assert find_garbage(results.out) == []
    after = read_status(results.out)
    assert (after.answered, after.damaged) == (answered, []) and answered == 18
    assert (answers / "notes.txt").exists()
    assert (tmp_path / "out" / "checkpoints" / results.recipes[2]).exists()


def test_gc_leaves_a_bucket_that_others_write_to_alone(bucket: Any, sweep: Callable[..., Path], tmp_path: Path) -> None:
    results = Results(sweep(ledger=bucket("busy")), tmp_path / "out")
    results.answer(0)
    Store(results.place).write("r/b/answers-01234567.parquet", b"of a writer that is about to write its marker")
    collect(results.out, find_garbage(results.out))
    assert Store(results.place).read("r/b/answers-01234567.parquet")
    assert read_status(results.out).answered == 18


# -------------------------------------------------------------------- merge
Written = list[tuple[str, int, int, float]]
WRITTEN = st.lists(
    st.tuples(st.sampled_from("rs"), st.integers(0, 3), st.integers(1, 3), st.sampled_from([-1.0, -2.0, -3.0])),
    max_size=4,
)
"""Recipe, first question in fours, how many fours, log-probability: blocks that may overlap, or be the same."""


def write_all(where: Path, written: Written) -> None:
    ledger = Ledger(where, SERVING, PROFILE)
    for recipe, first, length, logprob in written:
        ledger.write(asked(Block(recipe, tuple(LETTERS[4 * first : 4 * (first + length)] or LETTERS[:4])), logprob))


def view(where: Path) -> dict[str, dict[str, Answer]]:
    ledger = Ledger(where, SERVING, PROFILE)
    found = {recipe: dict(sorted(ledger.answers(recipe).items())) for recipe in "rs"}
    assert ledger.damaged == []
    return found


@settings(max_examples=25, deadline=None)
@given(a=WRITTEN, b=WRITTEN, c=WRITTEN)
def test_merging_is_idempotent_commutative_and_associative(a: Written, b: Written, c: Written) -> None:
    with tempfile.TemporaryDirectory() as home:
        folders = {name: Path(home, name) for name in ("a", "b", "c")}
        for (_, folder), written in zip(folders.items(), (a, b, c), strict=True):
            write_all(folder, written)

        def merged(name: str, *order: str) -> dict[str, dict[str, Answer]]:
            for each in order:
                merge(Store(Path(home, name)), Store(folders[each] if each in folders else Path(home, each)))
            return view(Path(home, name))

        assert merged("ab", "a", "b") == merged("ba", "b", "a")
        assert merged("ab", "b", "a", "ab") == merged("ba")
        assert merged("ab_c", "ab", "c") == merged("bc_a", "b", "c", "a") == merged("c_ab", "c", "ab")
        known = {(r, q) for name in folders for r, found in view(folders[name]).items() for q in found}
        assert {(r, q) for r, found in view(Path(home, "ab_c")).items() for q in found} == known


def test_a_ledger_moves_into_a_bucket_and_damage_is_mended_from_the_other(
    bucket: Any, sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(sweep(), tmp_path / "out")
    results.answer(0)
    team = bucket("team")
    assert main(["ledger", "merge", team, str(results.out)]) == 0
    assert "3 blocks copied, 0 were there" in capsys.readouterr().out
    damage(Store(tmp_path / "out" / "answers"))
    assert main(["ledger", "merge", team, str(results.out)]) == 1
    assert "does not match its SHA-256; left out" in capsys.readouterr().err
    assert main(["ledger", "merge", str(results.out), team]) == 0
    assert "1 blocks copied, 2 were there" in capsys.readouterr().out
    assert read_status(results.out).damaged == [] and read_status(results.out).answered == 18
    assert len(open_store(str(tmp_path / "out" / "answers")).list()) == 6
