"""lm-eval tasks of a test's own: a task file over a few rows, and answers that the test chooses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import AutoTokenizer

from orchestrator.config.load import load_config
from orchestrator.config.sweep import SweepConfig
from orchestrator.config.workers import Workers
from orchestrator.core.records import Answer, Answered, Question, Serving
from orchestrator.results.layout import Layout
from orchestrator.stages.open import Sweep, open_sweep
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.suites import SuiteTask, keep_private, load_suites
from tasks.serving.fake import FakeEngine
from tests.helpers.paths import DEMO, INSTRUCT
from tests.helpers.sweeps import content

CHOICE = """
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: choices
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
TEXT = """
output_type: generate_until
doc_to_text: "{{question}}\\nAnswer:"
doc_to_target: answer
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Questions with four choices and the answers 0 to 3; a function in `changes` gets the number of its row."""
    made = [
        {"question": f"Which dose suits case {i}?", "choices": ["1 mg", "2 mg", "5 mg", "9 mg"], "answer": i % 4}
        for i in range(count)
    ]
    return [
        {**row, **{key: value(i) if callable(value) else value for key, value in changes.items()}}
        for i, row in enumerate(made)
    ]


def write_task(folder: Path, settings: str, data: Sequence[dict[str, Any]], code: str = "", **splits: Any) -> Path:
    """Write a task `own`, its rows and `utils.py`; returns the folder of the task file.

    Args:
        data: the rows of the split `test`.
        splits: those of further splits.
    """
    home = folder / "data" / "clinic" / "own"
    home.mkdir(parents=True, exist_ok=True)
    for split, part in {"test": data, **splits}.items():
        (home / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    (folder / "tasks").mkdir(exist_ok=True)
    (folder / "tasks" / "utils.py").write_text(code)
    head = "task: own\ndataset_path: clinic/own\ntest_split: test\n"
    (folder / "tasks" / "own.yaml").write_text(head + settings)
    return folder / "tasks"


def lm(answer: Callable[[Question], Answer] | None = None) -> LedgerLM:
    """Make lm-eval's model with the demo's tokenizer, which answers by a function."""
    tokenizer = AutoTokenizer.from_pretrained(INSTRUCT)
    serving = Serving("t", None, (0,), 512, "x", (), "a", "/nowhere")
    return LedgerLM(serving, tokenizer, answer=answer and (lambda questions: [answer(q) for q in questions]))


def load(folder: Path, model: LedgerLM, **objective: Any) -> list[SuiteTask]:
    """Load the task that `write_task` wrote, as a sweep does."""
    os.environ["MERGEFRONT_TRUST"] = str(folder)
    config = SweepConfig.model_validate(
        content(
            objectives={"x": {"tasks": ["own"], **objective}},
            include_path=[str(folder / "tasks")],
            data_root=str(folder / "data"),
        )
    )
    keep_private(config, folder / "cache")
    return load_suites(config.objectives, config, model)


def answered_sweep(folder: Path, **changes: Any) -> Sweep:
    """Open a sweep over the task that `write_task` wrote, and answer it with the fake engine, without Ray.

    Args:
        changes: top-level keys of the sweep file.
    """
    os.environ["MERGEFRONT_TRUST"] = str(folder)
    own = {"include_path": [str(folder / "tasks"), str(DEMO / "lm_eval")], "data_root": str(folder / "data")}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(content(**own, **changes)))
    sweep = open_sweep(load_config(folder / "sweep.yaml"), Layout(folder / "out"))
    engine = FakeEngine()
    for recipe in sweep.recipes:
        engine.load(recipe)
        for block in sweep.ledger.missing(recipe.id, [suite.questions for suite in sweep.tasks.suites], Workers()):
            sweep.ledger.write(Answered(block, tuple(engine.answer(block.questions)), 0.0, 0.0, "node:1"))
    return sweep
