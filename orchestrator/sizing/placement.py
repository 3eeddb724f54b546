"""How a model fits onto GPUs: vLLM's parallelism, where the parents lie while they are merged, and the room that is
left for the KV cache. Plain arithmetic, by which `plan` proposes and refuses, and an engine places its parents.

An engine is `pipeline_parallel_size` stages of consecutive layers, each on one node, each cut into
`tensor_parallel_size` ranks. A rank has one GPU. vLLM's rules for the cut:

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

from orchestrator.config.workers import Engine, Workers
from orchestrator.core.errors import UserError
from orchestrator.sizing.nodes import Node

Place = Literal["gpu", "pinned", "mapped"]
"""GPU memory; page-locked host memory, from which a GPU copies fastest; or the safetensors files as they are mapped."""

WORKING = 4 * 2**30
"""Bytes of each GPU for what vLLM computes with (activations, CUDA graphs, NCCL's buffers) and for the pieces that a
merge works on. Activations are the largest: for 16,384 tokens at once, bfloat16, about 2 * 16384 * (3 * MLP width /
ranks + 4 * hidden size) bytes, 1.9 GB for Llama-3.1-8B, 2.8 GB for the 405B model on 8 ranks."""
BATCH = 8
"""Whole sequences that should find room at once: below that, weights stream past for the sake of few tokens."""


@dataclass(frozen=True)
class Shape:
    """What placement needs to know of a model."""

    parameters: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    width: int
    """Of the MLP."""
    vocabulary: int
    tied: bool
    itemsize: int
    """Bytes of a weight, as it is served; of a key or value too."""

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return self.parameters * self.itemsize

    @property
    def embedding(self) -> int:
        """Bytes of the embedding, and of the head."""
        return self.vocabulary * self.hidden * self.itemsize

    @property
    def layer(self) -> float:
        """Bytes of a layer's weights."""
        return (self.size - self.embedding * (1 if self.tied else 2)) / self.layers

    def divides(self, tensor_parallel: int) -> bool:
        """vLLM's rules."""
        heads = self.kv_heads % tensor_parallel == 0 or tensor_parallel % self.kv_heads == 0
        padded = math.ceil(self.vocabulary / 64) * 64
        return heads and not any(n % tensor_parallel for n in (self.heads, self.width, padded))


def shape_of(config: dict[str, Any], parameters: int, dtype: str) -> Shape:
    """
    Args:
        config: config.json, as `orchestrator.models.resolve.normal` makes it.

    Raises:
        UserError: it lacks a key.
    """
    keys = (
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size",
        "intermediate_size", "vocab_size",
    )  # fmt: skip
    if missing := [key for key in keys if not config.get(key)]:
        raise UserError(f"parents: config.json has no {missing[0]}; placement needs a config of Llama's kind")
    layers, heads, kv_heads, head_dim, hidden, width, vocabulary = (int(config[key]) for key in keys)
    tied, itemsize = bool(config["tie_word_embeddings"]), 4 if dtype == "float32" else 2
    return Shape(parameters, layers, heads, kv_heads, head_dim, hidden, width, vocabulary, tied, itemsize)


@dataclass(frozen=True)
class Layout:
    """How one engine is cut."""

    tensor: int = 1
    pipeline: int = 1
    share: float = 1.0
    """Of a GPU, that each rank takes."""

    @property
    def ranks(self) -> int:
        return self.tensor * self.pipeline

    @property
    def gpus(self) -> float:
        return self.ranks * self.share

    @property
    def keys(self) -> str:
        """As a sweep file says it."""
        pipeline = f", pipeline_parallel_size: {self.pipeline}" if self.pipeline > 1 else ""
        gpus = f", gpus: {self.share:g}" if self.share < 1 else ""
        return f"tensor_parallel_size: {self.tensor}{pipeline}{gpus}"


def layout_of(workers: Workers) -> Layout:
    """The sweep's own."""
    return Layout(workers.engine.tensor_parallel_size, workers.engine.pipeline_parallel_size, workers.gpus or 1.0)


@dataclass(frozen=True)
class Fit:
    """One engine on one kind of node. Bytes are those of the fullest rank and its (share of a) GPU."""

    shape: Shape
    models: int
    """Parents that are merged."""
    engine: Engine
    layout: Layout
    node: Node

    @property
    def budget(self) -> float:
        """What vLLM may take, and what the merges take beside it."""
        return self.node.memory * self.layout.share * self.engine.gpu_memory_utilization

    @property
    def weights(self) -> float:
        """Of the stage with the most: embedding and head are at the ends, layers that do not divide in the middle."""
        shape, (tensor, stages) = self.shape, (self.layout.tensor, self.layout.pipeline)
        repeated = max(1, tensor // shape.kv_heads) - 1
        kv = 2 * shape.hidden * shape.kv_heads * shape.head_dim * shape.itemsize * repeated
        counts = layers_of_stages(shape.layers, stages)
        sizes = [count * (shape.layer + kv) for count in counts]
        sizes[0] += shape.embedding
        if not shape.tied or stages > 1:
            sizes[-1] += shape.embedding
        return max(sizes) / tensor

    @property
    def parents(self) -> float:
        """Of all parents, what a rank takes."""
        return self.weights * self.models

    @property
    def token(self) -> float:
        """Of the KV cache, for one token."""
        heads = max(1, self.shape.kv_heads // self.layout.tensor)
        layers = max(layers_of_stages(self.shape.layers, self.layout.pipeline))
        return 2 * layers * heads * self.shape.head_dim * self.shape.itemsize

    @property
    def free(self) -> float:
        """Beside weights and `WORKING`; negative where there is too little."""
        return self.budget - self.weights - WORKING

    @property
    def least(self) -> float:
        """Of KV cache: one sequence of `max_model_len` tokens, without which vLLM does not start."""
        return self.token * self.engine.max_model_len

    @property
    def fits(self) -> bool:
        return self.shape.divides(self.layout.tensor) and self.free >= self.least

    @property
    def place(self) -> Place:
        """As near to the weights as the parents fit, without taking the room of a batch or of `kv_cache_gib`."""
        wanted = max(self.batch * self.least, self.engine.kv_cache_gib * 2**30)
        if self.free - self.parents >= wanted:
            return "gpu"
        return "pinned" if self.parents <= self.host / 2 else "mapped"

    @property
    def host(self) -> float:
        """Bytes of the node's memory, divided by its ranks."""
        return self.node.host * self.layout.share / max(1, self.node.gpus)

    @property
    def cache(self) -> float:
        """Bytes of KV cache."""
        return self.free - (self.parents if self.place == "gpu" else 0)

    @property
    def tokens(self) -> int:
        """What the engine's KV cache holds."""
        return int(self.cache / self.token)

    @property
    def sequences(self) -> int:
        """Whole sequences that run at once."""
        return min(self.engine.max_num_seqs, self.tokens // self.engine.max_model_len)

    @property
    def batch(self) -> int:
        return min(BATCH, self.engine.max_num_seqs)

    @property
    def words(self) -> str:
        """The arithmetic."""
        parents = f" + {gb(self.parents)} of parents" if self.fits and self.place == "gpu" else ""
        cache = self.cache if self.fits else self.least
        told = f"{self.tokens:,} tokens" if self.fits else f"one sequence of {self.engine.max_model_len:,} tokens"
        total = gb(self.weights + WORKING + cache + (self.parents if parents else 0))
        gpu = f"{self.engine.gpu_memory_utilization:g} x {gb(self.node.memory * self.layout.share)}"
        return (
            f"{gb(self.weights)} of weights + {gb(WORKING)} to compute with{parents} + {gb(cache)} of KV cache "
            f"({told}) = {total} a GPU of {gpu} = {gb(self.budget)}"
        )


def layers_of_stages(layers: int, stages: int) -> list[int]:
    """vLLM's `get_pp_indices`."""
    counts = [layers // stages] * stages
    for index in range(2, layers % stages + 2):
        counts[-index] += 1
    return counts


def gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
