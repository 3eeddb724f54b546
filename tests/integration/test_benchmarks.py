"""The medical and instruction suites over the real data sets: which questions they are, how many, and on which side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from orchestrator.config.load import load_config
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_serving
from tasks.benchmarks.splits import Chosen, Side, used_split
from tasks.evaluation.entries import load_entries, read_sides
from tasks.evaluation.suites import SuiteTask, load_suites, open_lm
from tasks.evaluation.task_index import open_index
from tests.helpers.paths import HUB_DATA
from tests.helpers.sweeps import content

pytestmark = pytest.mark.skipif(not HUB_DATA.is_dir(), reason="needs the data sets in MERGEFRONT_DATA")

MMLU = [
    "anatomy",
    "clinical_knowledge",
    "college_biology",
    "college_medicine",
    "medical_genetics",
    "professional_medicine",
]
MEDICAL = [*(f"mmlu_{name}" for name in MMLU), "mmlu_pro_health", "medmcqa", "medqa_4options", "pubmedqa_labeled"]
MEDQA_HERE = {"medqa_4options": 1272}
"""The stand-in for MedQA's test set is its validation set."""

Load = Callable[..., list[SuiteTask]]


@pytest.fixture
def load(sweep: Callable[..., Path], tmp_path: Path) -> Load:
    """The tasks of one objective; keyword arguments are its keys."""

    def suites(data_root: Path = HUB_DATA, **objective: Any) -> list[SuiteTask]:
        workers = {"backend": "fake", "engine": {"max_model_len": 4096}}
        path = sweep(objectives={"all": objective}, include_path=None, data_root=str(data_root), workers=workers)
        config = load_config(path)
        lm = open_lm(config, make_serving(config, resolve(config), tmp_path / "serving"))
        return load_suites(config.objectives, config, lm)

    return suites


def ids(suite: SuiteTask) -> list[str]:
    return [question.id for question in suite.questions]


def test_the_medical_suite_is_ten_tasks_and_a_group_can_count_as_one(load: Load) -> None:
    suites = load(tasks=["medical"], num_fewshot=0, limit=2, expect=MEDQA_HERE)
    assert [suite.name for suite in suites] == MEDICAL
    assert [suite.metrics for suite in suites if suite.name != "mmlu_pro_health"] == [[("acc", "none")]] * 9
    assert suites[6].metrics == [("exact_match", "custom-extract")]
    assert [suite.share for suite in suites] == pytest.approx([1 / 30] * 6 + [1 / 5] * 4)
    assert all(suite.task.config.dataset_kwargs["revision"] for suite in suites)


def test_ifeval_is_the_mean_of_both_strict_accuracies(load: Load) -> None:
    (suite,) = load(tasks=["instruction"], limit=2)
    assert suite.metrics == [("prompt_level_strict_acc", "none"), ("inst_level_strict_acc", "none")]


def test_a_task_asked_for_alone_is_pinned_and_counted_too(load: Load) -> None:
    (suite,) = load(tasks=["medmcqa"], limit=2)
    assert suite.task.config.dataset_kwargs["revision"]
    with pytest.raises(UserError, match=r"medqa_4options has 1272 questions, but its authors published 1273"):
        load(tasks=["medqa_4options"], limit=2)


def test_pubmedqa_asks_what_lm_evals_own_task_asks_of_the_official_test_set(load: Load) -> None:
    ours, theirs = (load(tasks=[name])[0] for name in ("pubmedqa_labeled", "pubmedqa"))
    assert ours.documents == 500
    assert ids(ours) == ids(theirs)
    assert [ours.task.doc_to_target(d) for d in ours.task.eval_docs] == [
        theirs.task.doc_to_target(d) for d in theirs.task.eval_docs
    ]


