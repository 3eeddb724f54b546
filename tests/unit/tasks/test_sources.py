"""The generation tasks' data sets: their files, splits, and what can be wrong with them.

The credentialed sets' files here were written for the purpose, in the official files' columns; no text is a patient's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.generation import Generation, OwnTask
from orchestrator.core.errors import UserError
from tasks.benchmarks.questions import question_of
from tasks.benchmarks.splits import Chosen, Side, Sides, documents_by_split
from tasks.generation.own import own_examples
from tasks.generation.reader import Reader
from tasks.generation.sources import READERS, Example, Examples, is_test, read_published
from tasks.generation.task import load_task
from tests.helpers.clinical import SECRET, make_problem_list, write_csv
from tests.helpers.paths import DATA

IN_TRAINING = ["test1-96", "test1-106", "test2-59", "test2-153"]

MTS = DATA / "mts_dialog"


def read(task: str, folder: Path) -> Examples:
    return READERS[task](Reader(task, folder, "the place"))


def patients(test: bool, one_in: int, count: int) -> list[str]:
    """Ids that the hash puts on that side of the split."""
    return [str(i) for i in range(10_000) if is_test(str(i), one_in) == test][:count]


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
    sides: list[tuple[Side, str, int]] = [("search", "validation", 100), ("confirm", "test", 400)]
    for side, split, count in sides:
        task = load_task("here", "clinical_mts_dialog", Generation(data={"clinical_mts_dialog": str(MTS)}))
        texts = {
            ("clinical_mts_dialog", name): [question_of(task, document).text for document in documents]
            for name, documents in documents_by_split(task).items()
        }
        assert Sides("question", texts).choose("here", task, side) == Chosen(None, split)
        assert len(task.eval_docs) == count


def test_reports_that_are_also_in_training_are_found(tmp_path: Path) -> None:
    """Normal findings are dictated alike."""
    rows = [[str(i), "Lungs are clear." if i % 2 else f"Nodule {i}.", "Normal."] for i in range(200)]
    write_csv(tmp_path / "indiana_reports.csv", "uid,findings,impression", rows)
    examples = read("clinical_radiology", tmp_path)
    assert {example.id for example in examples.test if "clear" in example.input} == set(examples.in_training) != set()


def test_what_is_wrong_is_told_without_the_text(tmp_path: Path) -> None:
    def told(task: str, pattern: str) -> None:
        with pytest.raises(UserError, match=pattern) as caught:
            read(task, tmp_path)
        assert str(caught.value).startswith("generation.data.clinical_") and SECRET not in str(caught.value)

    told("clinical_bhc", r"mimic-iv-bhc\.csv is not there; it has no files; the data set is available from the place")
    write_csv(tmp_path / "mimic-iv-bhc.csv", "note_id,text", [["1", SECRET]])
    told("clinical_bhc", r"the first line of .*mimic-iv-bhc\.csv names no column 'input'")
    write_csv(tmp_path / "mimic-iv-bhc.csv", f"1000-DS-1,{SECRET},4", [["1", SECRET, "4"]])
    told("clinical_bhc", r"names no column 'note_id'")
    (tmp_path / "mimic-iv-bhc.csv").write_text(f'note_id,input,target\n1,"{SECRET}')
    told("clinical_bhc", r"mimic-iv-bhc\.csv, row 1 \(line 2\): is not valid CSV")
    (tmp_path / "mimic-iv-bhc.csv").write_bytes(b"note_id,input,target\n1,\xff,b\n")
    told("clinical_bhc", "is not UTF-8 text")
    (tmp_path / "mimic-iv-bhc.csv").write_text("note_id,input,target\n")
    told("clinical_bhc", "has no rows")
    (tmp_path / "1.xml").write_text(f"<eCitation><uId id='CXR1'/>{SECRET}")
    told("clinical_radiology", r"1\.xml is not valid XML \(line 1\)")
    (tmp_path / "1.xml").write_text(f"<eCitation><uId id='CXR1'/><a>{SECRET}</a></eCitation>")
    told("clinical_radiology", r'1\.xml does not have one AbstractText Label="FINDINGS"')


REPORTS = "uid,findings,impression"


def make_reports(file: Path, ids: Sequence[object] = range(200), mark: str = ",") -> None:
    rows = [mark.join((str(i), f'"Lungs{mark} case {number}."', f"Normal {number}.")) for number, i in enumerate(ids)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([REPORTS.replace(",", mark), *rows, ""]))


@pytest.mark.parametrize(
    "ids",
    [
        [f"{i}.0" for i in range(200)],
        [f"CXR{i}" for i in range(200)],
        [f"{i:04}" for i in range(200)],
        [f" {i} " for i in range(200)],
    ],
    ids=["floats", "CXR", "leading zeros", "blanks"],
)
def test_a_split_by_ids_is_that_of_the_published_spelling(tmp_path: Path, ids: list[str]) -> None:
    make_reports(tmp_path / "published" / "indiana_reports.csv")
    make_reports(tmp_path / "other" / "indiana_reports.csv", ids, mark=";")
    published, other = (read("clinical_radiology", tmp_path / name).test for name in ("published", "other"))
    assert [(e.id, e.reference) for e in other] == [(e.id, e.reference) for e in published] and published


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["1", "2", "1"], r"row 3 \(line 4\): has the 'uid' of row 1 \(line 2\): perhaps the file was loaded twice"),
        ([*range(9)] * 2, "perhaps the file was loaded twice"),
        (["1", "1.0"], "has the 'uid' of row 1"),
        (["1", "CXR001"], "has the 'uid' of row 1"),
        (["1", "1e+05"], r"row 2 \(line 3\): 'uid' is a number with a fraction or an exponent"),
        (["1", "2.5"], "a number with a fraction"),
        (["1", "nan"], r"row 2 \(line 3\): 'uid' is nan, which programs write"),
        (["1", ""], r"row 2 \(line 3\): has no 'uid'"),
    ],
)
def test_ids_that_are_none(tmp_path: Path, ids: list[str], message: str) -> None:
    make_reports(tmp_path / "indiana_reports.csv", ids)
    with pytest.raises(UserError, match=message):
        read("clinical_radiology", tmp_path)


def test_another_number_of_rows_than_published_is_noted(tmp_path: Path) -> None:
    make_problem_list(tmp_path)
    notes = read_published("clinical_problem_list", tmp_path, "").remarks
    assert any("BioNLP2023-1A-Test.csv has 2 rows, but its authors published 237" in note for note in notes)
    assert any("BioNLP2023-1A-Train.csv has 1 row, but its authors published 768" in note for note in notes)
    make_reports(tmp_path / "indiana_reports.csv", range(3851))
    assert read_published("clinical_radiology", tmp_path, "").remarks == ()
    make_reports(tmp_path / "indiana_reports.csv", range(3850))
    (remark,) = read_published("clinical_radiology", tmp_path, "").remarks
    assert "indiana_reports.csv has 3850 rows, but its authors published 3851" in remark


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    make_reports(tmp_path / "indiana_reports.csv")
    for name in (
        "._1.xml",
        "__MACOSX/1.xml",
        ".ipynb_checkpoints/indiana_reports.csv",
        "Thumbs.db",
        "~$x.xml",
        "2.xml.tmp",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert len(read("clinical_radiology", tmp_path).test) > 10


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["indiana_reports.csv", "xml/1.xml"], "the data set in two forms, indiana_reports.csv and 1 XML report"),
        (["xml/1.xml", "xml/1 (1).xml"], r"has xml/1 \(1\).xml and xml/1.xml, which are forms or versions of one file"),
        (
            ["indiana_reports.csv", "indiana_reports.csv.gz"],
            "has indiana_reports.csv and indiana_reports.csv.gz, which",
        ),
        (["indiana_reports.csv", "Indiana_Reports.csv"], "has Indiana_Reports.csv and indiana_reports.csv, which"),
        (
            ["indiana_reports.csv", "indiana_reports (1).csv"],
            r"indiana_reports \(1\).csv and indiana_reports.csv, which",
        ),
        (
            ["indiana_reports.csv", "indiana_reports - Copy.csv"],
            "indiana_reports - Copy.csv and indiana_reports.csv, which",
        ),
        (["NLMCXR_reports.tgz", "README"], "is not there; it has 'NLMCXR_reports.tgz': unpack it; the data set is"),
        (["Indiana_Reports.CSV"], "is not there, but 'Indiana_Reports.CSV' is: rename"),
        (["below/indiana_reports.xlsx"], "is not there, but 'below/indiana_reports.xlsx' is: rename, unpack or save"),
        (["images.txt"], "is not there; it has 1 file: 'images.txt'"),
    ],
)
def test_folders_with_two_forms_or_none(tmp_path: Path, there: list[str], message: str) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message):
        read("clinical_radiology", tmp_path)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    for name, message in (("Data", "no such folder, but 'data' is there"), ("f.zip", "is a file; name its folder")):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "f.zip").touch()
        with pytest.raises(UserError, match=message):
            read_published("clinical_radiology", tmp_path / name, "the place")


def test_a_csv_beside_json_lines_is_not_guessed_between(tmp_path: Path) -> None:
    for name in ("MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv", "test1.jsonl"):
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"2023.csv and test1.jsonl, which are forms or versions of one file"):
        read("clinical_mts_dialog", tmp_path)


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
        (f'{{"letter": "{SECRET}", "note": "b"}}', "line 1: has no text in the field 'summary'"),
        (f'{{"{SECRET}": 1}}', "line 1: has no text in the field 'letter'"),
        ('{"letter": "a", "summary": "b"}\n\n\n7', "line 4: is no object"),
        ('{"letter": "a", "summary": 5}', "line 1: 'summary' is a number, not text"),
        ('{"letter": ["a"], "summary": "b"}', "line 1: 'letter' is a list, not text"),
        ('{"letter": "a", "summary": null}', "line 1: has no text in the field 'summary'"),
        ('{"letter": "a", "summary": []}', "line 1: has no text in the field 'summary'"),
        ('{"letter": "a", "summary": ["b", ""]}', "line 1: has no text in the field 'summary'"),
        ('{"letter": "a", "summary": ["b", null]}', r"line 1: 'summary'\[1\] is null, not text"),
        ('{"letter": "a", "summary": {"b": 1}}', "line 1: 'summary' is an object, not text"),
    ],
)  # fmt: skip
def test_own_files_that_are_wrong(lines: str, expected: str, tmp_path: Path) -> None:
    """JSON Lines, whatever the file is called."""
    (tmp_path / "own.json").write_text(lines)
    task = OwnTask(file=str(tmp_path / "own.json"), prompt="{{input}}", input="letter", reference="summary")
    with pytest.raises(UserError, match=expected) as caught:
        own_examples("letters", task)
    assert SECRET not in str(caught.value)


def test_own_files_are_lines_an_array_or_a_table(tmp_path: Path) -> None:
    forms = {
        "a.jsonl": '{"letter": "x\u2028y", "summary": "b"}',
        "a.json": '[{"letter": "x\u2028y",\n"summary": "b"}]',
        "a.csv": "summary;letter\nb;x\u2028y\n",
    }
    for name, content in forms.items():
        (tmp_path / name).write_text(content, encoding="utf-8-sig")
        task = OwnTask(file=str(tmp_path / name), prompt="{{input}}", input="letter", reference="summary")
        assert own_examples("letters", task).test == [Example("1", "x\u2028y", "b")]


def test_own_examples_that_are_there_again_are_noted(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"input": "a", "reference": "b"}\n' * 3 + '{"input": "a", "reference": "c"}\n')
    own = OwnTask(file=str(tmp_path / "own.jsonl"), prompt="{{input}}")
    assert own_examples("letters", own).remarks == (
        "letters: 2 of the 4 examples are there again, with the same input and reference.",
    )


def test_several_references_of_an_own_task(tmp_path: Path) -> None:
    rows = [{"input": "a b", "reference": ["has a cough", "coughs"]}, {"input": "c", "reference": "none"}]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = OwnTask(file=str(tmp_path / "own.jsonl"), train=str(tmp_path / "own.jsonl"), prompt="{{input}}")
    task = load_task("here", "letters", Generation(own={"letters": own}))
    assert [doc["reference"] for doc in task.eval_docs] == [["has a cough", "coughs"], ["none"]]
    assert [task.doc_to_target(doc) for doc in task.eval_docs] == [["has a cough", "coughs"], ["none"]]
    task.build_all_requests()
    first, second = (instance.doc for instance in task.instances)
    for text in ("coughs", "has a cough"):
        values = task.process_results(first, [text])
        assert all(values[name] == pytest.approx(1) for name in ("bleu", "rouge1", "rougeL"))
        assert values["meteor"] == max(task.measured.values(text, one, "")["meteor"] for one in first["reference"]) > 0
    assert task.process_results(second, ["none"])["rouge1"] == 1
    assert [each.reference for each in own_examples("letters", own).read_training()] == ["has a cough", "none"]


def test_weak_labels_have_weights(tmp_path: Path) -> None:
    rows = [{"input": "a", "reference": "b", "sure": 0.5}, {"input": "c", "reference": "d"}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text('{"input": "e", "reference": "f"}\n')
    given: dict[str, Any] = {
        "file": str(tmp_path / "test.jsonl"),
        "train": str(tmp_path / "train.jsonl"),
        "prompt": "{{input}}",
    }
    own = OwnTask(**given, weight="sure")
    assert [example.weight for example in own_examples("letters", own).read_training()] == [0.5, 1.0]
    task = load_task("here", "letters", Generation(own={"letters": own}))
    assert "weight" not in task.dataset["test"].column_names, "documents are as they were without it"
    wrongs: list[Any] = [1.5, -0.1, "sure", None, True, [1]]
    for wrong in wrongs:
        (tmp_path / "train.jsonl").write_text(json.dumps({"input": "a", "reference": "b", "sure": wrong}) + "\n")
        with pytest.raises(UserError, match=r"generation.own.letters.train.*no number from 0 to 1 in the field 'sure'"):
            list(own_examples("letters", own).read_training())
    with pytest.raises(ValueError, match="train is missing"):
        OwnTask(file="x", prompt="{{input}}", weight="sure")
