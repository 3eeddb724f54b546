"""What each process of a fine-tuning worker group does."""

from __future__ import annotations

import math
import os
from typing import Any

import ray

from cluster.errors import RemoteError, portable, trace, words
from orchestrator.config.finetune import Finetune
from orchestrator.core.files import write_json
from orchestrator.models.headers import read_headers
from orchestrator.sizing.finetune_memory import refusal
from tasks.finetuning.run import Diverged, Run


class DoesNotFit(Exception):
    """The run needs more memory than there is."""


@portable
def loop(config: dict[str, Any]) -> None:
    """Train run after run, in one process of the group.

    A run that raises leaves a note and ends the group, whose CUDA context may be broken with it.

    Args:
        config: `runs` (Ray's reference of a list of Run), `finetune` (the sweep's section) and `gpus` (of the group).
    """
    from ray.train import get_context

    context = get_context()
    if context.get_world_size() == 1:
        # Else accelerate takes one process for a distributed group, and copies every gradient once more.
        for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            os.environ.pop(key, None)
    # A guard: it imports trl, which takes seconds, and the driver imports this module.
    from tasks.finetuning.train import train

    for run in ray.get(config["runs"]):
        note = {"node": ray.get_runtime_context().get_node_id(), "pid": os.getpid()}
        write_json(run.files.process(context.get_world_rank()), note)
        try:
            check_memory(run, config["finetune"], config["gpus"])
            train(run)
        except Exception as error:
            if context.get_world_rank() == 0:
                status = "invalid" if isinstance(error, Diverged) else "failed"
                write_json(run.files.error, {"status": status, "message": words(error), "detail": trace(error)})
            raise RemoteError.of(error) from None


def check_memory(run: Run, finetune: Finetune, gpus: int) -> None:
    """Compare what a run needs at least with the memory of this GPU, or of this machine without one.

    Raises:
        DoesNotFit: weights, gradients and moments alone are too much.
    """
    import psutil
    import torch

    available = torch.cuda.get_device_properties(0).total_memory if gpus else psutil.virtual_memory().total
    parameters = sum(math.prod(header.shape) for header in read_headers("parents", run.start).values())
    if why := refusal(finetune, run.tuning.method, parameters, gpus, available):
        raise DoesNotFit(why)
