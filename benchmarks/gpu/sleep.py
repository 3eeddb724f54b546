"""vLLM's sleep mode, with the parents outside: the weights after waking are those from before.

At level 1 vLLM keeps the weights in host memory; at level 2 it drops them, and the recipe is merged into the engine
again. `freed_gb` is what the card has for others meanwhile; the parents are dropped too, as they can be opened again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from benchmarks.common import recipe, seconds
from benchmarks.gpu.models import finish, make_model, open_engine, parse, step_parser
from benchmarks.gpu.swap import move_parents
from orchestrator.core.records import Decoding, Question

QUESTIONS = [Question(tuple(range(20, 60)), decoding=Decoding(16, ())), Question(tuple(range(5, 50)), (30, 31, 32))]


def main() -> None:
    args = parse(step_parser(__doc__, "1b"))
    if not args.gpu:
        return finish({"skipped": "vLLM's sleep mode is for CUDA alone"})
    parents = [make_model(args.scratch / name, args.shape, seed, "cuda") for seed, name in enumerate("ab")]
    engine = open_engine(parents[0], args.scratch / "engine", gpu=True, enable_sleep_mode=True)
    half = recipe("linear", parents, 0.5)
    engine.load(half)
    before, answers = engine.checksums(), engine.answer(QUESTIONS)
    result: dict[str, Any] = {"shape": args.shape}
    for level in (1, 2):
        free = torch.cuda.mem_get_info()[0]
        engine.llm.collective_rpc(move_parents, args=("gpu",))
        slept = seconds(partial(engine.llm.sleep, level=level))
        freed = torch.cuda.mem_get_info()[0] - free
        woke = seconds(engine.llm.wake_up)
        kept = engine.checksums() == before
        loaded = seconds(partial(engine.load, half))
        equal = engine.checksums() == before and engine.answer(QUESTIONS) == answers
        result[f"level_{level}"] = {
            "freed_gb": round(freed / 1e9, 1), "sleep_s": round(slept, 2), "wake_s": round(woke, 2),
            "load_s": round(loaded, 2), "kept": kept, "equal_after_load": equal,
        }  # fmt: skip
    finish(result)
    if not (result["level_1"]["kept"] and all(result[f"level_{n}"]["equal_after_load"] for n in (1, 2))):
        raise SystemExit("an engine that woke up has other weights or answers than before")


if __name__ == "__main__":
    main()
