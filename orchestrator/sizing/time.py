"""How long a sweep may take on GPUs, from what its questions read and write and what a GPU can do at best.

Reading is bound by arithmetic (two operations a weight and token), writing by how fast the weights stream past (once a
step for all sequences of a batch), merging by the way that the parents come. Each is taken at the share of the data
sheet's best that serving usually reaches, and the ranks of an engine as if none waited for another. It is a rough
number before anything is measured; the progress of a run tells the true one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.core.records import Question
from orchestrator.sizing.nodes import ACCELERATORS
from orchestrator.sizing.placement import Fit

ARITHMETIC, STREAMING = 0.4, 0.5
"""Shares of the best that are reached."""
PCIE, MAPPED = 20e9, 4e9
"""Bytes a second that each GPU gets from pinned host memory (PCIe 4.0, 16 lanes, by the standard 32e9), and from files
that are mapped and in the page cache; from a disk it is what the disk gives."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of one engine, for one recipe."""

    answer_s: float
    """At most: if every text is as long as it may be."""
    merge_s: float


def estimate(questions: Collection[Question], fit: Fit, engines: int) -> Estimate:
    """
    Args:
        fit: one that fits, on a kind of GPU that is known; bfloat16 or float16.
        engines: among which the questions of all recipes are spread.
    """
    device, ranks, size = ACCELERATORS[fit.node.kind], fit.layout.ranks, fit.shape.size
    # The choices of a question share its context, which is read once.
    contexts = {question.context for question in questions}
    read = sum(map(len, contexts)) + sum(len(question.continuation) for question in questions)
    texts = [(len(question.context), question.decoding.max_tokens) for question in questions if question.decoding]
    written = sum(tokens for _, tokens in texts)
    operation = 2 * fit.shape.parameters / (device.flops * ARITHMETIC * ranks * fit.layout.share)
    stream = size / (device.bandwidth * STREAMING * ranks * fit.layout.share)
    step = max(operation, stream / _together(texts, fit, engines))
    return Estimate(read * operation + written * step, merge_seconds(fit))


def _together(texts: Collection[tuple[int, int]], fit: Fit, engines: int) -> int:
    """Texts that are written at once: no more than there are, than max_num_seqs, and than the KV cache holds."""
    if not texts:
        return 1
    mean = sum(context + tokens for context, tokens in texts) / len(texts)
    return max(1, min(fit.engine.max_num_seqs, len(texts) // max(1, engines), int(fit.tokens / mean)))


def merge_seconds(fit: Fit) -> float:
    """Until the weights of a recipe of an elementwise method are in place; every rank reads its own shards."""
    bandwidth = ACCELERATORS[fit.node.kind].bandwidth * STREAMING
    speed = {"gpu": bandwidth, "pinned": PCIE, "mapped": MAPPED}[fit.place]
    return fit.parents / speed + fit.weights / bandwidth
