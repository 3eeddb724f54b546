"""Messages about data_root say what is there, beside what is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.errors import UserError
from tasks.evaluation.data_root import DataSet, check_single, data_sets, found_instead
from tasks.evaluation.task_index import open_index

MEDMCQA: DataSet = ("openlifescienceai/medmcqa", None)
ANATOMY: DataSet = ("cais/mmlu", "anatomy")


@pytest.mark.parametrize(
    ("there", "wanted", "message"),
    [
        ("OpenLifeScienceAI/MedMCQA/a.jsonl", MEDMCQA, "data_root has 'OpenLifeScienceAI/MedMCQA': move or rename it"),
        ("medmcqa/a.jsonl", MEDMCQA, "data_root has 'medmcqa': move or rename it to openlifescienceai/medmcqa"),
        ("hub/datasets--openlifescienceai--medmcqa/refs/main", MEDMCQA, "has 'hub/datasets--openlifescienceai--medmcqa'"),
        ("openlifescienceai/medmcqa-2/a.jsonl", MEDMCQA, "no openlifescienceai/medmcqa, but 'medmcqa-2' is there"),
        ("openlifescience/x.jsonl", MEDMCQA, "no openlifescienceai/medmcqa, but 'openlifescience' is there"),
        ("medmcqa.zip", MEDMCQA, "no openlifescienceai/medmcqa: it has 'medmcqa.zip': unpack it"),
        ("cais/mmlu/mmlu/anatomy/test.jsonl", ANATOMY, "cais/mmlu/mmlu/anatomy is a folder too deep"),
        ("cais/mmlu/mmlu.tar.gz", ANATOMY, "cais/mmlu is there: it has 'mmlu.tar.gz': unpack it"),
        ("cais/mmlu/.cache/x", ANATOMY, "cais/mmlu is there: it has no files"),
    ],
)  # fmt: skip
def test_what_is_there_instead(tmp_path: Path, there: str, wanted: DataSet, message: str) -> None:
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / there).touch()
    assert message in found_instead(tmp_path, [wanted])


@pytest.mark.parametrize("second", ["test (1).jsonl", "TEST.jsonl", "test.csv", "test.jsonl.gz", "test - Copy.parquet"])
def test_two_forms_of_a_file_are_not_read_together(tmp_path: Path, second: str) -> None:
    folder = tmp_path / "cais" / "mmlu" / "anatomy"
    folder.mkdir(parents=True)
    for name in (
        "test.jsonl",
        "dev.jsonl",
        "v1.0.jsonl",
        "v1.1.jsonl",
        "README.md",
        "readme",
        "._test.jsonl",
        "test.py",
    ):
        (folder / name).touch()
    check_single(tmp_path, [ANATOMY, MEDMCQA])
    (folder / second).touch()
    with pytest.raises(UserError, match=r"data_root: cais/mmlu/anatomy/.* are forms or versions of one file"):
        check_single(tmp_path, [ANATOMY, MEDMCQA])


def test_a_root_that_is_the_data_set_itself(tmp_path: Path) -> None:
    (tmp_path / "medmcqa").mkdir()
    assert "data_root is itself named medmcqa" in found_instead(tmp_path / "medmcqa", [MEDMCQA])


def test_the_data_sets_of_a_group(tmp_path: Path) -> None:
    rest = "doc_to_text: x\ndoc_to_target: y\noutput_type: generate_until\n"
    (tmp_path / "a.yaml").write_text(
        f"task: own_a\ndataset_path: cais/mmlu\ndataset_name: anatomy\ntag: own_tag\n{rest}"
    )
    (tmp_path / "b.yaml").write_text(f"task: own_b\ndataset_path: openlifescienceai/medmcqa\ntag: own_tag\n{rest}")
    (tmp_path / "c.yaml").write_text("group: own_c\ntask: [own_a, {task: own_b}, own_c]\n")
    index = open_index(["own_c"], [str(tmp_path)])
    assert data_sets(index, "own_c") == data_sets(index, "own_tag") == [ANATOMY, MEDMCQA]
