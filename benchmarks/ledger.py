"""What a ledger costs its driver: writing blocks, and finding, at the next start, what is still to be asked.

    .venv/bin/python -m benchmarks.ledger [--recipes 10000] [--questions 100] [--at s3://bucket/prefix]

Real blocks of made-up answers, in a temporary folder or at the address, half of each recipe's answered. The last line
is JSON; `start_ms_per_recipe` is the second start's time for listing, reading and checking, `listing_s` its first part.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Sequence

from orchestrator.config.workers import Workers
from orchestrator.core.records import Answer, Answered, Block, Profile, Question, Serving
from orchestrator.ledger.blocks import block_folders
from orchestrator.ledger.ledger import Ledger

SERVING = Serving("tokenizer", None, (0,), 512, "x", (), "a", "/nowhere")
PROFILE = Profile("benchmark", "float32", 1, "cpu")


def asked(block: Block) -> Answered:
    answers = tuple(Answer(question.id, -1.5, True, None, 1) for question in block.questions)
    return Answered(block, answers, 0.0, 1.0, "here:1")


def measure(where: str, recipes: Sequence[str], questions: Sequence[Question]) -> dict[str, float]:
    workers = Workers(block=len(questions) // 2)
    ledger = Ledger(where, SERVING, PROFILE)
    began = time.perf_counter()
    half = Block("", tuple(questions[: len(questions) // 2]))
    list(ledger.store.together(lambda recipe: ledger.write(asked(Block(recipe, half.questions))), recipes))
    written = time.perf_counter() - began

    again = Ledger(where, SERVING, PROFILE)
    began = time.perf_counter()
    found = block_folders(again.store)
    listed = time.perf_counter() - began
    began = time.perf_counter()
    left = len(again.missing_of(recipes, [questions], workers))
    started = time.perf_counter() - began
    assert len(found) == left == len(recipes)
    return {
        "write_ms_per_block": round(1000 * written / len(recipes), 2),
        "listing_s": round(listed, 2),
        "start_ms_per_recipe": round(1000 * started / len(recipes), 2),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--at", metavar="ADDRESS", help="a prefix in object storage that is empty")
    args = parser.parse_args()
    questions = [Question((number,), (number + 1,)) for number in range(args.questions)]
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args.at or folder, [f"{number:020x}" for number in range(args.recipes)], questions)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}"
    place = "object storage" if args.at else "folder"
    told = {"benchmark": "ledger", "place": place, "recipes": args.recipes, "questions": args.questions}
    print(json.dumps({**told, **result, "machine": machine}))


if __name__ == "__main__":
    main()
