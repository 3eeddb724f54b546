"""The questions that the benchmarks lose to overlaps: in several tasks, twice in a task, in files that are trained on.

    .venv/bin/python -m benchmarks.overlaps

reads the data sets in MERGEFRONT_DATA with the code that `plan` and `run` read a sweep with, and asks no model.
`on_both_sides` are pairs of documents that ask the same question, one on the side that is searched, one on the side
that confirms: with the sides as they are, and as they would be by a hash of each document. The last line is JSON.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets

from benchmarks.common import ROOT
from orchestrator.config.sweep import SweepConfig
from tasks.benchmarks.overlaps import Screen, clusters, describe_overlaps, find_overlaps
from tasks.benchmarks.questions import Asked, question_of
from tasks.benchmarks.splits import Side, Sides, documents_by_split, notes, used_split
from tasks.evaluation.entries import Entry, load_entries, read_sides
from tasks.evaluation.suites import offline
from tasks.evaluation.task_index import loading, open_index
from tasks.finetuning.conversations import read_conversations
from tasks.generation.task import GenerationTask

DATA = Path(os.environ.get("MERGEFRONT_DATA", ROOT.parent / "shared" / "data"))
TRAINING = ("medquad/sft_train.jsonl",)
"""Conversations that a baseline may be trained on."""
Document = tuple[str, str, int]
"""Task, split and number."""


def sweep() -> SweepConfig:
    """The paper's suites and MTS-Dialog over the data sets at hand, all of them split."""
    parents = {name: {"model": str(ROOT / "tasks" / "demo" / "parents" / name)} for name in ("clinical", "instruct")}
    return SweepConfig.model_validate(
        {
            "parents": parents,
            "objectives": {"all": {"tasks": ["medical", "instruction", "clinical_mts_dialog"], "split": "search"}},
            "generation": {"data": {"clinical_mts_dialog": str(DATA / "mts_dialog")}},
            "data_root": str(DATA / "hf_mirror"),
        }
    )


def questions(entries: Sequence[Entry]) -> dict[Document, Asked]:
    """Read the question of every document, of spare splits too."""
    return {
        (entry.task.task_name, split, number): question_of(entry.task, document)
        for entry in entries
        for split, documents in documents_by_split(entry.task).items()
        for number, document in enumerate(documents)
    }


def chosen(entries: Sequence[Entry], sides: Sides) -> dict[Side, set[Document]]:
    """Choose the documents of each side."""
    found: dict[Side, set[Document]] = defaultdict(set)
    for side in ("confirm", "search"):  # in this order, as the spare split takes the place of the test split
        for entry in entries:
            picked = sides.choose(entry.where, entry.task, side)
            numbers = range(len(entry.task.eval_docs)) if picked.documents is None else picked.documents
            found[side] |= {(entry.task.task_name, used_split(entry.task), number) for number in numbers}
    return found


def on_both(sides: Mapping[Side, set[Document]], cluster: Mapping[Document, int]) -> Counter[str]:
    """Count the pairs of documents with the same question on both sides, by the two tasks' names."""
    by_cluster: dict[int, list[Document]] = defaultdict(list)
    for document in sides["confirm"]:
        by_cluster[cluster[document]].append(document)
    return Counter(
        " and ".join(sorted({document[0], other[0]}))
        for document in sides["search"]
        for other in by_cluster[cluster[document]]
    )


def lost(tested: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Count the documents of each task whose question an earlier document, of this task or another, asks."""
    seen: set[int] = set()
    found = {}
    for name, numbers in tested.items():
        found[name] = len(numbers) - len(set(numbers) - seen)
        seen.update(numbers)
    return found


def trained_on(entries: Sequence[Entry], asked: Mapping[Document, Asked]) -> list[str]:
    """Describe the examples of the training files that contain a question."""
    tasks: dict[str, list[Asked]] = defaultdict(list)
    for (task, _, _), question in asked.items():
        tasks[task].append(question)
    screen = Screen(tasks, leave_out=False)
    for name in TRAINING:
        for _, turns in read_conversations(DATA / name, name):
            screen.keeps(name, [turn["content"] for turn in turns[:-1]], turns[-1]["content"])
    for task in (entry.task for entry in entries if isinstance(entry.task, GenerationTask)):
        for example in task.examples.training():
            screen.keeps(f"{task.task_name}'s training split", [example.input], example.reference, task.task_name)
    return screen.describe()


def main() -> None:
    """Print the overlaps, then one line of JSON."""
    config = sweep()
    offline(config)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    index = open_index(["medical", "instruction"], [])
    entries = list(load_entries(config.objectives, config, index))
    with loading("data", "all", config.data_root):
        asked = questions(entries)
        numbers = clusters(asked.values())
        cluster = {document: numbers[question] for document, question in asked.items()}
        by_question = chosen(entries, read_sides(entries, config, "question"))
    entries = list(load_entries(config.objectives, config, index))  # their splits have been set
    with loading("data", "all", config.data_root):
        by_document = chosen(entries, Sides("document"))
    tested: dict[str, list[int]] = {}
    for entry in entries:
        name, spare = entry.task.task_name, notes(entry.task).get("search")
        tested[name] = [number for (task, split, _), number in cluster.items() if task == name and split != spare]
    overlaps = find_overlaps(tested)
    found = trained_on(entries, asked)
    print("\n".join([*describe_overlaps(overlaps), *found]))
    sizes = {side: Counter(task for task, _, _ in documents) for side, documents in by_question.items()}
    result: dict[str, Any] = {
        "benchmark": "overlaps",
        "documents": sum(map(len, tested.values())),
        "lost": lost(tested),
        "tasks": {each.task: asdict(each) for each in overlaps},
        "search": {name: sizes["search"][name] for name in tested},
        "confirm": {name: sizes["confirm"][name] for name in tested},
        "on_both_sides": sum(on_both(by_question, cluster).values()),
        "on_both_sides_by_document": on_both(by_document, cluster),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
