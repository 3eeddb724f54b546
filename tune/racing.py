"""Racing: which candidates are evaluated on all questions, with one bound on the error of the whole race.

The race looks for the front that *all* questions would show. Recipes are evaluated on them in one random order, the
same for all. A draw is a question, however many documents of tasks and objectives ask it. Draws come one after another,
each with a probability in proportion to its weight among those that are left: what a document counts in its objective,
times the range that its metric can have (`race_order`). So tasks that weigh the same give the early rungs equal numbers
of documents, whatever their sizes, until they are used up.

A candidate is stopped early when the evidence that a rival beats it in every objective is strong enough. Evidence is
the capital of a bettor who starts with 1 and bets, draw by draw, against "the rival is no better over all questions". A
draw's part of the difference, over the probability that it came now, estimates without bias what is left of the
difference, whatever the tasks' sizes and weights; so if the rival is no better, no bet is favourable (Shekhar, Xu,
Lipton, Liang & Ramdas 2023, Risk-limiting financial audits via weighted sampling without replacement; with equal
weights, Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting, section 5). A stake is
such that the capital stays positive whatever comes: the rival's answers are all known, and the candidate's value of a
document has a largest that is known before it answers (`tasks.evaluation.ranges`). The capital then ever exceeds 1/a
with probability a at most (Ville's inequality): no distribution is assumed. The price of many looks, objectives, rivals
and candidates:

- Looks: nothing.
- Objectives: nothing; "beaten in every one" is claimed with the least of their capitals (Berger 1982:
  intersection-union).
- Rivals: half of the capital is shared equally among bets against the front of the grid, which is known before the
race,
  and half among bets against as many candidates as the race may see. What is bet against those that are no rivals, or
  not yet, counts as lost, so that it does not matter who becomes one, and when.
- Candidates: Holm's (1979): the evidence must be as many times 1/alpha as there are recipes that are not stopped. As
the
  inequality is for all looks at once, it does not matter which candidate is looked at when.

So, for recipes that were chosen beforehand, the probability that a race stops any recipe of the front is alpha at most,
for one task or several, equal or not, and for every metric that is a mean over documents, or a ratio of sums whose
denominators are the documents' own (IFEval's instructions), of values that have a known largest (where lower is better,
a known least). A metric without one is bounded by the differences that were seen, and a metric that is no such mean
(corpus BLEU, perplexity, a median) is taken as the mean of its documents' influences: then nothing is guaranteed, and
plan and report say so. In a search, later candidates are chosen by earlier answers to the same questions; the held-out
questions are there for that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.stats.estimates import Floats

Answers = tuple[Floats, ...]
"""A recipe's values of the draws that it has answered, in the race's order; an array for each objective, to be
maximised. A value is what the draw adds to the objective: the sum over all draws is the score."""
BETS = (0.1, 0.25, 0.45, 0.7, 0.95)
"""Shares of the capital that are bet on each draw; the capital is split evenly over them at the start."""
DEFER_ABOVE = float(np.log(0.5))
"""Log of the mean capital against it from which on a candidate is deferred while others are evaluated: it continues at
once only where the bets against it have lost half, so that it has shown what it is better at."""
FIRST = 2
"""Documents of each task that come before all others and are not bet on, so that every task has a score on each
rung."""
TINY = 1e-9
"""Part of an objective's range that rounding errors stay below."""


# -------------------------------------------------------------------- the order
def race_order(tasks: Sequence[Sequence[str]], weight: Mapping[str, float], seed: int) -> tuple[list[str], int]:
    """Draw the order of all documents; it depends on their content and the seed alone.

    Args:
        tasks: of each task, the keys of its documents; the same question has one key everywhere.
        weight: key → what its probability is in proportion to, above 0.

    Returns:
        The keys in order, and how many of them come first to give every task a score.
    """
    found = [sorted(set(keys), key=lambda key: _uniform(f"{seed} first {key}"))[:FIRST] for keys in tasks]
    first = list(dict.fromkeys(key for keys in found for key in keys))
    # The order of exponential waiting times is that of draws in proportion to their rates.
    rest = sorted(weight.keys() - set(first), key=lambda key: -math.log(_uniform(f"{seed} {key}")) / weight[key])
    return first + rest, len(first)


