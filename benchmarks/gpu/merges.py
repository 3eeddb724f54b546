"""Whether a merge in an engine on the card is the merge that the CPU makes: each tensor, by checksum.

Every method that draws no random numbers, on two tiny models, in bfloat16 and float32. mergekit's bytes are those of a
CPU; where the card's differ, it is said by how much, in units of the dtype's precision at the tensor's largest element.
The step fails above one unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.gpu.models import finish, open_engine, parse, step_parser
from tasks.serving.vllm_engine import VllmEngine
from tests.helpers.merges import DETERMINED, live, recipe
from tests.helpers.models import make_model

PARENTS = {"a": 0, "b": 1, "base": 2, "c": 3, "d": 4, "e": 5}


def parameters(worker: Any) -> dict[str, torch.Tensor]:
    """In vLLM's worker: copies of the parameters; those that vLLM has packed (CPU) are empty."""
    model = worker.model_runner.get_model()
    return {name: tensor.detach().cpu().clone() for name, tensor in model.named_parameters()}


def held(engine: VllmEngine) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The checksums and the parameters of what is loaded."""
    return engine.checksums()[0], engine.llm.collective_rpc(parameters)[0]


def units(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference in units of the precision at the largest element; NaN where one has NaN."""
    largest = theirs.double().abs().max().item() or 1.0
    return float((ours.double() - theirs.double()).abs().max().item() / (largest * torch.finfo(theirs.dtype).eps))


def compare(engine: VllmEngine, folders: dict[str, Path], dtype: str, scratch: Path) -> dict[str, Any]:
    """Merge by each method in the engine and on the CPU; method → number of tensors that differ, and by how much."""
    differing = {}
    for way in DETERMINED:
        wanted = recipe(way, folders, dtype)
        engine.load(wanted)
        ours, values = held(engine)
        checkpoint = scratch / "checkpoint"
        checkpoint.mkdir(exist_ok=True)
        save_file(live(wanted, scratch), checkpoint / "model.safetensors", {"format": "pt"})
        engine.load_checkpoint(checkpoint)
        theirs, expected = held(engine)
        if names := [name for name, digest in theirs.items() if ours[name] != digest]:
            largest = max((units(values[name], expected[name]) for name in names if name in values), default=0.0)
            differing[way] = {"tensors": len(names), "units": round(largest, 3)}
    return differing


def main() -> None:
    args = parse(step_parser(__doc__, "small"))
    result: dict[str, Any] = {"merges": 0, "equal": 0}
    for dtype in ("bfloat16", "float32"):
        folders = {
            name: make_model(args.scratch / dtype / name, seed, dtype, "llama") for name, seed in PARENTS.items()
        }
        # Two engines live in this process; the share leaves room for both.
        settings = {"max_model_len": 256, "max_num_seqs": 16, "gpu_memory_utilization": 0.4}
        engine = open_engine(
            folders["a"], args.scratch / "engine" / dtype, gpu=args.gpu, dtype=dtype, models=6, settings=settings
        )
        differing = compare(engine, folders, dtype, args.scratch)
        result[dtype] = differing
        result["merges"] += len(DETERMINED)
        result["equal"] += len(DETERMINED) - len(differing)
    finish(result)
    worst = max((each["units"] for dtype in ("bfloat16", "float32") for each in result[dtype].values()), default=0.0)
    if not worst <= 1:
        raise SystemExit(f"a merge on the card is {worst} units from the CPU's")


if __name__ == "__main__":
    main()
