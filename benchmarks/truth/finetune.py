"""Whether what the report says of fine-tuning holds as often as it says, where the truth is known.

Scores are simulated with the errors that runs have: documents that are hard for all, or for one starting point; seeds
whose examples are good or bad for both starting points, or for one, the same at all budgets or not; and what is left,
skewed and mostly zero where metrics of texts are. The learning curves are smooth functions that the statistics do not
know.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from orchestrator.stats.estimates import Floats
from orchestrator.stats.learning_curves import Curve, equivalents
from orchestrator.stats.scores import Score, TaskScore
from orchestrator.stats.seeds import SeedMean, mean_of, paired, ratio

BUDGETS = (8, 16, 32, 64, 128, 256, 512)
SEEDS = 3
Truth = Callable[[float], float]
"""Number of examples → the expected score."""


def saturating(start: float, end: float, half: float) -> Truth:
    """Make a curve from `start` (no examples) to `end` (any number), half way at `half` examples."""
    return lambda n: start + (end - start) * n / (n + half)


SHAPES: dict[str, tuple[Truth, Truth]] = {
    "steep": (saturating(0.2, 0.7, 20), saturating(0.1, 0.7, 60)),
    "flat": (saturating(0.30, 0.34, 30), saturating(0.29, 0.34, 60)),
    "plateau": (saturating(0.2, 0.5, 4), saturating(0.2, 0.5, 8)),
    "crossing": (saturating(0.35, 0.50, 50), saturating(0.1, 0.65, 60)),
    "sudden": (lambda n: 0.2 + 0.4 / (1 + math.exp(-2 * math.log(n / 40))), saturating(0.2, 0.6, 90)),
    "the same": (saturating(0.2, 0.6, 30), saturating(0.2, 0.6, 30)),
    "beyond": (saturating(0.5, 0.8, 20), saturating(0.1, 0.5, 60)),
    "under": (saturating(0.1, 0.3, 60), saturating(0.35, 0.8, 20)),
}
"""Name → the curve of the one starting point and that of the other, which is read."""


@dataclass(frozen=True)
class Noise:
    """The errors' sizes, as standard deviations."""

    seed: float
    """Of a run's mean, from its seed."""
    shared: float
    """Share of the seed's variance that both starting points have."""
    start: float
    """Of a document, for one starting point whatever the seed."""
    rest: float
    """Of a document in one run."""
    skewed: bool = False


NOISES = [
    Noise(seed=0.003, shared=0.5, start=0.05, rest=0.1),
    Noise(seed=0.003, shared=0.0, start=0.2, rest=0.02),
    Noise(seed=0.04, shared=0.0, start=0.02, rest=0.1),
    Noise(seed=0.04, shared=0.8, start=0.1, rest=0.2, skewed=True),
    Noise(seed=0.02, shared=0.0, start=0.15, rest=0.1, skewed=True),
]
DOCUMENTS = (20, 100, 500)
ASKED = (16, 128)
"""Numbers of examples whose equivalent is asked for."""
FEW_BUDGETS = (8, 64, 512)
"""Budgets at which starting points are compared."""
KEPT = 0.95
"""The share of a parent's score that is kept."""
FIRST = 90_000
"""The first random seed."""


def drawn(truths: list[Truth], noise: Noise, documents: int, rng: np.random.Generator) -> list[Curve]:
    """Draw the scores of all runs of several starting points, with the same seeds and documents."""
    shape = (len(truths), len(BUDGETS), SEEDS)
    both = math.sqrt(noise.shared) * rng.normal(0, noise.seed, (1, 1, SEEDS))
    # Subsets are nested: half of what a seed does to a starting point is the same at every budget.
    alike, apart = (rng.normal(0, noise.seed, each) for each in ((len(truths), 1, SEEDS), shape))
    own = math.sqrt((1 - noise.shared) / 2) * (alike + apart)
    levels = np.array([[truth(n) for n in BUDGETS] for truth in truths])[:, :, None] + both + own
    hard = rng.normal(0, 0.25, documents)
    start = _errors(rng, (len(truths), 1, 1, documents), noise.start, noise.skewed)
    rest = _errors(rng, (*shape, documents), noise.rest, noise.skewed)
    values = levels[..., None] + hard + start + rest
    return [
        {n: {seed: score_of(values[i, j, seed]) for seed in range(SEEDS)} for j, n in enumerate(BUDGETS)}
        for i in range(len(truths))
    ]


