"""What sweep files say: a good sweep over the demo, a search, a round of fine-tuning, and texts of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.helpers.paths import DEMO

CARDS = DEMO / "cards"
OBJECTIVES: dict[str, dict[str, Any]] = {
    "clinical": {"tasks": ["demo_formulary"], "limit": 30, "split": "search"},
    "other": {"tasks": ["demo_formulary"], "limit": 50, "split": "search"},
}
SEARCH = {
    "space": [
        {"method": "linear", "alpha": {"low": 0, "high": 1, "knots": 2}},
        {"method": "slerp", "t": {"low": 0, "high": 1, "modules": ["mlp"]}},
    ],
    "budget": {"candidates": 6},
    "constraints": {"clinical": {"parent": "a", "share": 0.5}},
    "racing": {"rungs": [0.3, 0.6, 1.0]},
}
FAKE = {"backend": "fake", "block": 32, "count": 1, "engine": {"max_model_len": 512}}
GENERATION = {
    "own": {
        "drug_cards": {
            "file": str(CARDS / "test.jsonl"),
            "train": str(CARDS / "train.jsonl"),
            "input": "request",
            "reference": "card",
            "prompt": "Write the card of {{input}}.",
        }
    }
}
TASK = {
    "tasks": ["drug_cards"],
    "metric": "composite_without_bertscore",
    "limit": 5,
    "gen_kwargs": {"max_gen_toks": 16},
}
FINETUNE: dict[str, Any] = {
    "starts": ["b", {"best": "clinical"}],
    "tasks": {"cards": TASK},
    "examples": [4],
    "seeds": [0, 1],
    "min_steps": 2,
    "epochs": 1,
    "max_length": 128,
}
ICFT = {"general": str(CARDS / "general.jsonl")}


def content(**changes: Any) -> dict[str, Any]:
    """A good sweep over the demo's parents, and what is changed in it."""
    return {
        "parents": {name: {"model": str(DEMO / "parents" / name)} for name in ("clinical", "instruct")},
        "recipes": [{"method": "linear", "alpha": [0.5]}],
        "objectives": {"clinical": {"tasks": ["demo_formulary"], "limit": 2}},
        "include_path": [str(DEMO / "lm_eval")],
        "dtype": "float32",
        "workers": {"backend": "fake", "count": 1, "engine": {"max_model_len": 512}},
        **changes,
    }


def own_task(file: Path, prompt: str) -> dict[str, Any]:
    generation = {"own": {"own": {"file": str(file), "prompt": prompt}}}
    return content(
        generation=generation,
        objectives={"own": {"tasks": ["own"], "metric": "rouge1", "gen_kwargs": {"max_gen_toks": 16}}},
        include_path=[],
    )
