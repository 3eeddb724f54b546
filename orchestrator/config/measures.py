"""The measures of replies: names that `metric` takes beside lm-eval's, computed from stored answers.

`tasks.evaluation.measures` computes them. They describe how a model answers and not whether it is right: the form of a
text, the calibration of its choices. A task's own metric of the same name comes first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """What a measure is, and which of its values are better."""

    meaning: str
    """Completes the sentence `empty is …`."""
    higher_is_better: bool | None = False
    """None where neither is."""
    most: float = 1.0
    """The largest value of a document; the least is 0."""


MEASURES = {
    "empty": Measure("the share of replies without a word"),
    "at_limit": Measure("the share of replies that are as long as max_gen_toks allows, so probably cut off"),
    "unread": Measure("the share of replies in which the task's filter finds no answer"),
    "other_script": Measure(
        "the share of replies with letters of a script (Chinese, Cyrillic, …) that neither prompt nor reference has"
    ),
    "repetition": Measure("the share of a reply's sequences of four words that it has had before"),
    "words": Measure("the number of words of a reply", None, math.inf),
    "length_ratio": Measure("the words of all replies over those of their references", None, math.inf),
    "ece": Measure(
        "the expected calibration error: how far confidence and accuracy are apart, over ten ranges of confidence; "
        "with few questions it is above 0 by chance alone"
    ),
    "brier": Measure("the Brier score of the probabilities of all choices", False, 2.0),
    "position_bias": Measure(
        "the share of questions by which the places (or labels) of the chosen answers differ from those of the right "
        "ones; with few questions it is above 0 by chance alone"
    ),
}
"""Name → what it is. The first ones are of generated text, the last three of multiple choice."""
