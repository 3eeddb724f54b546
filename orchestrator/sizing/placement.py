"""How a model fits on GPUs: vLLM's parallelism, where the parents are kept, and the room for the KV cache.

It is plain arithmetic, by which `plan` proposes and refuses layouts, and an engine decides where to keep its parents.

An engine is `pipeline_parallel_size` stages of consecutive layers, each on one node, each split over
`tensor_parallel_size` ranks. A rank has one GPU. vLLM's rules for the split:

- attention heads are divided (`ModelConfig.verify_with_parallel_config`); key-value heads are divided, or repeated
  where there are fewer of them (`QKVParallelLinear`);
- the MLP's width (`divide` in `ColumnParallelLinear`) and the vocabulary, padded to a multiple of 64
  (`VocabParallelEmbedding`), are divided;
- layers that do not divide go to the stages in the middle first (`vllm.distributed.utils.get_pp_indices`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.core.errors import UserError
from orchestrator.core.text import gigabytes
from orchestrator.sizing.nodes import Node

Place = Literal["gpu", "pinned", "mapped"]
"""Where parents are kept: GPU memory; page-locked host memory, from which a GPU copies fastest; or memory-mapped
safetensors files."""

HOST_BLOCK = 32
"""Tokens of a block of the KV cache without a GPU: small, so that short contexts are shared too; 128 is vLLM's default,
32 the least that is fast."""
WORKING_BYTES = 4 * 2**30
"""Bytes of each GPU for vLLM's computation (activations, CUDA graphs, NCCL's buffers) and for the tensor slices that a
merge works on. Activations are the largest: for 16,384 tokens at once, bfloat16, about 2 * 16384 * (3 * MLP width /
ranks + 4 * hidden size) bytes, 1.9 GB for Llama-3.1-8B, 2.8 GB for the 405B model on 8 ranks."""
BATCH = 8
"""Sequences of `max_model_len` tokens that should fit at once: with fewer, all weights are read from memory to generate
only a few tokens."""


@dataclass(frozen=True)
class Shape:
    """The dimensions of a model that placement depends on."""

    parameters: int
    """Number of weights."""
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    mlp_width: int
    """Width of an MLP's inner layer; with experts, the largest number that divides the width of each kind of MLP."""
    vocabulary: int
    """Number of tokens in the vocabulary."""
    tied: bool
    """Whether embedding and LM head are one tensor (`tie_word_embeddings`)."""
    bytes_each: int
    """Bytes of a weight as it is served, and of a number in the KV cache."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return self.parameters * self.bytes_each

    @property
    def embedding_bytes(self) -> int:
        """Bytes of the embedding; the LM head has as many."""
        return self.vocabulary * self.hidden_size * self.bytes_each

    @property
    def layer_bytes(self) -> float:
        """Bytes of the weights of one layer."""
        return (self.weight_bytes - self.embedding_bytes * (1 if self.tied else 2)) / self.layers

    def token_bytes(self, layout: EngineLayout) -> float:
        """Bytes that one token takes of a rank's KV cache, in the stage with the most layers."""
        heads = max(1, self.kv_heads // layout.tensor_parallel)
        layers = max(layers_of_stages(self.layers, layout.pipeline_parallel))
        return 2 * layers * heads * self.head_dim * self.bytes_each

    def divides(self, tensor_parallel: int) -> bool:
        """Whether vLLM can split a layer over this many ranks."""
        heads = self.kv_heads % tensor_parallel == 0 or tensor_parallel % self.kv_heads == 0
        padded = math.ceil(self.vocabulary / 64) * 64
        return heads and not any(n % tensor_parallel for n in (self.heads, self.mlp_width, padded))


def shape_of(sizes: dict[str, Any], parameters: int, dtype: str) -> Shape:
    """Read a model's shape from its config.

    Args:
        sizes: `sizes` of `orchestrator.models.configs.ModelConfig`.
        parameters: number of weights.

    Raises:
        UserError: the config lacks a size.
    """
    keys = (
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size",
        "intermediate_size", "vocab_size",
    )  # fmt: skip
    given = {**_usual(sizes), **{key: value for key, value in sizes.items() if value is not None}}
    if wrong := [key for key in keys if not isinstance(given.get(key), int) or given[key] < 1]:
        raise UserError(
            f"parents: config.json has no number {wrong[0]}, without which nothing is known of the memory that the "
            "model needs; take a model of an architecture with attention in all its layers, as Llama's"
        )
    layers, heads, kv_heads, head_dim, hidden_size, mlp_width, vocabulary = (given[key] for key in keys)
    return Shape(
        parameters=parameters,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        hidden_size=hidden_size,
        mlp_width=math.gcd(mlp_width, given.get("moe_intermediate_size") or mlp_width),
        vocabulary=vocabulary,
        tied=bool(sizes["tie_word_embeddings"]),
        bytes_each=4 if dtype == "float32" else 2,
    )


def _usual(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return the sizes that a config may leave out, as models fill them in."""
    heads, width = sizes["num_attention_heads"], sizes["hidden_size"]
    if not (isinstance(heads, int) and isinstance(width, int) and heads):
        return {}
    return {"num_key_value_heads": heads, "head_dim": width // heads}


@dataclass(frozen=True)
class EngineLayout:
    """How one engine is split into ranks."""

    tensor_parallel: int = 1
    """Number of ranks of a stage, all on one node."""
    pipeline_parallel: int = 1
    """Number of stages."""
    gpu_share: float = 1.0
    """Fraction of a GPU that each rank takes."""

    @property
    def ranks(self) -> int:
        """Number of ranks of the engine."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def gpus(self) -> float:
        """Number of GPUs that the engine takes."""
        return self.ranks * self.gpu_share

    @property
    def yaml(self) -> str:
        """The layout as keys of the sweep file's section `workers`."""
        pipeline = f", pipeline_parallel_size: {self.pipeline_parallel}" if self.pipeline_parallel > 1 else ""
        gpus = f", gpus: {self.gpu_share:g}" if self.gpu_share < 1 else ""
        return f"tensor_parallel_size: {self.tensor_parallel}{pipeline}{gpus}"


def layout_of(workers: Workers) -> EngineLayout:
    """Return the layout of the sweep file."""
    return EngineLayout(workers.engine.tensor_parallel_size, workers.engine.pipeline_parallel_size, workers.gpus or 1.0)


@dataclass(frozen=True)
class Fit:
    """The fit of one engine on one kind of node; bytes are those of the fullest rank and its (share of a) GPU."""

    shape: Shape
    parents: int
    """Number of parents that are merged."""
    engine: EngineSettings
    layout: EngineLayout
    node: Node

    @property
    def budget_bytes(self) -> float:
        """Bytes that vLLM and the merges may take together."""
        return self.node.gpu_bytes * self.layout.gpu_share * self.engine.gpu_memory_utilization

    @property
    def weight_bytes(self) -> float:
        """Bytes of a rank's weights, in the stage with the most of them.

        Embedding and LM head are in the first and the last stage; layers that do not divide go to those in the middle.
        """
        shape, (ranks, stages) = self.shape, (self.layout.tensor_parallel, self.layout.pipeline_parallel)
        repeated = max(1, ranks // shape.kv_heads) - 1
        kv_bytes = 2 * shape.hidden_size * shape.kv_heads * shape.head_dim * shape.bytes_each * repeated
        counts = layers_of_stages(shape.layers, stages)
        stage_bytes = [count * (shape.layer_bytes + kv_bytes) for count in counts]
        stage_bytes[0] += shape.embedding_bytes
        if not shape.tied or stages > 1:
            stage_bytes[-1] += shape.embedding_bytes
        return max(stage_bytes) / ranks

    @property
    def parent_bytes(self) -> float:
        """Bytes of the weights of all parents that a rank merges from."""
        return self.weight_bytes * self.parents

    @property
    def token_bytes(self) -> float:
        """Bytes of one token in the KV cache."""
        return self.shape.token_bytes(self.layout)

    @property
    def free_bytes(self) -> float:
        """Bytes that weights and `WORKING_BYTES` leave of the budget; negative where there is too little."""
        return self.budget_bytes - self.weight_bytes - WORKING_BYTES

    @property
    def least_cache_bytes(self) -> float:
        """Bytes of KV cache for one sequence of `max_model_len` tokens, without which vLLM does not start."""
        return self.token_bytes * self.engine.max_model_len

    @property
    def fits(self) -> bool:
        """Whether the engine can start."""
        return self.shape.divides(self.layout.tensor_parallel) and self.free_bytes >= self.least_cache_bytes

    @property
    def place(self) -> Place:
        """Where the parents are kept: in the fastest place that leaves room for a batch and for `kv_cache_gib`."""
        wanted = max(self.batch_sequences * self.least_cache_bytes, self.engine.kv_cache_gib * 2**30)
        if self.free_bytes - self.parent_bytes >= wanted:
            return "gpu"
        return "pinned" if self.parent_bytes <= self.host_bytes / 2 else "mapped"

    @property
    def host_bytes(self) -> float:
        """Bytes of the node's main memory per rank; 0 where it is unknown."""
        return self.node.host_bytes * self.layout.gpu_share / max(1, self.node.gpus)

    @property
    def cache_bytes(self) -> float:
        """Bytes of the KV cache."""
        return self.free_bytes - (self.parent_bytes if self.place == "gpu" else 0)

    @property
    def cache_tokens(self) -> int:
        """Number of tokens that fit in the KV cache."""
        return int(self.cache_bytes / self.token_bytes)

    @property
    def sequences(self) -> int:
        """Number of sequences of `max_model_len` tokens that run at once."""
        return min(self.engine.max_num_seqs, self.cache_tokens // self.engine.max_model_len)

    @property
    def batch_sequences(self) -> int:
        """Number of sequences of `max_model_len` tokens that should run at once."""
        return min(BATCH, self.engine.max_num_seqs)

    @property
    def arithmetic(self) -> str:
        """How the bytes of the fullest GPU add up, as text."""
        parents = f" + {gigabytes(self.parent_bytes)} of parents" if self.fits and self.place == "gpu" else ""
        cache_bytes = self.cache_bytes if self.fits else self.least_cache_bytes
        sequence = f"one sequence of {self.engine.max_model_len:,} tokens"
        cached = f"{self.cache_tokens:,} tokens" if self.fits else sequence
        total_bytes = self.weight_bytes + WORKING_BYTES + cache_bytes + (self.parent_bytes if parents else 0)
        gpu = f"{self.engine.gpu_memory_utilization:g} x {gigabytes(self.node.gpu_bytes * self.layout.gpu_share)}"
        return (
            f"{gigabytes(self.weight_bytes)} of weights + {gigabytes(WORKING_BYTES)} to compute with{parents} + "
            f"{gigabytes(cache_bytes)} of KV cache ({cached}) = {gigabytes(total_bytes)} a GPU of {gpu} = "
            f"{gigabytes(self.budget_bytes)}"
        )


def layers_of_stages(layers: int, stages: int) -> list[int]:
    """Count the layers of each pipeline stage, as vLLM's `get_pp_indices` distributes them."""
    counts = [layers // stages] * stages
    for index in range(2, layers % stages + 2):
        counts[-index] += 1
    return counts
