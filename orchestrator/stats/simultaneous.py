"""Statements that hold together: critical values of whole families, and the recipes that may be on the front.

Of many statements that each hold with 95 %, some are false. A family's intervals are therefore widened alike, until all
of them hold at once with 95 %: their normal quantile becomes the 95 % quantile of the largest standardised error in the
family (max-T). Errors are drawn by a multiplier bootstrap: each cluster's contribution times a standard normal number,
the same for all statements (Chernozhukov, Chetverikov & Kato 2013), so that statements that move together cost little,
whatever their correlation. Multipliers are normal because a family of one then has the usual quantile, and because
`Estimates.interval` can replace it by Student's of the same probability, statement by statement.

A family is all that could have been said, not what was said: recipes that are picked by the same answers, such as the
front, would else be picked for their errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

from orchestrator.stats.estimates import NORMAL, ROUNDING, Estimates, Floats

DRAWS = 2000
"""Draws of the bootstrap."""
WORK = 2e9
"""Most differences that are drawn for the pairs of recipes."""
ENOUGH = 400
"""With fewer draws than this, for the pairs of some 2200 recipes, the union bound takes the bootstrap's place."""
PIECE = 512
"""Number of recipes whose contributions are computed at once, to limit memory."""
Reals = npt.NDArray[np.float32]
"""Half the memory and time of `Floats`; draws need no more digits."""


def critical(statements: Sequence[Estimates], level: float = 0.95) -> float:
    """Compute the normal quantile at which the intervals of all statements hold at once with this probability.

    Args:
        statements: of any documents, usually differences. Those whose error is not known, or that have none, are in no
            family.
    """
    if sum(len(each.values) for each in statements) < 2:
        return NORMAL
    drawn = _multipliers(statements, DRAWS)
    largest = np.zeros(DRAWS, np.float32)
    for each, multipliers in zip(statements, drawn, strict=True):
        for start in range(0, len(each.values), PIECE):
            contributions = each[start : start + PIECE].contributions()
            ses = np.sqrt((contributions**2).sum(axis=1))
            some = ses > 0
            standardised = (contributions[some] / ses[some, None]).astype(np.float32)
            if some.any():
                largest = np.maximum(largest, np.abs(standardised @ multipliers).max(axis=0))
    return max(NORMAL, float(np.quantile(largest, level)))


def may_be_on_front(objectives: Sequence[Estimates], level: float = 0.95) -> npt.NDArray[np.bool_]:
    """Mark the recipes that no other beats in every objective beyond doubt; shape (recipes,).

    With the given probability, the whole front that all questions of this kind would show is among them. To beat a
    recipe of that front wrongly, another has to seem better in an objective where it is not, and the family is all
    pairs of recipes in all objectives.

    Args:
        objectives: the recipes' scores on each, to be maximised, in the same order.
    """
    count = len(objectives[0].values)
    if any(np.isnan(each.variances).any() for each in objectives):
        return np.ones(count, bool)
    statements = len(objectives) * count * (count - 1) // 2
    draws = min(int(WORK / max(statements, 1)), DRAWS)
    largest, leads = np.zeros(draws, np.float32), np.full((count, count), np.inf, np.float32)
    for each, multipliers in zip(objectives, _multipliers(objectives, draws), strict=True):
        contributions = each.contributions()
        errors = contributions.astype(np.float32) @ multipliers
        for row, ses in enumerate(_paired_ses(contributions)):
            inverse = np.divide(1, ses, out=np.zeros_like(ses), where=ses > 0)
            if draws >= ENOUGH:
                later = slice(row + 1, count)
                largest = np.maximum(largest, _largest(errors[later] - errors[row], inverse[later]))
            lead = each.values[row] - each.values
            leads[row] = np.minimum(leads[row], np.where(ses > 0, lead * inverse, np.where(lead > 0, np.inf, 0)))
    union = float(-ndtri((1 - level) / 2 / max(statements, 1)))
    normal = max(NORMAL, float(np.quantile(largest, level))) if draws >= ENOUGH else union
    # No pair has more degrees of freedom than this, so that a lesser lead is never beyond doubt.
    least = min(float(stdtrit(sum(each.sizes) - len(each.sizes), ndtr(normal))) for each in objectives)
    rivals = (np.flatnonzero(leads[:, place] > least) for place in range(count))
    return np.array([not _beaten(objectives, place, some, normal) for place, some in enumerate(rivals)])


def may_be_by_part(leads: Sequence[Sequence[Estimates]], level: float = 0.95) -> npt.NDArray[np.bool_]:
    """Mark candidates that answered a part of the questions and that no recipe beats in every objective beyond doubt.

    Args:
        leads: for each candidate and objective the leads of the scored recipes over it, to be maximised, on the
            questions that it answered.

    Returns:
        Shape (candidates,); with the given probability, all that are on the true front are marked.
    """
    normal = critical([each for own in leads for each in own], level)
    lows = [np.min([each.interval(normal)[0] for each in own], axis=0) for own in leads]
    return np.array([not (low > 0).any() for low in lows], bool)


def _beaten(objectives: Sequence[Estimates], place: int, rivals: npt.NDArray[np.int64], normal: float) -> bool:
    """Whether a recipe is beaten by any of these, in every objective beyond doubt."""
    for start in range(0, len(rivals), PIECE):
        some = rivals[start : start + PIECE]
        lows = [(each[some] - each[[place]]).interval(normal)[0] for each in objectives]
        if (np.min(lows, axis=0) > 0).any():
            return True
    return False


def _multipliers(statements: Sequence[Estimates], draws: int) -> Iterator[Reals]:
    """Draw the same multipliers for the same clusters; for each of the statements, shape (its clusters, draws)."""
    clusters = np.unique(np.concatenate([each.clusters for each in statements]))
    drawn = np.random.default_rng(0).standard_normal((len(clusters), draws), np.float32)
    return (drawn[np.searchsorted(clusters, np.unique(each.clusters))] for each in statements)


def _paired_ses(contributions: Floats) -> Iterator[Reals]:
    """Compute for each recipe the standard errors of its differences from all, 0 where they do not differ."""
    squares = (contributions**2).sum(axis=1)
    for start in range(0, len(squares), PIECE):
        products = contributions[start : start + PIECE] @ contributions.T
        sums = squares[start : start + PIECE, None] + squares
        variances = sums - 2 * products
        yield from np.sqrt(np.where(variances > ROUNDING * sums, variances, 0)).astype(np.float32)


def _largest(errors: Reals, inverse: Reals) -> Reals:
    """Compute the largest standardised error of each draw; shape (differences, draws) → (draws,)."""
    errors *= inverse[:, None]
    return np.asarray(np.maximum(errors.max(axis=0, initial=0), -errors.min(axis=0, initial=0)))
