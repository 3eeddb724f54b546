"""Starting vLLM: its settings, the same in every process of an engine.

An engine whose stages are on several nodes has a process of ours on each: the first is the engine
(`tasks.serving.vllm_engine`), the others keep vLLM's ranks of their stage running (`run_stage`). They meet at the first
one's address (vLLM's `nnodes`).
"""

from __future__ import annotations

import gc
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.core.errors import UserError
from orchestrator.models.configs import read_model_config
from orchestrator.models.formats import read_plain_config
from orchestrator.models.headers import read_headers
from orchestrator.sizing.layouts import check_host
from orchestrator.sizing.nodes import Node
from orchestrator.sizing.placement import HOST_BLOCK, Fit, Place, layout_of, shape_of
from tasks.serving.drafts import MOST

DRAFTS: dict[str, Any] = {
    "speculative_config": {
        "method": "custom_class",
        "model": "tasks.serving.drafts.Drafter",
        "num_speculative_tokens": MOST,
        # The same for all sizes. Without a schedule, vLLM gives a request of whose prompt the prefix cache has all but
        # one token a draft that is none: more rows of logits, and another draw of its first token.
        "num_speculative_tokens_per_batch_size": [(1, 1 << 16, MOST)],
    }
}


@dataclass(frozen=True)
class Span:
    """How this process is part of an engine over several nodes."""

    address: str
    """IP address of the first stage's node."""
    port: int
    """TCP port on that node, where the stages meet."""
    stage: int = 0
    """Number of this process's stage, from 0."""


@dataclass(frozen=True)
class Boot:
    """What an engine starts with.

    Args:
        model: plain folder (`tasks.merging.plain`) of the parent that it starts with; it gives architecture and tensor
            names.
        tokenizer: folder of the serving's tokenizer.
        dtype: of weights and activations, by vLLM's name.
        models: how many checkpoints the sweep merges.
        drafts: whether texts are written with drafts (`tasks.serving.drafts`).
        span: its part in an engine over several nodes; None for an engine on one.
    """

    model: Path
    tokenizer: Path
    dtype: str
    workers: Workers
    models: int
    drafts: bool = False
    span: Span | None = None

    @property
    def fit(self) -> Fit | None:
        """How the engine fits onto the GPUs that it was given; None for one on CPUs that fits into the node's memory.

        Raises:
            UserError: it does not fit; the message has the arithmetic.
        """
        import psutil
        import torch

        host = psutil.virtual_memory().total
        parameters = sum(math.prod(header.shape) for header in read_headers("parents", self.model).values())
        shape = shape_of(
            read_model_config("parents", read_plain_config("parents", self.model / "config.json")).sizes,
            parameters,
            self.dtype,
        )
        if not self.workers.gpus:
            check_host(self.workers, shape, host)
            return None
        memory = torch.cuda.get_device_properties(0).total_memory
        node = Node(_gpus_of_the_machine(), torch.cuda.get_device_name(0), memory, host)
        fit = Fit(shape, self.models, self.workers.engine, layout_of(self.workers), node)
        if not fit.fits:
            raise UserError(
                f"workers.engine: {fit.layout.yaml} does not fit here: it needs {fit.arithmetic}; see `plan`"
            )
        return fit

    @property
    def place(self) -> Place:
        """Where the parents' weights are kept (`orchestrator.sizing.placement`)."""
        return fit.place if (fit := self.fit) else "mapped"

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of vLLM's `LLM` and `EngineArgs`."""
        settings = self.workers.engine
        return {
            "model": str(self.model),
            "tokenizer": str(self.tokenizer),
            "dtype": self.dtype,
            "max_model_len": settings.max_model_len,
            "max_num_seqs": settings.max_num_seqs,
            "max_num_batched_tokens": settings.max_num_batched_tokens,
            "tensor_parallel_size": settings.tensor_parallel_size,
            "pipeline_parallel_size": settings.pipeline_parallel_size,
            "enforce_eager": settings.enforce_eager,
            "enable_prefix_caching": True,
            "worker_extension_cls": "tasks.serving.extension.Extension",
            "load_format": "safetensors",
            "disable_log_stats": True,
            "seed": 0,
            # A worker's GPUs are on one node, so its ranks are processes of this one; Ray has done its part.
            "distributed_executor_backend": "mp" if settings.ranks > 1 else "uni",
            **(DRAFTS if self.drafts else {}),
            **self.memory(self.fit),
            **self._meeting(settings),
        }

    def memory(self, fit: Fit | None) -> dict[str, Any]:
        """Return the arguments that limit the memory; `fit` is None for an engine on CPUs."""
        if fit is None:
            cache = int(self.workers.engine.kv_cache_gib * 2**30)
            return {"block_size": HOST_BLOCK, "kv_cache_memory_bytes": cache, **self._whole_prompts()}
        taken = fit.budget_bytes - (fit.parent_bytes if fit.place == "gpu" else 0)
        # vLLM derives the cache from the memory that is free while it starts; engines that start beside it on the same
        # GPU change that.
        own = {} if fit.layout.gpu_share == 1 else {"kv_cache_memory_bytes": int(fit.cache_bytes)}
        return {"gpu_memory_utilization": taken / fit.node.gpu_bytes, **own}

    def _whole_prompts(self) -> dict[str, Any]:
        """Have every prompt read in one step.

        vLLM samples a token after each piece of a prompt too, and takes back what the request's seeded generator drew
        for it. PyTorch's generators on CPUs cannot do that (`CPU Generator does not use offset`).
        """
        settings = self.workers.engine
        most = settings.max_num_batched_tokens
        enough = None if most is None else max(most, settings.max_model_len)  # None: vLLM's own default is enough
        return {"enable_chunked_prefill": False, "max_num_batched_tokens": enough}

    def _meeting(self, settings: EngineSettings) -> dict[str, Any]:
        if self.span is None:
            return {}
        at = {"master_addr": self.span.address, "master_port": self.span.port}
        return {"nnodes": settings.pipeline_parallel_size, "node_rank": self.span.stage, **at}


def prepare(workers: Workers) -> None:
    """Set the environment of this process for vLLM, then import vLLM."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    # `tasks.serving.scoring` and `drafts` read the batch of vLLM's first model runner; the second has no such proposer.
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
    # vLLM would pin the threads of every CPU worker to the same cores.
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if workers.engine.enforce_eager:
        # vLLM compiles small parts of its sampler even then: 20 s at the first answer on a CPU.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    import vllm  # noqa: F401

    # Garbage is collected several times while vLLM starts; the hundreds of thousands of imported objects are none.
    gc.freeze()


def run_stage(boot: Boot) -> None:
    """Run the ranks of a stage beyond the first; returns when one of them has ended."""
    prepare(boot.workers)
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.executor.multiproc_executor import MultiprocExecutor

    config = EngineArgs(**boot.arguments).create_engine_config(UsageContext.LLM_CLASS, headless=True)
    MultiprocExecutor(config, monitor_workers=False).start_worker_monitor(inline=True)


def _gpus_of_the_machine() -> int:
    """Count all GPUs of this machine, not only those that Ray lets this worker see."""
    listed = Path("/proc/driver/nvidia/gpus")
    return max(1, len(list(listed.iterdir()))) if listed.is_dir() else 1
