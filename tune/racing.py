"""Racing: which candidates are evaluated on all questions, with one bound on the error of the whole race.

Recipes are evaluated on the questions in one random order, the same for all, task by task in proportion (`race_order`),
so that a rung is a nested, stratified subset. The race looks for the front that *all* questions would show; a prefix of
a random order is a sample of them without replacement.

A candidate is stopped early when the evidence that a rival beats it in every objective is strong enough. Evidence is
the capital of a bettor who starts with 1 and bets, question by question, against "the rival is no better over all
questions" (Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting, section 5: without
replacement). If that is true, the capital ever exceeds 1/a with probability a at most (Ville's inequality): no
distribution is assumed, and a decision needs only the answers that are there. The price of many looks, objectives,
rivals and candidates:

- Looks: nothing.
- Objectives: nothing; "beaten in every one" is claimed with the least of their capitals (Berger 1982:
  intersection-union).
- Rivals: the capital is shared equally among bets against each. They are the front of the recipes that had all their
  scores when the candidate was first compared. As long as no candidate was stopped wrongly and none is deferred, that
  is the front of all recipes so far, whatever the order of the questions, and so not a choice by the answers that are
  bet on.
- Candidates: their tests are closed with the mean of capitals (Vovk & Wang 2021, E-values: calibration, combination and
  applications), over as many as the race may see.

So, for recipes that were chosen beforehand and verdicts of one task per objective, the probability that a race stops
any recipe of the front is alpha at most. Several tasks per objective are drawn in proportion, which varies less than
the random order that the bound is for. Other metrics are bounded by the differences that were seen. In a search, later
candidates are chosen by earlier answers to the same questions; the held-out questions are there for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.stats.estimates import Floats
from orchestrator.stats.front import pareto_front

Answers = tuple[Floats, ...]
"""A recipe's values of the documents that it has answered, in the race's order; an array for each objective, to be
maximised."""
BETS = (0.1, 0.25, 0.45, 0.7, 0.95)
"""Shares of the capital that are bet on each question; the capital is split evenly over them at the start."""
DEFER_ABOVE = float(np.log(0.5))
"""Evidence (log capital) from which on a candidate is deferred while others are evaluated: it continues at once only
where the bets against it have lost half, so that it has shown what it is better at."""
LARGE = 600.0
"""exp of more would overflow."""


def race_order(keys: Sequence[str], seed: int) -> list[int]:
    """Draw an order of one task's documents (as indices) that depends on their content and the seed alone."""
    drawn = [hashlib.sha256(f"{seed} {key}".encode()).digest() for key in keys]
    return sorted(range(len(keys)), key=lambda index: drawn[index])


@dataclass(frozen=True)
class RaceTest:
    """The test that decides whether a candidate is beaten.

    Args:
        documents: number of documents of each objective.
        bounds: of each objective, the largest difference that two values of a document can have.
        alpha: probability that the race stops any recipe of the front.
        candidates: how many the race may see.
    """

    documents: tuple[int, ...]
    bounds: tuple[float, ...]
    alpha: float
    candidates: int

    def evidence(self, own: Answers, rivals: Sequence[Answers]) -> float:
        """Compute the log of the capital won against "no rival beats it in every objective"; 0 without a rival.

        Args:
            rivals: their values over all documents.
        """
        if not rivals:
            return 0.0
        least = np.full(len(rivals), np.inf)
        for k, (total, bound) in enumerate(zip(self.documents, self.bounds, strict=True)):
            gained = np.stack([rival[k][: len(own[k])] for rival in rivals]) - own[k]
            least = np.minimum(least, log_capital(gained, total, bound))
        return float(np.logaddexp.reduce(least) - np.log(len(least)))

    def beaten(self, own: float, others: Iterable[float]) -> bool:
        """Whether a recipe is beaten: every group of candidates that it may be a member of is rejected.

        This is closed testing, a group's capital being its mean (Vovk & Wang 2021, algorithm 1).

        Args:
            own: the evidence against it.
            others: that against all others, those stopped early included; candidates still to come count with 0.
        """
        capital = np.exp(np.minimum([*others], LARGE))
        unseen = max(self.candidates - 1 - len(capital), 0)
        smallest = np.cumsum(np.sort(np.append(capital, np.ones(unseen))))
        means = (np.exp(min(own, LARGE)) + np.append(0.0, smallest)) / np.arange(1, len(smallest) + 2)
        return bool(means.min() >= 1 / self.alpha)


def log_capital(gained: Floats, total: int, bound: float) -> Floats:
    """Compute the log of the capital of betting that the mean over all `total` values is above 0; shape (...).

    Args:
        gained: the values drawn so far, without replacement, each within [-bound, bound]; shape (..., n).
        total: how many values there are.
    """
    if bound == 0:
        return np.zeros(gained.shape[:-1])
    seen = np.arange(gained.shape[-1])
    fair = -(np.cumsum(gained, axis=-1) - gained) / (total - seen)  # the mean of what is left, if the whole had mean 0
    stake = 1 / np.maximum(bound + fair, bound / total)  # all of the capital would be lost at -bound
    # Where fair is bound or more, the mean cannot be above 0 any more, and where it is below -bound, it must be.
    won = [np.log1p(np.where(fair < bound, share * stake * (gained - fair), 0)).sum(axis=-1) for share in BETS]
    certain = (fair < -bound).any(axis=-1)
    return np.where(certain, np.inf, np.logaddexp.reduce(won, axis=0) - np.log(len(BETS)))


# -------------------------------------------------------------------- estimates
def front_of(racers: Mapping[str, Answers]) -> list[str]:
    """List the recipes that no other dominates, by the means over what they have answered."""
    return pareto_front({name: estimates(answers) for name, answers in racers.items()})


def estimates(answers: Answers) -> Floats:
    """Compute each objective's mean over the documents that were answered; shape (objectives,)."""
    return np.array([values.mean() for values in answers])


def resampled(racers: Mapping[str, Answers], documents: Sequence[int], draws: int, seed: int = 0) -> Floats:
    """Compute estimates with the questions drawn anew: a paired bootstrap, one draw of questions for all recipes.

    A recipe that has answered a part of them has that part's mean.

    Returns:
        Shape (draws, recipes, objectives).
    """
    generator = np.random.default_rng(seed)
    found = np.empty((draws, len(racers), len(documents)))
    for k, total in enumerate(documents):
        weights = generator.multinomial(total, np.full(total, 1 / total), size=draws).astype(float)
        lengths = np.array([len(answers[k]) for answers in racers.values()])
        padded = np.array([np.pad(answers[k], (0, total - len(answers[k]))) for answers in racers.values()])
        sums = np.cumsum(weights, axis=1)[:, lengths - 1]
        found[:, :, k] = weights @ padded.T / np.maximum(sums, 1)
    return found
