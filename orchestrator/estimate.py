"""How long the answering of a sweep may take, from what its questions read and write and what a GPU can do at best.

Reading is bound by arithmetic (two operations a weight and token), writing by how fast the weights stream past (once a
step for all sequences of a batch). Both are taken at the share of the data sheet's best that serving usually reaches.
It is a rough number before anything is measured; the progress of a run tells the true one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.config import SweepConfig
from orchestrator.records import Question


@dataclass(frozen=True)
class Accelerator:
    flops: float
    """Dense bfloat16 operations a second, by the data sheet."""
    bandwidth: float
    """Bytes a second between memory and chip, by the data sheet."""
    memory: float
    """Bytes."""


ACCELERATORS = {
    "A100": Accelerator(312e12, 1.56e12, 40e9),
    "H100": Accelerator(989e12, 3.35e12, 80e9),
    "H200": Accelerator(989e12, 4.8e12, 141e9),
    "L4": Accelerator(121e12, 0.3e12, 24e9),
    "L40S": Accelerator(362e12, 0.864e12, 48e9),
}
"""By Ray's names; the A100 is the one with 40 GB."""
ARITHMETIC, STREAMING = 0.4, 0.5
"""Shares of the best that are reached."""


def seconds(config: SweepConfig, questions: Collection[Question], parameters: int, workers: int) -> float | None:
    """Seconds that the answers to these questions take at most, if every text is as long as it may be.

    Returns:
        None where the sweep names no accelerator that is known here, or computes in float32.
    """
    engine, device = config.workers.engine, ACCELERATORS.get(config.workers.accelerator_type or "")
    if device is None or config.dtype == "float32":
        return None
    # The choices of a question share its context, which is read once.
    contexts = {question.context for question in questions}
    read = sum(map(len, contexts)) + sum(len(question.continuation) for question in questions)
    lengths = [question.decoding.max_tokens for question in questions if question.decoding]
    together = max(1, min(engine.max_num_seqs, len(lengths) // workers))
    operation = 2 * parameters / (device.flops * ARITHMETIC * engine.tensor_parallel_size)
    stream = 2 * parameters / (device.bandwidth * STREAMING * engine.tensor_parallel_size)
    return (read * operation + sum(lengths) * max(operation, stream / together)) / workers
