"""Running out of GPU memory while answering: the error is recognised, and smaller blocks of the same questions fit.

All but a little of the card is taken away from an engine whose activations are large; then it gets blocks of twice as
many questions each time. The first that does not fit must raise what a worker takes for a lack of memory, upon which
the pool halves the block and starts the engine anew (`cluster.pool`).
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.models import finish, make_model, open_engine, parse, step_parser
from cluster.worker import is_memory
from orchestrator.core.records import Question

LEFT_BYTES = 2**30
LENGTH = 512


def block(size: int) -> list[Question]:
    """Questions that share no prefix, so that all of their tokens are computed."""
    return [Question(tuple(3 + (row * 31 + place) % 690 for place in range(LENGTH)), (7,)) for row in range(size)]


def main() -> None:
    args = parse(step_parser(__doc__, "active"))
    if not args.gpu:
        return finish({"skipped": "without a GPU a worker that runs out of memory is ended by the system"})
    folder = make_model(args.scratch / "a", args.shape, 0, "cuda")
    settings = {"max_num_batched_tokens": 16384, "gpu_memory_utilization": 0.5}
    engine = open_engine(folder, args.scratch / "engine", gpu=True, models=1, settings=settings)
    torch.cuda.empty_cache()
    taken = [torch.empty(torch.cuda.mem_get_info()[0] - LEFT_BYTES, dtype=torch.uint8, device="cuda")]
    answered, size = 0, 1
    result: dict[str, Any] = {"left_gb": round(LEFT_BYTES / 1e9, 2)}
    while size <= 64 and "raised" not in result:
        try:
            engine.answer(block(size))
            answered, size = size, 2 * size
        except Exception as error:
            result |= {"raised": f"{type(error).__name__}: {error}"[:200], "recognised": is_memory(error)}
    del taken
    finish({**result, "largest_answered": answered, "too_large": size})
    if not result.get("recognised") or not answered:
        raise SystemExit("running out of memory was not recognised, or no block fitted")


if __name__ == "__main__":
    main()