def _uniform(text: str) -> float:
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") + 0.5) / 2**56


@dataclass(frozen=True)
class Draws:
    """The draws of one objective, in the race's order."""

    weights: Floats
    """What their probabilities are in proportion to; shape (draws,)."""
    first: int
    """Number of draws that are not bet on."""
    tops: Floats
    """The largest value that each can have, infinite where none is known; shape (draws,)."""

    @property
    def is_bounded(self) -> bool:
        """Whether a largest value is known for all of them, so that the race's error is bounded."""
        return bool(np.isfinite(self.tops).all())


# -------------------------------------------------------------------- the test
@dataclass(frozen=True)
class RaceTest:
    """The test that decides whether a candidate is beaten.

    Args:
        objectives: the draws of each.
        spreads: of each objective, the largest difference of two values of a draw over its weight; used only where no
            largest value is known.
        alpha: probability that the race stops any recipe of the front.
        candidates: how many the race may see.
    """

    objectives: tuple[Draws, ...]
    spreads: tuple[float, ...]
    alpha: float
    candidates: int

    def capitals(self, own: Answers, rivals: Sequence[Answers]) -> Floats:
        """Compute the log of the capital won against "it is not beaten in every objective" by each rival; (rivals,).

        Args:
            rivals: their values of all draws.
        """
        least = np.full(len(rivals), np.inf)
        for k, (draws, spread) in enumerate(zip(self.objectives, self.spreads, strict=True)):
            values = np.stack([rival[k] for rival in rivals])
            lowest = values - draws.tops if draws.is_bounded else np.broadcast_to(-spread * draws.weights, values.shape)
            gained = values[:, : len(own[k])] - own[k]
            least = np.minimum(least, log_capital(gained, draws.weights, lowest, draws.first))
        return least

    def beaten(self, grid: Floats, candidates: Floats, stopped: int) -> bool:
        """Whether a candidate is beaten.

        Args:
            grid: `capitals` against it of the grid's front.
            candidates: those of candidates.
            stopped: number of candidates that were stopped before.
        """
        shares = [(grid, len(grid)), (candidates, max(self.candidates, len(candidates)))]
        won = [np.logaddexp.reduce(each) - math.log(2 * of) for each, of in shares if len(each)]
        needed = math.log(max(self.candidates - stopped, 1) / self.alpha)
        return bool(won) and float(np.logaddexp.reduce(won)) >= needed


def log_capital(gained: Floats, weights: Floats, lowest: Floats, first: int = 0) -> Floats:
    """Compute the log of the capital of betting that the sum over all draws is above 0; shape (...).

    Args:
        gained: the values drawn so far; shape (..., n).
        weights: what the draws' probabilities are in proportion to, of all draws; shape (draws,).
        lowest: the least value that each draw can have, of all draws; shape (..., draws).
        first: number of draws that are not bet on.
    """
    n, total = gained.shape[-1], lowest.shape[-1]
    left = np.cumsum(weights[::-1])[::-1]
    seen = np.cumsum(gained, axis=-1)
    rest = np.cumsum(lowest[..., ::-1], axis=-1)[..., ::-1]  # the least that what is left can add
    tiny = TINY * np.abs(lowest).sum(axis=-1, keepdims=True)
    after = np.concatenate([rest[..., 1:], np.zeros_like(rest[..., :1])], axis=-1)[..., :n]
    certain = (seen + after > tiny).any(axis=-1)
    bet = slice(min(first, n), n)
    fair = gained[..., bet] - seen[..., bet]  # what is left adds this on average, if the whole is 0
    floor = np.minimum.accumulate((lowest / weights)[..., ::-1], axis=-1)[..., ::-1] * left
    room = fair - floor[..., bet]  # all of the capital would be lost at the floor with a stake of 1 / room
    surplus = gained[..., bet] * (left / weights)[bet] - fair
    drawn = np.divide(surplus, room, out=np.zeros_like(room), where=room > tiny)
    won = [np.log1p(share * np.maximum(drawn, -1.0)).sum(axis=-1) for share in BETS]
    assert total >= n, "no more is drawn than there is"
    return np.where(certain, np.inf, np.logaddexp.reduce(won, axis=0) - np.log(len(BETS)))
