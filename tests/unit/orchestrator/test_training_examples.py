"""What a sweep trains on, compared with what it is evaluated on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.stages.training_examples import TrainingExamples, open_training_examples
from tasks.evaluation.suites import keep_private, load_rounds
from tests.helpers.sweeps import FINETUNE, content
from tests.helpers.tasks import CHOICE, lm, rows, write_task

STEM = "Which dose of the new drug for high blood pressure suits a patient in case"


def talk(question: str, answer: str) -> dict[str, Any]:
    return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}


def opened(folder: Path, talks: list[dict[str, Any]], **finetune: Any) -> TrainingExamples:
    """The examples of a sweep over six questions, with a task of its own, a baseline and general instructions."""
    write_task(folder, CHOICE, rows(6, question=lambda i: f"{STEM} {i}?"))
    for name, written in {
        "talks": talks,
        "test": [{"note": "A note.", "summary": "A summary."}],
        "train": [
            {"note": f"{STEM} 2? 1 mg, 2 mg, 5 mg or 9 mg", "summary": "It is asked for a dose."},
            {"note": "a NOTE", "summary": "It is in the test set."},
            {"note": "Another note.", "summary": "Another."},
        ],
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    files = {key: str(folder / f"{name}.jsonl") for key, name in {"file": "test", "train": "train"}.items()}
    own = {**files, "input": "note", "reference": "summary", "prompt": "Summarise: {{input}}"}
    os.environ["MERGEFRONT_TRUST"] = str(folder)
    config = SweepConfig.model_validate(
        content(
            objectives={"x": {"tasks": ["own"]}},
            include_path=[str(folder / "tasks")],
            data_root=str(folder / "data"),
            generation={"own": {"notes": own}},
            finetune={
                **FINETUNE,
                "starts": ["baseline"],
                "tasks": {"notes": {"tasks": ["notes"], "metric": "rouge1", "gen_kwargs": {"max_gen_toks": 16}}},
                "examples": [1],
                "baseline": {"start": "clinical", "file": str(folder / "talks.jsonl")},
                **finetune,
            },
        )
    )
    keep_private(config, folder / "cache")
    assert config.finetune
    learning, suites = load_rounds([config.finetune.tasks, config.objectives], config, model := lm())
    return open_training_examples(config, model, learning, [*learning, *suites])


def test_examples_with_a_test_question_are_named_and_left_out_on_request(tmp_path: Path) -> None:
    talks = [
        talk(f"Please answer.\n{STEM.upper()} 1? A. 1 mg B. 2 mg C. 5 mg D. 9 mg", "A"),
        talk(f"{STEM} 4?", "Five."),
        talk("Which dose suits me?", "1 mg"),
    ]
    named = opened(tmp_path, talks)
    assert [each.split(" examples contain a question that the sweep is evaluated on")[0] for each in named.known] == [
        "finetune.tasks.notes: 1 of 2",
        "finetune.baseline.file: 2 of 3",
    ]
    assert "(2 of own); finetune.leave_out_test_questions: true leaves them out" in named.known[1]
    assert (len(named.baseline), named.available) == (3, {"notes": 2})
    without = opened(tmp_path, talks, leave_out_test_questions=True)
    assert (len(without.baseline), without.available) == (1, {"notes": 1})
    assert all("are left out" in each for each in without.known)
    with pytest.raises(UserError, match="every conversation has a question that the sweep is evaluated on"):
        opened(tmp_path, talks[:2], leave_out_test_questions=True)


def test_nothing_is_said_of_examples_without_a_test_question(tmp_path: Path) -> None:
    assert opened(tmp_path, [talk("Which dose suits me?", "1 mg")]).known[1:] == ()
