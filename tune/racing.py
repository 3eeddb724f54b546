"""Racing: who is asked the rest of the questions, with one bound on the error of the whole race.

Questions are asked in one random order, the same for all recipes, task by task in proportion (`race_order`), so that a
rung is a nested, stratified subset. What is raced for is the front that *all* questions would show; a prefix of a random
order is a sample of them without replacement.

A candidate is dropped when the evidence that a rival beats it in every objective is strong enough. Evidence is the
capital of a bettor who starts with 1 and bets, question by question, against "the rival is no better over all questions"
(Waudby-Smith & Ramdas 2024, Estimating means of bounded random variables by betting, §5: without replacement). If that
is true, the capital exceeds 1/a at any time with probability a at most (Ville): looks are free, no distribution is
assumed, and a decision needs only the answers that are there. Many looks, rivals, objectives and candidates:

- Looks: nothing to pay.
- Objectives: "beaten in every one" is claimed with the smallest of their capitals (Berger 1982: an intersection-union
  test needs no correction).
- Rivals: `RIVALS` of them, chosen by the first rung's answers alone; betting begins after it, against what those leave
  to be drawn, so the choice costs nothing. Their capitals are averaged, which is again a capital.
- Candidates: closed testing with the mean of their capitals (Vovk & Wang 2021, E-values: calibration, combination and
  applications), over all that the race may see.

So, for a fixed set of recipes and verdicts of 0 and 1 of one task per objective, the probability that a race drops any
recipe of the front is alpha at most, exactly. Several tasks per objective are drawn in proportion, which varies less than
the random order that the bound is for. In a search, later recipes are chosen by earlier answers to the same questions;
the held-out questions are there for that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Answers = tuple[Floats, ...]
"""One recipe: for each objective its documents' values, to be maximised, in the race's order, as far as it was asked."""
RIVALS = 3
BOLDEST = 0.9
"""Share of its capital that a bettor risks at most in one question."""
TINY = 1e-12
LARGE = 600.0
"""exp of more would overflow."""


def race_order(keys: Sequence[str], seed: int) -> list[int]:
    """A random order of one task's documents that depends on their content and the seed alone."""
    drawn = [hashlib.sha256(f"{seed} {key}".encode()).digest() for key in keys]
    return sorted(range(len(keys)), key=lambda index: drawn[index])


@dataclass(frozen=True)
class Race:
    """
    Args:
        documents: of each objective, all there are.
        bounds: of each objective, the largest difference that two values of a document can have.
        first: of each objective, the documents of the first rung.
        alpha: probability that the race drops any recipe of the front.
        candidates: how many the race may see.
    """

    documents: tuple[int, ...]
    bounds: tuple[float, ...]
    first: tuple[int, ...]
    alpha: float
    candidates: int

    def rivals(self, name: str, racers: Mapping[str, Answers]) -> list[str]:
        """Those that looked better in every objective on the first rung, the clearest first."""
        others = [other for other in racers if other != name]
        if not others:
            return []
        leads = []
        for k, (first, bound) in enumerate(zip(self.first, self.bounds, strict=True)):
            gained = np.stack([racers[other][k][:first] for other in others]) - racers[name][k][:first]
            leads.append(gained.sum(axis=1) / np.sqrt((gained**2).sum(axis=1) + max(bound, TINY) ** 2))
        least = np.min(leads, axis=0)
        return [others[i] for i in np.argsort(-least, kind="stable")[:RIVALS] if least[i] > 0]

    def evidence(self, name: str, racers: Mapping[str, Answers]) -> float:
        """log of the capital won against "no rival beats this recipe in every objective"; 0 without a rival."""
        rivals = self.rivals(name, racers)
        if not rivals:
            return 0.0
        least = [
            min(
                log_capital(their[: len(mine)] - mine[: len(their)], first, total, bound)
                for mine, their, first, total, bound in zip(
                    racers[name], racers[rival], self.first, self.documents, self.bounds, strict=True
                )
            )
            for rival in rivals
        ]
        return float(np.logaddexp.reduce(least) - np.log(len(least)))

    def dropped(self, racers: Mapping[str, Answers]) -> list[str]:
        """Who is out, by the answers that are there.

        Args:
            racers: everyone who was asked the first rung at least, those who were dropped before included.
        """
        return self.decide({name: self.evidence(name, racers) for name in racers})

    def decide(self, evidence: Mapping[str, float]) -> list[str]:
        """Close the tests: out is who is out in every group that it may be a member of, a group's capital being its
        mean (Vovk & Wang 2021, algorithm 1). Candidates that are still to come have their first 1."""
        unseen = max(self.candidates - len(evidence), 0)
        capital = np.sort(np.append(np.exp(np.minimum(list(evidence.values()), LARGE)), np.ones(unseen)))
        sums, sizes = np.cumsum(np.append(0.0, capital)), np.arange(len(capital) + 1)
        out = []
        for name in sorted(evidence, key=lambda each: -evidence[each]):
            own = np.exp(min(evidence[name], LARGE))
            smaller = int(np.searchsorted(capital, own))
            if ((own + sums[: smaller + 1]) / (1 + sizes[: smaller + 1])).min() < 1 / self.alpha:
                break
            out.append(name)
        return out


