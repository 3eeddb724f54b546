"""Models of any size with random weights, made where they are needed, and engines on them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import ROOT
from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.core.records import Serving
from tasks.serving.boot import Boot
from tasks.serving.vllm_engine import VllmEngine

TOKENIZER = ROOT / "tasks" / "demo" / "parents" / "clinical"
LARGE = ROOT / "tests" / "data" / "shapes" / "llama-3.1-8b.json"
_ONE = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
}  # fmt: skip
_SMALL = {
    "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 32, "vocab_size": 4096, "tie_word_embeddings": False,
}  # fmt: skip
_ACTIVE = {**_SMALL, "hidden_size": 8192, "intermediate_size": 65536, "num_hidden_layers": 1, "num_attention_heads": 64,
           "head_dim": 128}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "8b": json.loads(LARGE.read_text()),
    "1b": _ONE,
    "active": _ACTIVE,
    "small": _SMALL,
}
"""Name → the sizes of a Llama: Llama-3.1-8B's, Llama-3.2-1B's, one whose activations are large beside its weights, and
one for cores."""
SHARD_BYTES = 4 * 10**9


def step_parser(description: str | None, gpu_shape: str) -> argparse.ArgumentParser:
    """Make a step's parser: with `--shape`, by default `gpu_shape` with `--gpu` and `small` without."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--scratch", type=Path, required=True, help="an empty folder")
    parser.add_argument("--shape", choices=SHAPES, help=f"default: {gpu_shape} with --gpu, else small")
    parser.set_defaults(gpu_shape=gpu_shape)
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments of a step, its shape filled in."""
    args = parser.parse_args()
    args.shape = args.shape or (args.gpu_shape if args.gpu else "small")
    return args


def count(shape: str) -> int:
    """Count the weights of a shape."""
    return sum(tensor.numel() for tensor in _empty(shape).values())


def _config(shape: str) -> Any:
    from transformers import LlamaConfig

    sizes = {key: value for key, value in SHAPES[shape].items() if key not in ("architectures", "model_type")}
    sizes["max_position_embeddings"] = 8192
    return LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def _empty(shape: str) -> dict[str, torch.Tensor]:
    from transformers import LlamaForCausalLM

    config = _config(shape)
    with torch.device("meta"):
        state = LlamaForCausalLM(config).state_dict()
    return {name: tensor for name, tensor in state.items() if not (config.tie_word_embeddings and "lm_head" in name)}


def make_model(folder: Path, shape: str, seed: int, device: str) -> Path:
    """Write a bfloat16 checkpoint with random weights, drawn on the device, in files of 4 GB."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    generator = torch.Generator(device).manual_seed(seed)
    shards: list[dict[str, torch.Tensor]] = [{}]
    index: dict[str, str] = {}
    tensors = _empty(shape)

    def write() -> None:
        file = f"model-{len(shards):05d}.safetensors"
        save_file(shards[-1], folder / file, {"format": "pt"})
        index.update(dict.fromkeys(shards[-1], file))
        shards[-1].clear()
        shards.append({})

    for name, like in tensors.items():
        drawn = torch.empty(like.shape, dtype=torch.bfloat16, device=device)
        shards[-1][name] = (drawn.fill_(1) if "norm" in name else drawn.normal_(0, 0.02, generator=generator)).cpu()
        if sum(tensor.nbytes for tensor in shards[-1].values()) > SHARD_BYTES:
            write()
    if shards[-1]:
        write()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = {**_config(shape).to_dict(), "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    for file in TOKENIZER.glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return folder


@dataclasses.dataclass(frozen=True)
class OwnBoot(Boot):
    """A boot with more of vLLM's arguments than the sweep file has."""

    more: tuple[tuple[str, Any], ...] = ()

    @cached_property
    def arguments(self) -> dict[str, Any]:
        return {**super().arguments, **dict(self.more)}


def open_engine(
    folder: Path, scratch: Path, *, gpu: bool, dtype: str = "bfloat16", models: int = 2,
    settings: dict[str, Any] | None = None, **more: Any
) -> VllmEngine:  # fmt: skip
    """Start an engine without compilation; more of vLLM's arguments by keyword."""
    engine = EngineSettings.model_validate({"enforce_eager": True, "kv_cache_gib": 0.25, **(settings or {})})
    workers = Workers(gpus=float(gpu), engine=engine)
    serving = Serving("t", None, (2,), engine.max_model_len, "x", (), "a", str(folder))
    scratch.mkdir(parents=True, exist_ok=True)
    return VllmEngine(OwnBoot(folder, folder, dtype, workers, models, more=tuple(more.items())), serving, scratch)


def finish(result: dict[str, Any]) -> None:
    """Print a step's result as its last line."""
    print(json.dumps(result), flush=True)
