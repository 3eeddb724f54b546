"""Tokens a second: a run of fine-tuning as mergefront makes it, and plain trl with the same settings.

    python -m benchmarks.sft [--steps 30] [--repeat 3] [--method full|lora]

Both train in this process on the same rows of the demo's instruct parent's vocabulary; timed are the optimiser steps
(trl's `train`), not the loading. What ours adds is noted progress, the check of the loss, and the checkpoints' markers.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import seconds, tell
from orchestrator.recipes.recipe import Recipe, Source
from orchestrator.recipes.tuning import Tuning
from tasks.finetuning.examples import Labelled
from tasks.finetuning.run import Run
from tasks.finetuning.train import Recorder, adapter, arguments, make_trainer

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "tasks" / "demo" / "parents" / "instruct"
PROMPT, RESPONSE, ROWS = 96, 32, 64


def make_run(folder: Path, steps: int, method: str, model: Path = MODEL) -> Run:
    drawn = random.Random(0)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(drawn.randrange(3, 700) for _ in range(count))

    examples = tuple(Labelled(tokens(PROMPT), tokens(RESPONSE)) for _ in range(ROWS))
    settings: dict[str, Any] = {"steps": steps, "learning_rate": 5e-5, "batch_size": 4, "accumulation": 4}
    settings["optimizer"] = "adamw_torch"
    if method == "lora":
        settings["lora"] = {"rank": 16, "alpha": 32, "dropout": 0.0}
    start = Recipe("passthrough", ((Source("d", "instruct", str(model)), {}),), None, {}, "float32")
    tuning = Tuning(start, "d", "lora" if method == "lora" else "full", 0, settings, "t", "instruct", ROWS, str(ROWS))
    return Run(tuning, model, folder, model, examples, "float32", 10**6)


def ours(run: Run) -> float:
    trainer = make_trainer(run)
    trainer.add_callback(Recorder(run, 0.0))
    return seconds(trainer.train)


def plain(run: Run) -> float:
    """As its documentation has it: a model's name, rows of prompt and completion tokens, a config."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTTrainer

    rows = [
        {"input_ids": [*e.prompt, *e.response], "completion_mask": [0] * len(e.prompt) + [1] * len(e.response)}
        for e in run.examples
    ]
    lora = run.tuning.settings.get("lora")
    trainer = SFTTrainer(
        model=str(run.start),
        args=arguments(run),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(run.tokenizer),
        peft_config=adapter(lora) if lora else None,
    )
    return seconds(trainer.train)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--method", choices=["full", "lora"], default="full")
    args = parser.parse_args()
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(args.repeat):
            run = make_run(Path(scratch) / str(turn), args.steps, args.method)
            run.folder.mkdir()
            # In turns, so that what else the machine does falls on both.
            for side, train in (("ours", ours), ("plain", plain)) if turn % 2 else (("plain", plain), ("ours", ours)):
                times[side].append(train(run))
    tokens = args.steps * 16 * (PROMPT + RESPONSE)
    rate = {f"{side}_tokens_per_s": round(tokens / min(values), 1) for side, values in times.items()}
    tell("sft", "ours", "plain", times, wanted=0.97, method=args.method, **rate)


if __name__ == "__main__":
    main()
