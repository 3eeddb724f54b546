"""The generation tasks: their data sets' files, prompts, truncation and seeds, and a sweep over them.

The credentialed sets' files here were written for the purpose, in the official files' columns; no text is a patient's.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance

from orchestrator.cli.main import main
from orchestrator.config.generation import Generation, OwnTask
from orchestrator.config.load import load_config
from orchestrator.core.errors import UserError
from orchestrator.core.records import Serving
from orchestrator.stages.open import reopen_sweep
from orchestrator.sweep import run_sweep
from tasks.benchmarks.splits import choose_side
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.requests import Cut, CuttableInstance, Edge, cut_of
from tasks.generation.reader import Reader
from tasks.generation.sources import FILES, READERS, Examples, is_test, own_examples
from tasks.generation.task import GenerationTask, load_task, share
from tests.conftest import DEMO

IN_TRAINING = ["test1-96", "test1-106", "test2-59", "test2-153"]
MTS = Path(os.environ["MERGEFRONT_DATA"]) / "mts_dialog"
SECRET = "Zebrafish-plaintext"
"""Stands in every made text; may stand in no message."""


def write_csv(file: Path, columns: str, rows: list[list[str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns.split(","), *rows])


def read(task: str, folder: Path) -> Examples:
    return READERS[task](Reader(task, folder, "the place"))


def patients(test: bool, one_in: int, count: int) -> list[str]:
    """Ids that the hash puts on that side of the split."""
    return [str(i) for i in range(10_000) if is_test(str(i), one_in) == test][:count]


# -------------------------------------------------------------------- the data sets
def make_bhc(folder: Path) -> None:
    rows = [
        [f"{patient}-DS-{note}", f"{SECRET} note {patient}", f"{SECRET} course {patient}", "4", "3"]
        for patient in [*patients(True, 100, 2), *patients(False, 100, 3)]
        for note in (1, 2)
    ]
    write_csv(folder / "mimic-iv-bhc.csv", "note_id,input,target,input_tokens,target_tokens", rows)


def test_bhc_is_split_by_patient(tmp_path: Path) -> None:
    make_bhc(tmp_path)
    examples = read("clinical_bhc", tmp_path)
    first, second = patients(True, 100, 2)
    assert [example.id for example in examples.test] == [f"{p}-DS-{n}" for p in (first, second) for n in (1, 2)]
    assert examples.test[0].reference == f"{SECRET} course {first}"


XML = """<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{uid}"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Cough</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText><AbstractText Label="IMPRESSION">{impression}</AbstractText>
</Abstract></Article></MedlineCitation></eCitation>"""


def test_radiology_is_the_same_from_xml_and_from_csv(tmp_path: Path) -> None:
    uids = [*patients(True, 10, 3), *patients(False, 10, 2)]
    texts = [[uid, f"Lungs of {uid}.", f"Normal {uid}."] for uid in uids]
    texts[1][1] = ""  # many reports have no findings
    (tmp_path / "xml" / "ecgen-radiology").mkdir(parents=True)
    for uid, findings, impression in texts:
        file = tmp_path / "xml" / "ecgen-radiology" / f"{uid}.xml"
        file.write_text(XML.format(uid=uid, findings=findings, impression=impression))
    rows = [[uid, "normal", "normal", "PA", "Cough", "None.", *rest] for uid, *rest in texts]
    head = "uid,MeSH,Problems,image,indication,comparison,findings,impression"
    write_csv(tmp_path / "csv" / "indiana_reports.csv", head, rows)
    by_xml, by_csv = (read("clinical_radiology", tmp_path / kind) for kind in ("xml", "csv"))
    assert sorted(by_xml.test, key=lambda e: int(e.id)) == by_csv.test
    assert [example.id for example in by_csv.test] == [uids[0], uids[2]]
    assert by_xml.incomplete == by_csv.incomplete == 1


def test_aci_bench_has_three_test_sets(tmp_path: Path) -> None:
    head = "dataset,encounter_id,dialogue,note"
    names = ("train", "clinicalnlp_taskB_test1", "clinicalnlp_taskC_test2", "clef_taskC_test3", "valid")
    for index, name in enumerate(names):
        row = ["virtassist", f"D2N{index}", f"[doctor] hi\n[patient] hello {index}", f"CHIEF COMPLAINT\n\n{index}"]
        write_csv(tmp_path / "data" / "challenge_data" / f"{name}.csv", head, [row])
    examples = read("clinical_aci_bench", tmp_path)
    assert [example.id for example in examples.test] == ["D2N1", "D2N2", "D2N3"]
    assert [example.id for example in examples.validation] == ["D2N4"]
    assert examples.test[0].reference == "CHIEF COMPLAINT\n\n1"


def make_problem_list(folder: Path) -> None:
    head = "File ID,Assessment,Summary,Subjective Sections,Objective Sections"
    write_csv(folder / "BioNLP2023-1A-Train.csv", head, [["1", "a", "b", "c", "d"]])
    head = head.replace(" Sections", "s")
    rows = [["7", f"{SECRET} man with sepsis", "sepsis; AKI", "CC: chills", "T 39.1"], ["8", "x", "", "", ""]]
    write_csv(folder / "BioNLP2023-1A-Test.csv", head, rows)


def test_problem_list_reads_both_names_of_its_columns(tmp_path: Path) -> None:
    make_problem_list(tmp_path)
    examples = read("clinical_problem_list", tmp_path)
    (example,) = examples.test
    assert example.input == f"Assessment:\n{SECRET} man with sepsis\n\nSubjective:\nCC: chills\n\nObjective:\nT 39.1"
    assert (example.reference, examples.incomplete) == ("sepsis; AKI", 1)


@pytest.mark.skipif(not MTS.is_dir(), reason="MTS-Dialog is not in MERGEFRONT_DATA")
def test_mts_dialog_and_the_four_that_are_also_in_training(tmp_path: Path) -> None:
    official = {
        "train": "MTS-Dialog-TrainingSet.csv",
        "validation": "MTS-Dialog-ValidationSet.csv",
        "test1": "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv",
        "test2": "MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv",
    }
    columns = "ID,section_header,section_text,dialogue"
    for name, file in official.items():
        rows = [json.loads(line) for line in (MTS / f"{name}.jsonl").read_text().splitlines()]
        write_csv(tmp_path / "Main-Dataset" / file, columns, [[row[c] for c in columns.split(",")] for row in rows])
    examples = read("clinical_mts_dialog", tmp_path)
    assert examples == read("clinical_mts_dialog", MTS)
    assert len(examples.test) == 400
    assert [name for name in examples.in_training if name.startswith("test")] == IN_TRAINING
    assert len(examples.validation) == 100
    assert examples.test[0].section == "history of present illness"
    training = examples.training()
    assert training == read("clinical_mts_dialog", MTS).training()
    assert 1201 - 8 <= len(training) <= 1201 - 4, "those four, however often they stand there, are not learned from"
    assert len({example.id for example in training}) == len(training)


@pytest.mark.skipif(not MTS.is_dir(), reason="MTS-Dialog is not in MERGEFRONT_DATA")
def test_examples_that_are_also_in_training_are_numbered_as_they_are_asked() -> None:
    """lm-eval counts the documents of a selection anew."""
    task = load_task("here", "clinical_mts_dialog", Generation(data={"clinical_mts_dialog": str(MTS)}))
    task.build_all_requests(samples=[3, 96, 106, 353])
    (note,) = [note for note in task.notes() if "training split" in note]
    assert "3 of the 4 examples" in note and note.endswith("documents 1, 2, 3.")


@pytest.mark.skipif(not MTS.is_dir(), reason="MTS-Dialog is not in MERGEFRONT_DATA")
def test_mts_dialog_is_searched_on_its_validation_set() -> None:
    for side, split, count in (("search", "validation", 100), ("confirm", "test", 400)):
        task = load_task("here", "clinical_mts_dialog", Generation(data={"clinical_mts_dialog": str(MTS)}))
        assert choose_side("here", task, side) == (None, split)
        assert len(task.eval_docs) == count


def test_reports_that_are_also_in_training_are_found(tmp_path: Path) -> None:
    """Normal findings are dictated alike."""
    rows = [[str(i), "Lungs are clear." if i % 2 else f"Nodule {i}.", "Normal."] for i in range(200)]
    write_csv(tmp_path / "indiana_reports.csv", "uid,findings,impression", rows)
    examples = read("clinical_radiology", tmp_path)
    assert {example.id for example in examples.test if "clear" in example.input} == set(examples.in_training) != set()


# -------------------------------------------------------------------- what can be wrong with files
def test_what_is_wrong_is_told_without_the_text(tmp_path: Path) -> None:
    def told(task: str, pattern: str) -> None:
        with pytest.raises(UserError, match=pattern) as caught:
            read(task, tmp_path)
        assert "the place" in str(caught.value) and SECRET not in str(caught.value)

    told("clinical_bhc", r"generation\.data\.clinical_bhc .*mimic-iv-bhc\.csv is not there")
    write_csv(tmp_path / "mimic-iv-bhc.csv", "note_id,text", [["1", SECRET]])
    told("clinical_bhc", r"the first line of .*mimic-iv-bhc\.csv names no column 'input'")
    write_csv(tmp_path / "mimic-iv-bhc.csv", f"1000-DS-1,{SECRET},4", [["1", SECRET, "4"]])
    told("clinical_bhc", r"names no column 'note_id'")
    (tmp_path / "mimic-iv-bhc.csv").write_text(f'note_id,input,target\n1,"{SECRET}')
    told("clinical_bhc", r"mimic-iv-bhc\.csv, row 1: is not valid CSV")
    (tmp_path / "mimic-iv-bhc.csv").write_bytes(b"note_id,input,target\n1,\xff,b\n")
    told("clinical_bhc", "is not UTF-8 text")
    (tmp_path / "mimic-iv-bhc.csv").write_text("note_id,input,target\n")
    told("clinical_bhc", "has no rows")
    (tmp_path / "1.xml").write_text(f"<eCitation><uId id='CXR1'/>{SECRET}")
    told("clinical_radiology", r"1\.xml is not valid XML \(line 1\)")
    (tmp_path / "1.xml").write_text(f"<eCitation><uId id='CXR1'/><a>{SECRET}</a></eCitation>")
    told("clinical_radiology", r'1\.xml has no AbstractText Label="FINDINGS"')


def test_two_files_of_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    for folder in ("v1", "v2"):
        make_bhc(tmp_path / folder)
    with pytest.raises(UserError, match="exists there 2 times"):
        read("clinical_bhc", tmp_path)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", "is empty"),
        ('{"letter": "a", "summary": "b"}\n[1]', "line 2: is no object"),
        ('{"letter": "' + SECRET, "line 1: is not valid JSON"),
        (f'{{"letter": "{SECRET}", "note": "b"}}', "line 1 has no text in the field 'summary'"),
        (f'{{"{SECRET}": 1}}', "line 1 has no text in the field 'letter'"),
        ('{"letter": "a", "summary": "b"}\n\n\n7', "line 4: is no object"),
    ],
)  # fmt: skip
def test_own_files_that_are_wrong(lines: str, expected: str, tmp_path: Path) -> None:
    """JSON Lines, whatever the file is called."""
    (tmp_path / "own.json").write_text(lines)
    task = OwnTask(file=str(tmp_path / "own.json"), prompt="{{input}}", input="letter", reference="summary")
    with pytest.raises(UserError, match=expected) as caught:
        own_examples("letters", task)
    assert SECRET not in str(caught.value)


# -------------------------------------------------------------------- prompts
@pytest.fixture(scope="module")
def lm() -> LedgerLM:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO / "parents" / "instruct")
    return LedgerLM(Serving("t", None, (0,), 512, "x", (), "a", "/nowhere"), tokenizer, seed=5)


def request(context: str, cut: Cut | None = None, **settings: Any) -> Instance:
    arguments = (context, {"until": [], "max_gen_toks": 100, **settings})
    if cut is None:
        return Instance("generate_until", {}, arguments, 0, ("t", 0, 1))
    return CuttableInstance("generate_until", {}, arguments, 0, ("t", 0, 1), cut=cut)


@pytest.mark.parametrize("side", ["left", "right"])
def test_only_the_input_is_cut_from_the_side_that_the_task_says(side: Edge, lm: LedgerLM) -> None:
    text = " ".join(f"word{i}" for i in range(300))
    prompt = f"Summarize.\n\n{text}\n\nSummary:"
    (question,) = lm.questions(request(prompt, max_context_toks=120, cut=Cut(text, side)))
    kept = lm.tokenizer.decode(question.context)
    assert len(question.context) <= 120 < len(question.context) + 5, "as much as fits"
    assert question.truncated == len(lm.tok_encode(prompt)) - len(question.context)
    assert kept.startswith("Summarize.\n\n") and kept.endswith("\n\nSummary:")
    assert ("word0 " in kept) == (side == "right") and ("word299" in kept) == (side == "left")


def test_a_prompt_that_fits_is_not_cut_and_one_that_never_fits_is_refused(lm: LedgerLM) -> None:
    (question,) = lm.questions(request("A: b c", cut=Cut("b", "left")))
    assert question.truncated == 0
    with pytest.raises(UserError, match=r"tokens without its input, but room for 3"):
        lm.questions(request("Summarize this letter: b c", max_context_toks=3, cut=Cut("b", "left")))


def test_every_prompt_has_a_seed_of_its_own_and_the_same_tomorrow(lm: LedgerLM) -> None:
    def seed(prompt: str, repeat: int = 0) -> int | None:
        (question,) = lm.questions(request(prompt, do_sample=True, temperature=0.3), repeat)
        assert question.decoding is not None
        return question.decoding.seed

    assert len({seed("a"), seed("b"), seed("a", 1)}) == 3
    assert seed("a") == 2885444909, "the same in every process: rerun and resume find the stored answers"


def test_the_tasks_generate_as_the_paper_does(tmp_path: Path) -> None:
    make_problem_list(tmp_path)
    task = load_task("here", "clinical_problem_list", Generation(data={"clinical_problem_list": str(tmp_path)}))
    task.build_all_requests()
    (instance,) = task.instances
    prompt, settings = instance.args
    assert prompt.startswith("List the problems") and prompt.endswith("T 39.1\n\nProblems:")
    wanted = {
        "temperature": 0.3,
        "top_p": 0.9,
        "repetition_penalty": 1.2,
        "max_gen_toks": 8192,
        "max_context_toks": 8192,
    }
    assert settings == {"until": [], "do_sample": True, **wanted}
    assert cut_of(instance) == (instance.doc["input"], "right")
    assert set(FILES) == set(READERS)


def test_nothing_checked_is_nothing_unsupported() -> None:
    assert share([(1, 2), (0, 0), (3, 3)]) == 0.8
    assert share([(0, 0)]) == 1.0


# -------------------------------------------------------------------- sweeps
@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    rows = [{"letter": f"{SECRET} {i}: takes 5 mg", "summary": f"{SECRET} takes 5 mg"} for i in range(6)]
    (tmp_path / "letters.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prompt = "Summarize.\n{{input}}\nSummary:"
    return {"letters": {"file": "letters.jsonl", "prompt": prompt, "input": "letter", "reference": "summary"}}


OBJECTIVE = {"metric": "composite_without_bertscore", "gen_kwargs": {"max_gen_toks": 64}}


def test_a_sweep_over_an_own_task(sweep: Callable[..., Path], own: dict[str, Any], tmp_path: Path, capfd: Any) -> None:
    path = sweep(objectives={"notes": {"tasks": ["letters"], **OBJECTIVE}}, generation={"own": own})
    board = run_sweep(path, tmp_path / "out")
    values = board.find("a").scores["notes"].tasks[0]
    assert set(values.metrics) == {
        "composite_without_bertscore",
        "bleu",
        "meteor",
        "rouge1",
        "rouge2",
        "rougeL",
        "faithfulness",
    }
    assert values.value == values.metrics["composite_without_bertscore"]
    assert any("BERTScore was left out" in note for note in board.notes)
    told = "".join(capfd.readouterr())
    written = [f for f in (tmp_path / "out").rglob("*") if f.is_file() and "answers" not in f.parts]
    for text in (SECRET, "fake answer"):
        assert text not in told and not any(text.encode() in file.read_bytes() for file in written)
    (remembered,) = (tmp_path / "out" / "metrics").iterdir()
    before = remembered.read_text()
    reopen_sweep(tmp_path / "out")
    assert run_sweep(path, tmp_path / "out").find("a").scores["notes"].tasks[0].metrics == values.metrics
    assert remembered.read_text() == before, "nothing was measured twice"


def test_metrics_are_measured_beside_the_generation(
    sweep: Callable[..., Path], own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.generation.metrics.measure", lambda *_: pytest.fail("measured by the driver"))
    path = sweep(objectives={"notes": {"tasks": ["letters"], **OBJECTIVE}}, generation={"own": own})
    assert all(row.status == "scored" for row in run_sweep(path, tmp_path / "out").rows)
    (remembered,) = (tmp_path / "out" / "metrics").iterdir()
    lines = remembered.read_text().split()
    remembered.unlink()  # as if the first run had been killed before it measured
    assert all(row.status == "scored" for row in run_sweep(path, tmp_path / "out").rows)
    assert len(remembered.read_text().split()) == len(lines)


def test_sixteen_sequences_unless_the_sweep_says_more(sweep: Callable[..., Path], own: dict[str, Any]) -> None:
    assert load_config(sweep()).workers.engine.max_num_seqs == 128
    assert load_config(sweep(generation={"own": own})).workers.engine.max_num_seqs == 16
    workers = {"backend": "fake", "engine": {"max_num_seqs": 64}}
    assert load_config(sweep(generation={"own": own}, workers=workers)).workers.engine.max_num_seqs == 64


def test_plan_refuses_the_encoder_that_run_would(sweep: Callable[..., Path], own: Any, capsys: Any) -> None:
    generation = {"own": own, "encoder": {"model": "./nowhere", "layer": 2}}
    assert (
        main(["plan", str(sweep(objectives={"notes": {"tasks": ["letters"], **OBJECTIVE}}, generation=generation))])
        == 2
    )
    assert "generation.encoder.model: the folder" in capsys.readouterr().err


def wrong(generation: dict[str, Any] | None, task: str, expected: str, **objective: Any) -> Any:
    return pytest.param(generation, {"tasks": [task], **OBJECTIVE, **objective}, expected, id=expected[:40])


@pytest.mark.parametrize(
    ("generation", "objective", "expected"),
    [
        wrong(None, "clinical_bhc", r"write it under generation\.data\.clinical_bhc; it can be had from https://physionet"),
        wrong({"data": {"clinical_bhc": "nowhere"}}, "clinical_bhc", "there is no such folder"),
        wrong({"data": {"clinical_bch": "."}}, "letters", r"generation\.data\.clinical_bch: no such task; did you mean 'clinical_bhc'"),
        wrong({"own": {"l": {"file": "f", "prompt": "x"}}}, "l", r"generation\.own\.l: prompt has no \{\{input\}\}"),
        wrong({"own": {"l": {"file": "f", "prompt": "{{input}}", "truncat": "left"}}}, "l", r"generation\.own\.l\.truncat: unknown key; did you mean 'truncate'"),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}} {{x}}"}}}, "l", r"generation\.own\.l\.prompt: 'x' cannot stand in it; only \{\{input\}\} can"),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}} {{reference}}"}}}, "l", r"prompt: 'reference' cannot stand in it"),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}} {% if %}"}}}, "l", r"generation\.own\.l\.prompt: .*; write Jinja"),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}}"}}}, "l", r"composite needs BERTScore's encoder, but generation\.encoder is missing", metric=None),
        wrong({"own": {"l": {"file": "letters.jsonl", "input": "letter", "reference": "summary", "prompt": "{{input}}"}}}, "l", r"has no metric 'rouge3'", metric="rouge3"),
    ],
)  # fmt: skip
def test_wrong_sweeps(
    generation: Any, objective: Any, expected: str, sweep: Callable[..., Path], own: Any, tmp_path: Path
) -> None:
    path = sweep(objectives={"notes": objective}, generation=generation)
    with pytest.raises(UserError, match=expected):
        run_sweep(path, tmp_path / "out")


def test_the_task_is_lm_evals(own: dict[str, Any], tmp_path: Path) -> None:
    from lm_eval.api.task import ConfigurableTask

    assert issubclass(GenerationTask, ConfigurableTask)
