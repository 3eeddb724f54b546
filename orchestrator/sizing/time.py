"""How long a sweep may take on GPUs, estimated from its prompts and answers and the peak rates of a GPU.

Prefill is bound by arithmetic (two operations per weight and token), decoding by memory bandwidth (the weights are read
once per step for all sequences of a batch), merging by the bandwidth to where the parents are kept. Each is assumed to
reach the share of the data sheet's peak that serving usually reaches, and the ranks of an engine not to wait for one
another. It is a rough estimate before anything is measured; the progress of a run shows the real rate.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.core.records import Question
from orchestrator.sizing.nodes import ACCELERATORS
from orchestrator.sizing.placement import Fit

ARITHMETIC_SHARE, STREAMING_SHARE = 0.4, 0.5
"""Shares of the data sheet's operations and bytes per second that are reached."""
PCIE_BYTES_PER_S, MAPPED_BYTES_PER_S = 20e9, 4e9
"""Bytes per second that each GPU reads from pinned host memory (PCIe 4.0, 16 lanes; 32e9 in the standard), and from
memory-mapped files in the page cache; files that are not cached are read at the speed of the disk."""


@dataclass(frozen=True)
class Estimate:
    """The seconds that one engine takes for one recipe."""

    answer_s: float
    """Seconds for the answers at most, when every generated text has its maximum length."""
    merge_s: float
    """Seconds until the recipe's weights are merged and loaded."""


def estimate(questions: Collection[Question], fit: Fit, engines: int) -> Estimate:
    """Estimate the seconds that an engine takes for a recipe's questions.

    Args:
        questions: of one recipe.
        fit: a layout that fits, on a type of GPU in ACCELERATORS; bfloat16 or float16.
        engines: number of engines that the questions of all recipes are distributed to.
    """
    device, gpus = ACCELERATORS[fit.node.kind], fit.layout.gpus
    # The choices of a question share its context, which is read once.
    contexts = {question.context for question in questions}
    read = sum(map(len, contexts)) + sum(len(question.continuation) for question in questions)
    texts = [(len(question.context), question.decoding.max_tokens) for question in questions if question.decoding]
    written = sum(tokens for _, tokens in texts)
    operation_s = 2 * fit.shape.parameters / (device.flops_per_s * ARITHMETIC_SHARE * gpus)
    stream_s = fit.shape.weight_bytes / (device.bytes_per_s * STREAMING_SHARE * gpus)
    token_s = max(operation_s, stream_s / _batch(texts, fit, engines))
    return Estimate(read * operation_s + written * token_s, merge_seconds(fit))


def _batch(texts: Collection[tuple[int, int]], fit: Fit, engines: int) -> int:
    """Estimate the texts generated at once, limited by their number, `max_num_seqs` and the KV cache.

    Args:
        texts: pairs of the tokens of a prompt and the tokens generated after it.
    """
    if not texts:
        return 1
    mean = sum(context + tokens for context, tokens in texts) / len(texts)
    return max(1, min(fit.engine.max_num_seqs, len(texts) // max(1, engines), int(fit.cache_tokens / mean)))


def merge_seconds(fit: Fit) -> float:
    """Estimate the seconds to merge a recipe of an elementwise method; every rank reads its own shards."""
    memory_bytes_per_s = ACCELERATORS[fit.node.kind].bytes_per_s * STREAMING_SHARE
    parent_bytes_per_s = {"gpu": memory_bytes_per_s, "pinned": PCIE_BYTES_PER_S, "mapped": MAPPED_BYTES_PER_S}
    return fit.parent_bytes / parent_bytes_per_s[fit.place] + fit.weight_bytes / memory_bytes_per_s
