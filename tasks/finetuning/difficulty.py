"""How hard an example is, for the stages of ICFT's curriculum: more is harder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestrator.config.finetune import Difficulty
from tasks.finetuning.examples import Labelled
from tasks.finetuning.rows import difficulties


def measure_difficulty(kind: Difficulty, examples: Sequence[Labelled], model: Any, pad: int) -> list[float]:
    """Measure each example's difficulty.

    Length and rarity are those of Platanios et al. (2019, Competence-based curriculum learning), over the responses:
    the number of tokens, and the sum of -log of their tokens' relative frequencies among all responses, in nats.

    Args:
        kind: `loss`, the model's mean loss a token in nats; `length`, in tokens; or `rarity`, in nats.
        model: the starting model; only its loss is asked of it.
        pad: id that rows are padded with.

    Raises:
        ValueError: the model's loss is not finite: it is broken.
    """
    if kind == "loss":
        return difficulties(model, examples, pad)
    if kind == "length":
        return [float(len(each.response)) for each in examples]
    counted = Counter(token for each in examples for token in each.response)
    total = counted.total()
    return [math.fsum(math.log(total / counted[token]) for token in each.response) for each in examples]
