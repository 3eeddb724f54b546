"""How long a sweep may take on GPUs, from what its questions read and write and what a GPU can do at best.

Reading is bound by arithmetic (two operations a weight and token), writing by how fast the weights are read from memory
(once a step for all sequences of a batch), merging by the way that the parents come. Each is taken at the share of the
data sheet's best that serving usually reaches, and the ranks of an engine as if none waited for another. It is a rough
number before anything is measured; the progress of a run shows the true one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.core.records import Question
from orchestrator.sizing.nodes import ACCELERATORS
from orchestrator.sizing.placement import Fit

ARITHMETIC_SHARE, STREAMING_SHARE = 0.4, 0.5
"""Parts of the data sheet's operations and bytes a second that are reached."""
PCIE_BYTES_PER_S, MAPPED_BYTES_PER_S = 20e9, 4e9
"""Bytes a second that each GPU gets from pinned host memory (PCIe 4.0, 16 lanes, by the standard 32e9), and from files
that are mapped and in the page cache; from a disk it is what the disk gives."""


@dataclass(frozen=True)
class Estimate:
    """Seconds that one engine takes for one recipe."""

    answer_s: float
    """Seconds for the answers, at most: if every text is as long as it may be."""
    merge_s: float
    """Seconds until the recipe's weights are in place."""


def estimate(questions: Collection[Question], fit: Fit, engines: int) -> Estimate:
    """The seconds that an engine takes for a recipe's questions.

    Args:
        questions: of one recipe.
        fit: one that fits, on a kind of GPU that is known; bfloat16 or float16.
        engines: number of engines among which the questions of all recipes are spread.
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
    """Texts that are written at once: no more than there are, than max_num_seqs, and than the KV cache has room for.

    Args:
        texts: tokens of each prompt, and tokens written after it.
    """
    if not texts:
        return 1
    mean = sum(context + tokens for context, tokens in texts) / len(texts)
    return max(1, min(fit.engine.max_num_seqs, len(texts) // max(1, engines), int(fit.cache_tokens / mean)))


def merge_seconds(fit: Fit) -> float:
    """Seconds until the weights of a recipe of an elementwise method are in place; every rank reads its own shards."""
    memory_bytes_per_s = ACCELERATORS[fit.node.kind].bytes_per_s * STREAMING_SHARE
    parent_bytes_per_s = {"gpu": memory_bytes_per_s, "pinned": PCIE_BYTES_PER_S, "mapped": MAPPED_BYTES_PER_S}
    return fit.parent_bytes / parent_bytes_per_s[fit.place] + fit.weight_bytes / memory_bytes_per_s
