"""PubMedQA's labelled questions, split as its authors split them, with the prompts of lm-eval's pubmedqa."""

import json
from pathlib import Path
from typing import Any

import datasets

TEST = Path(__file__).parent / "pubmedqa_test.json"
"""The PubMed ids of the official test set, in its order (github.com/pubmedqa/pubmedqa, data/test_ground_truth.json)."""


def load(revision: str, **_: Any) -> dict[str, datasets.Dataset]:
    """Load the official test questions, and the others as `validation`; lm-eval passes the task's metadata too."""
    labelled = datasets.load_dataset("qiaojin/PubMedQA", "pqa_labeled", split="train", revision=revision)
    place = {pubid: row for row, pubid in enumerate(labelled["pubid"])}
    test = [place.pop(pubid) for pubid in json.loads(TEST.read_text()) if pubid in place]
    return {"test": labelled.select(test), "validation": labelled.select(place.values())}


def doc_to_text(doc: dict[str, Any]) -> str:
    """Return the prompt of a question, as lm-eval's pubmedqa has it."""
    contexts = "\n".join(doc["context"]["contexts"])
    return f"Abstract: {contexts}\nQuestion: {doc['question']}\nAnswer:"
