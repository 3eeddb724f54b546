"""Tokens per second with drafts from the parents' texts, against the same engine without drafts, in turn.

    .venv/bin/python -m benchmarks.drafts [--limit 48] [--tokens 256] [--ratio 0.5] [--batches 16 4] [--large 400]

The prompts are IFEval's for the SmolLM2 pair (`examples/smollm2/prepare.py`), the recipe a linear merge, decoding is
greedy. The constants of the drafts were chosen on the prompts from the hundredth on, which only the engine that chooses
is asked: whether drafts make it faster is a question of its batch.

The last line is JSON. `ratio`: tokens per second with drafts over those without, at the first batch size, in bfloat16;
`ratio_small`: at the second. `tokens_a_step`: what a request writes in one step with drafts. `float32_equal`: whether
all texts are the same with and without in float32; `bfloat16_flips`: how many are not in bfloat16. `off_above`: the
largest batch for which an engine keeps its drafts that may choose (`drafts: auto`), after `--large` prompts at once;
null where it keeps them for all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import recipe, smollm2, start, suites, timed
from orchestrator.core.records import Answer, Question
from orchestrator.recipes.recipe import Recipe
from tasks.serving.engine import Expected
from tasks.serving.vllm_engine import VllmEngine

SHARE = 0.1
"""Of a GPU for each engine; there are seven."""
JUDGED = 100
"""Prompts before this one are asked here; the later ones are for choosing constants."""


def prompts(count: int, tokens: int, scratch: Path) -> list[Question]:
    """IFEval's prompts with greedy answers of at most so many tokens."""
    metric = ["prompt_level_strict_acc"]
    _, found = suites(["ifeval"], max(count, JUDGED), None, scratch, metric=metric, apply_chat_template=True)
    asked = {question.id: question for suite in found for question in suite.questions}
    return [_short(question, tokens) for question in list(asked.values())[:count]]


def _short(question: Question, tokens: int) -> Question:
    assert question.decoding is not None
    return replace(question, decoding=replace(question.decoding, max_tokens=tokens))


def by_parents(engine: VllmEngine, parents: Sequence[Recipe], asked: Sequence[Question]) -> Expected:
    """What each parent writes, by question."""
    found: dict[str, list[str]] = {question.id: [] for question in asked}
    for parent in parents:
        engine.load(parent)
        for answer in engine.answer(asked):
            found[answer.question_id].append(answer.text or "")
    return found


def speed(engine: VllmEngine, asked: Sequence[Question], expected: Expected) -> tuple[float, list[Answer]]:
    """Tokens per second, and the answers."""
    spent, answers = timed(lambda: engine.answer(asked, expected))
    return sum(answer.tokens for answer in answers) / spent, answers


def compare(
    pair: list[Path], merged: Recipe, asked: list[Question], batch: int, dtype: str, scratch: Path, repeat: int
) -> dict[str, Any]:
    """Both ways in turn, at one batch size and in one dtype."""
    settings: dict[str, Any] = {"max_num_seqs": batch, "share": SHARE}
    without = start(pair[0], pair[1], scratch / f"without-{dtype}-{batch}", dtype, **settings)
    drafting = start(pair[0], pair[1], scratch / f"drafts-{dtype}-{batch}", dtype, drafts=True, **settings)
    expected = by_parents(without, [recipe("linear", pair, 0.0), recipe("linear", pair, 1.0)], asked)
    for engine in (without, drafting):
        engine.load(merged)
        engine.answer(asked[:batch], expected)
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(repeat):
        plain, before = speed(without, asked, expected)
        drafted, after = speed(drafting, asked, expected)
        speeds[False].append(plain)
        speeds[True].append(drafted)
    count = drafting.drafted()
    assert count is not None
    flips = sum(one.text != other.text for one, other in zip(before, after, strict=True))
    ratio = max(speeds[True]) / max(speeds[False])
    plain, drafted = max(speeds[False]), max(speeds[True])
    print(
        f"{dtype}, batch {batch}: {plain:.0f} tokens/s without, {drafted:.0f} with: {ratio:.2f}; "
        f"{count.tokens / count.steps:.2f} tokens a step; {flips} of {len(asked)} texts differ",
        flush=True,
    )
    return {"ratio": ratio, "tokens_a_step": count.tokens / count.steps, "flips": flips}


def choosing(pair: list[Path], merged: Recipe, asked: list[Question], scratch: Path) -> int | None:
    """The largest batch for which an engine keeps its drafts that answers so many prompts at once."""
    engine = start(pair[0], pair[1], scratch / "auto", drafts="auto", max_num_seqs=len(asked), share=SHARE)
    expected = by_parents(engine, [recipe("linear", pair, 0.0), recipe("linear", pair, 1.0)], asked)
    engine.load(merged)
    engine.answer(asked, expected)
    count = engine.drafted()
    assert count is not None
    print(f"drafts: auto with {len(asked)} prompts at once: off above {count.off_above}", flush=True)
    return count.off_above


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=48, help="prompts")
    parser.add_argument("--tokens", type=int, default=256, help="most tokens of a text")
    parser.add_argument("--ratio", type=float, default=0.5, help="of the merge")
    parser.add_argument("--batches", type=int, nargs=2, default=[16, 4])
    parser.add_argument(
        "--large", type=int, default=400, help="prompts at once, for the engine that chooses; 0 for none"
    )
    parser.add_argument("--repeat", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        pair = smollm2(scratch)
        asked, merged = prompts(args.limit, args.tokens, scratch), recipe("linear", pair, args.ratio)
        large, small = args.batches
        bfloat16, few, float32 = (
            compare(pair, merged, asked, batch, dtype, scratch, args.repeat)
            for batch, dtype in ((large, "bfloat16"), (small, "bfloat16"), (large, "float32"))
        )
        off_above = choosing(pair, merged, prompts(args.large, 128, scratch), scratch) if args.large else None
    result = {
        "benchmark": "drafts",
        "ratio": round(bfloat16["ratio"], 2),
        "ratio_small": round(few["ratio"], 2),
        "tokens_a_step": round(bfloat16["tokens_a_step"], 2),
        "float32_equal": float32["flips"] == 0,
        "ratio_float32": round(float32["ratio"], 2),
        "bfloat16_flips": bfloat16["flips"],
        "off_above": off_above,
        "prompts": len(asked),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, CPython {platform.python_version()}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