def log_capital(gained: Floats, skip: int, total: int, bound: float) -> float:
    """log of the capital of betting that the mean over all `total` values is above 0.

    Args:
        gained: the values drawn so far, without replacement; shape (n,), each within [-bound, bound].
        skip: so many are not bet on; what they were is known to the bettor.
        total: how many values there are.

    The bet is Kelly's for the mean and variance seen so far (the paper's approximate GRAPA, appendix B.3).
    """
    n = len(gained)
    if bound == 0 or n <= skip:
        return 0.0
    seen = np.arange(n)
    sums = np.cumsum(gained) - gained
    squares = np.cumsum(gained**2) - gained**2
    fair = -sums / (total - seen)  # the mean of what is left, if the whole had mean 0
    if (fair[skip:] <= -bound).any():
        return np.inf  # what is left cannot make up for it
    mean = sums / (seen + 1)
    variance = (squares + bound**2 / 4) / (seen + 1) - mean**2
    edge = np.maximum(mean - fair, 0)
    bet = np.minimum(edge / (variance + edge**2), BOLDEST / (bound + fair))
    won = np.log1p((bet * (gained - fair))[skip:])
    won[fair[skip:] >= bound] = 0.0  # the null cannot be missed any more: nothing to bet on
    return float(won.sum())


# -------------------------------------------------------------------- what is known at the end
def estimates(answers: Answers) -> Floats:
    """Each objective's mean over what was asked; shape (objectives,)."""
    return np.array([values.mean() for values in answers])


def resampled(racers: Mapping[str, Answers], documents: Sequence[int], draws: int, seed: int = 0) -> Floats:
    """Estimates with the questions drawn anew: a paired bootstrap, one draw of questions for all recipes. A recipe that
    was asked a part has the part's mean.

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


def front_mask(points: Floats) -> npt.NDArray[np.bool_]:
    """Which of the points nobody dominates; shape (recipes, objectives) → (recipes,)."""
    at_least = (points[:, None, :] >= points[None, :, :]).all(axis=2)
    better = (points[:, None, :] > points[None, :, :]).any(axis=2)
    return np.asarray(~(at_least & better).any(axis=0))


def hypervolume(points: Floats, reference: Floats) -> float:
    """The volume that the points dominate, above the reference; exact, by slicing the last objective.

    Args:
        points: shape (n, objectives), to be maximised.
    """
    above = points[(points > reference).all(axis=1)]
    if len(above) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(above.max() - reference[0])
    above = above[np.argsort(-above[:, -1])]
    ends = np.append(above[1:, -1], reference[-1])
    return sum(
        (above[i, -1] - ends[i]) * hypervolume(above[: i + 1, :-1], reference[:-1])
        for i in range(len(above))
        if above[i, -1] > ends[i]
    )
