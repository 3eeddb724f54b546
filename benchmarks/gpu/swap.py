"""Swaps and scoring with a model of Llama-3.1-8B's exact shape and random weights, made here.

For parents in GPU memory and in pinned host memory: the median seconds of a swap, the bytes a second that it moves
(both parents read, the weights written), the share of the measured speed of a plain copy, and its inverse, how many
times the copy's time it takes (`floors`). Then answers a second: lettered questions, and texts.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import recipe, seconds, timed
from benchmarks.gpu.models import count, finish, make_model, open_engine, parse, step_parser
from benchmarks.gpu.speed import copy_bytes_per_s, host_bytes_per_s
from orchestrator.core.records import Decoding, Question
from tasks.merging import lazy
from tasks.serving.vllm_engine import VllmEngine

METHODS = ("linear", "slerp")


def plan_seconds(worker: Any, wanted: Any) -> float:
    """In vLLM's worker: what mergekit's planner takes of a swap."""
    return seconds(partial(worker._merger.plan, wanted))


def move_parents(worker: Any, place: str) -> None:
    """In vLLM's worker: free the copies of the parents; the next merge makes them anew, where `place` says."""
    worker._merger.kept.clear()
    worker._merger.place = place
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def swaps(engine: VllmEngine, place: str, parents: list[Path], repeat: int, floor_s: float) -> dict[str, Any]:
    """Median seconds of a swap by each method, with the parents in one place."""
    engine.llm.collective_rpc(move_parents, args=(place,))
    first = seconds(partial(engine.load, recipe("linear", parents, 0.95)))  # brings the parents to their place
    found: dict[str, Any] = {"first_s": round(first, 2)}
    for method in METHODS:
        engine.load(recipe(method, parents, 0.95))  # measures the angles
        wanted = [recipe(method, parents, round(0.1 + 0.8 * index / repeat, 3)) for index in range(repeat)]
        median = statistics.median(seconds(partial(engine.load, each)) for each in wanted)
        found[method] = {
            "median_s": round(median, 4),
            "floors": round(median / floor_s, 2),
            "share": round(floor_s / median, 3),
            "plan_s": round(engine.llm.collective_rpc(plan_seconds, args=(wanted[0],))[0], 4),
        }
    return found


def pieces(engine: VllmEngine, parents: list[Path], device: str) -> dict[str, float]:
    """Elements a piece → seconds of a swap: what `tasks.merging.lazy.PIECE` should be on this card."""
    usual, found = lazy.PIECE[device], {}
    for power in (20, 22, 24, 26, 28):
        lazy.PIECE[device] = 1 << power
        times = [seconds(partial(engine.load, recipe("linear", parents, ratio))) for ratio in (0.3, 0.4, 0.5)]
        found[f"2^{power}"] = round(statistics.median(times), 4)
    lazy.PIECE[device] = usual
    return found


def scoring(engine: VllmEngine, vocabulary: int, few: bool) -> dict[str, Any]:
    """Lettered questions and texts a second."""
    letters, texts, length = (32, 4, 64) if few else (512, 64, 256)
    drawn = torch.Generator().manual_seed(0)

    def prompt() -> tuple[int, ...]:
        return tuple(torch.randint(3, vocabulary, (length,), generator=drawn).tolist())

    asked = [Question(each, (token,)) for each in (prompt() for _ in range(letters)) for token in (5, 6, 7, 8)]
    written = [Question(prompt(), decoding=Decoding(length // 2, ())) for _ in range(texts)]
    engine.answer([*asked[:32], *written[:2]])
    lettered_s = seconds(partial(engine.answer, asked))
    writing_s, answers = timed(partial(engine.answer, written))
    return {
        "questions_s": round(letters / lettered_s, 1),
        "read_tokens_s": round(letters * length / lettered_s),
        "written_tokens_s": round(sum(answer.tokens for answer in answers) / writing_s),
        "texts": texts,
    }


def main() -> None:
    parser = step_parser(__doc__, "8b")
    parser.add_argument("--repeat", type=int, default=7)
    args = parse(parser)
    device, size = "cuda" if args.gpu else "cpu", 2 * count(args.shape)
    result: dict[str, Any] = {"shape": args.shape, "weights_gb": round(size / 1e9, 2)}
    making, parents = timed(lambda: [make_model(args.scratch / n, args.shape, seed, device) for seed, n in _NAMES])
    starting, engine = timed(lambda: open_engine(parents[0], args.scratch / "engine", gpu=args.gpu))
    result |= {"made_s": round(making, 1), "engine_s": round(starting, 1)}
    copy = copy_bytes_per_s(device, 2**28)
    floors = {"mapped": 3 * size / copy}
    if args.gpu:
        pinned = {"pinned": 2 * size / host_bytes_per_s(device, 2**28)}
        # On a small card the engine has left no room for the parents.
        floors = {**({"gpu": 3 * size / copy} if torch.cuda.mem_get_info()[0] > 2.1 * size else {}), **pinned}
    for place, floor_s in floors.items():
        result[place] = swaps(engine, place, parents, args.repeat, floor_s)
        result[place]["gb_s"] = round(3 * size / result[place]["linear"]["median_s"] / 1e9, 1)
        if place == "gpu":
            result["pieces"] = pieces(engine, parents, device)
        finish(result)  # what comes next may run out of time
    result |= scoring(engine, 700, few=not args.gpu)
    finish(result)


_NAMES = list(enumerate(("a", "b")))

if __name__ == "__main__":
    main()