def test_a_cut_off_data_set_is_refused_unless_expected(load: Load, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for name in ("qiaojin/PubMedQA", "cais/mmlu"):
        shutil.copytree(HUB_DATA / name, root / name)
    for name, rows in (("qiaojin/PubMedQA/pqa_labeled/train.jsonl", 999), ("cais/mmlu/anatomy/test.jsonl", 100)):
        lines = (HUB_DATA / name).read_text().split("\n")
        (root / name).write_text("\n".join(lines[:rows]) + "\n")
    wanted = rf"mmlu_anatomy has 100 questions, but its authors published 135: split test of cais/mmlu \(anatomy\) in {root}/cais/mmlu;"
    with pytest.raises(UserError, match=wanted):
        load(root, tasks=["mmlu_anatomy"])
    assert load(root, tasks=["mmlu_anatomy"], expect={"mmlu_anatomy": 100})[0].documents == 100
    with pytest.raises(UserError, match=r"pubmedqa_labeled has 499 questions, .* split \w+ of qiaojin/PubMedQA in"):
        load(root, tasks=["pubmedqa_labeled"])


def test_the_sides_share_no_question_and_leave_none_out(load: Load) -> None:
    tasks = ["mmlu_anatomy", "pubmedqa_labeled"]
    whole, search, confirm = (load(tasks=tasks, split=side) for side in (None, "search", "confirm"))
    sides = [set(ids(side[0])) for side in (search, confirm)]
    assert sides[0] | sides[1] == set(ids(whole[0])) and not sides[0] & sides[1]
    assert 40 < search[0].documents < 95
    assert {suite.split for suite in (search[0], confirm[0])} == {"half of test by hash"}
    assert ids(confirm[1]) == ids(whole[1])
    assert (search[1].split, confirm[1].split, search[1].documents) == ("validation", "test", 500)
    assert not set(ids(search[1])) & set(ids(confirm[1]))


def on_sides(tasks: list[str]) -> tuple[list[Chosen], list[set[str]]]:
    """The documents of each task on the search side, then on the other, and the questions of each side."""
    objective = {"tasks": tasks, "split": "search"}
    config = SweepConfig.model_validate(content(objectives={"all": objective}, data_root=str(HUB_DATA)))
    entries = list(load_entries(config.objectives, config, open_index(tasks, [])))
    sides = read_sides(entries, config, "question")
    found: list[Chosen] = []
    texts: list[set[str]] = []
    order: tuple[Side, Side] = ("search", "confirm")
    for side in order:
        test = [entry.task.config.test_split for entry in entries]
        chosen = [sides.choose(entry.where, entry.task, side) for entry in entries]
        texts.append(
            {
                sides.texts[entry.task.task_name, used_split(entry.task)][number]
                for entry, each in zip(entries, chosen, strict=True)
                for number in each.documents or []
            }
        )
        found += chosen
        for entry, split in zip(entries, test, strict=True):
            entry.task.set_config(key="test_split", value=split)
    return found, texts


def test_a_question_that_two_tasks_have_is_on_one_side() -> None:
    chosen, (search, confirm) = on_sides(["mmlu_professional_medicine", "mmlu_pro_health"])
    assert not search & confirm
    assert sum(len(each.documents or []) for each in chosen) == 272 + 818
    assert len(search) + len(confirm) < 272 + 818 - 164, "MMLU-Pro has 164 of MMLU's questions, and some twice"


def test_a_spare_split_leaves_out_what_the_test_split_has() -> None:
    """MedQA's test split here is its validation split again."""
    chosen, (search, confirm) = on_sides(["medqa_4options"])
    assert not search & confirm
    assert [(each.split, len(each.documents or []), each.left_out) for each in chosen] == [
        ("the rest of validation", 636, 636),
        ("the rest of test", 636, 636),
    ]


def test_a_question_stays_on_its_side_when_others_are_taken_away(load: Load, tmp_path: Path) -> None:
    shutil.copytree(HUB_DATA / "cais/mmlu", tmp_path / "data/cais/mmlu")
    file = tmp_path / "data/cais/mmlu/anatomy/test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows[:60])))
    some = load(tmp_path / "data", tasks=["mmlu_anatomy"], split="search", expect={"mmlu_anatomy": 60})
    assert set(ids(some[0])) < set(ids(load(tasks=["mmlu_anatomy"], split="search")[0]))


def test_the_report_says_which_questions_a_number_is_from(sweep: Callable[..., Path], tmp_path: Path) -> None:
    tasks = ["mmlu_medical", "pubmedqa_labeled"]
    path = sweep(
        objectives={
            "medical": {"tasks": tasks, "average": "groups", "split": "search", "limit": 3},
            "confirmed": {"tasks": tasks, "average": "groups", "split": "confirm", "limit": 3, "front": False},
        },
        recipes=[{"method": "linear", "alpha": [0.5]}],
        include_path=None,
        data_root=str(HUB_DATA),
        workers={"backend": "fake", "cpus": 0.5, "count": 1, "engine": {"max_model_len": 1024}},
    )
    assert main(["run", str(path), "--out", str(tmp_path / "out")]) == 0
    report = (tmp_path / "out" / "report.md").read_text()
    assert "a group counting as one: 8.3 % mmlu_anatomy, mmlu_clinical_knowledge, " in report
    assert "Its numbers are from the questions to search on (half of test by hash and validation)." in report
    assert "Its numbers are from the questions to confirm with (half of test by hash and test)." in report