def _errors(rng: np.random.Generator, shape: tuple[int, ...], deviation: float, skewed: bool) -> Floats:
    """Draw errors of mean zero: normal, or mostly one value and seldom a far larger one."""
    if not skewed:
        return rng.normal(0, deviation, shape)
    drawn = rng.exponential(1.0, shape) * (rng.random(shape) < 0.3)
    return np.asarray(deviation * (drawn - 0.3) / math.sqrt(0.51))


def score_of(values: Floats) -> Score:
    """Make the score of a run from its documents' values."""
    value = float(values.mean())
    return Score(value, (TaskScore("o", "t", {"m": value}, value, values - value, values),), (1.0,))


def worth(truth: float, other: Truth) -> float:
    """Find the number of examples at which the other curve has this score: 0 under its budgets, infinite beyond."""
    low, high = float(BUDGETS[0]), float(BUDGETS[-1])
    if truth < other(low):
        return 0.0
    if truth > other(high):
        return math.inf
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if other(middle) < truth else (low, middle)
    return high


def covered(shape: str, noise: Noise, documents: int, draws: int, seed: int) -> float:
    """Compute the share of the intervals of one setting that have the true number of examples in them."""
    rng = np.random.default_rng(seed)
    one, other = SHAPES[shape]
    true = {n: worth(one(n), other) for n in ASKED}
    hits = []
    for _ in range(draws):
        mine, theirs = drawn([one, other], noise, documents, rng)
        for found in equivalents({n: mine[n] for n in ASKED}, theirs):
            assert found.interval is not None, "three seeds show an interval"
            low, high = found.interval
            hits.append(low <= true[found.examples] <= high)
    return float(np.mean(hits))


def false_verdicts(noise: Noise, documents: int, draws: int, seed: int) -> float:
    """Compute the share of reports of four starting points that learn alike in which any difference is called one.

    The families are those of the report: the means over the budgets, and the differences at one budget.
    """
    rng = np.random.default_rng(seed)
    truth = SHAPES["steep"][0]
    wrong = np.zeros(2)
    for _ in range(draws):
        curves = drawn([truth] * 4, noise, documents, rng)
        pairs = [
            [difference for n in FEW_BUDGETS if (difference := paired(one[n], other[n])) is not None]
            for one, other in itertools.product(curves[:2], curves[2:])
        ]
        families = [[mean_of(each) for each in pairs], [difference for each in pairs for difference in each]]
        wrong += [any(each.differs(len(family)) for each in family) for family in families]
    return float(wrong.max() / draws)


def covered_ratio(noise: Noise, documents: int, draws: int, seed: int) -> float:
    """Compute how often Fieller's interval has the true share of a parent's score that training keeps in it."""
    rng = np.random.default_rng(seed)
    hits = []
    for _ in range(draws):
        tuned, parent = drawn([lambda _: 0.5 * KEPT, lambda _: 0.5], noise, documents, rng)
        found = ratio(SeedMean.of(list(tuned[8].values())), SeedMean.of(list(parent[8].values())))
        hits.append(found is None or found.low <= KEPT <= found.high)
    return float(np.mean(hits))


def measure(quick: bool) -> dict[str, float]:
    """Measure the worst setting of each statement on fine-tuning.

    Returns:
        examples_coverage: of the intervals of "so many examples of A equal so many of B", at three seeds.
        tuned_false_better: share of reports in which a family of differences between equal starting points has a
            false one.
        retention_coverage: of the intervals of a share of a parent's score.
    """
    shapes = list(itertools.product(SHAPES, NOISES, DOCUMENTS))[:: 13 if quick else 1]
    noises = list(itertools.product(NOISES, DOCUMENTS[:2]))[:: 4 if quick else 1]
    part = 4 if quick else 1
    examples = [covered(*each, 100 // part, FIRST + place) for place, each in enumerate(shapes)]
    better, retention = [], []
    for place, (noise, documents) in enumerate(noises):
        better.append(false_verdicts(noise, documents, 400 // part, FIRST + place))
        retention.append(covered_ratio(noise, documents, 200 // part, FIRST + place))
    return {
        "examples_coverage": min(examples),
        "tuned_false_better": max(better),
        "retention_coverage": min(retention),
    }
