"""The data set and the metric of medquad_bits_per_byte."""

import json
import os
from pathlib import Path
from typing import Any

import datasets

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("MERGEFRONT_DATA", ROOT.parent / "shared" / "data"))


def load_documents(**_: Any) -> dict[str, datasets.Dataset]:
    """The held-out documents; lm-eval passes the task's metadata, which says nothing here."""
    path = DATA / "medquad" / "cpt_validation.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. It holds MedQuAD's held-out documents, one JSON object with a `text` a "
            "line; name the folder that medquad/ lies in with the environment variable MERGEFRONT_DATA."
        )
    with path.open(encoding="utf-8") as lines:
        documents = [{"text": json.loads(line)["text"]} for line in lines]
    return {"validation": datasets.Dataset.from_list(documents)}


def bits_per_byte(doc: dict[str, Any], results: list[float]) -> dict[str, tuple[float, int]]:
    """Log-likelihood and length in bytes: lm-eval divides their sums, so long documents count more."""
    return {"bits_per_byte": (results[0], len(doc["text"].encode("utf-8")))}
