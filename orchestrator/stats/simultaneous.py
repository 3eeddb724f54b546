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

from orchestrator.stats.estimates import NORMAL, ROUNDING, Estimates, Floats, Ints

DRAWS = 2000
"""Draws of the bootstrap."""
WORK = 2e9
"""Most differences that are drawn for the pairs of recipes."""
ENOUGH = 400
"""With fewer draws than this, for the pairs of some 2200 recipes, the union bound takes the bootstrap's place."""
PIECE = 512
"""Number of recipes whose contributions are computed at once, to limit memory."""
FEW_PLACES = 32
"""Number of recipes that are compared with all others at once: what that takes stays in the processor's cache."""
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
    normal = _pairs_critical(objectives, level)
    # No pair has more degrees of freedom than this, so that a lesser lead is never beyond doubt.
    least = min(float(stdtrit(sum(each.sizes) - len(each.sizes), ndtr(normal))) for each in objectives)
    found = np.empty(count, bool)
    for places, rivals, leads in _rivals(objectives, least):
        best, doubted = np.where(rivals, leads, -np.inf).argmax(axis=1), rivals.any(axis=1)
        beaten = np.zeros(len(places), bool)
        # Nearly always the largest lead decides: these are looked at together.
        beaten[doubted] = _beats(objectives, best[doubted], places[doubted], normal)
        for row in np.flatnonzero(doubted & ~beaten):
            own = np.flatnonzero(rivals[row])
            own = own[np.argsort(-leads[row, own], kind="stable")]
            beaten[row] = _beaten(objectives, places[row], own, normal)
        found[places] = ~beaten
    return found


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


def _pairs_critical(objectives: Sequence[Estimates], level: float) -> float:
    """Compute the critical value of all differences between two of the recipes in any objective.

    It is that of `critical`, or that of the union bound where there are too many pairs to draw the errors of.
    """
    count = len(objectives[0].values)
    statements = len(objectives) * count * (count - 1) // 2
    draws = min(int(WORK / max(statements, 1)), DRAWS)
    if draws < ENOUGH:
        return float(-ndtri((1 - level) / 2 / statements))
    largest = np.zeros(draws, np.float32)
    for each, multipliers in zip(objectives, _multipliers(objectives, draws), strict=True):
        contributions = each.contributions()
        errors = contributions.astype(np.float32) @ multipliers
        for start in range(0, count, PIECE):
            ses = _paired_ses(contributions, np.arange(start, min(start + PIECE, count)))
            inverses = np.divide(1, ses, out=np.zeros_like(ses), where=ses > 0)
            for row, inverse in enumerate(inverses, start):
                later = slice(row + 1, count)
                largest = np.maximum(largest, _largest(errors[later] - errors[row], inverse[later]))
    return max(NORMAL, float(np.quantile(largest, level)))


def _rivals(objectives: Sequence[Estimates], least: float) -> Iterator[tuple[Ints, npt.NDArray[np.bool_], Floats]]:
    """Find for each recipe those that lead by more than `least` standard errors in every objective.

    Yields:
        Some recipes' places, whether the others are rivals of each, and the leads of these in the objective where they
        are the smallest; shapes (places,), (places, recipes) twice.
    """
    count = len(objectives[0].values)
    products = []
    for each in objectives:
        scaled = least * each.contributions()
        squares, ones = (scaled**2).sum(axis=1), np.ones(count)
        # The product of a row and a column is the variance of their difference times least²: a² + b² - 2ab.
        products.append((np.column_stack([-2 * scaled, squares, ones]), np.column_stack([scaled, ones, squares]).T))
    for start in range(0, count, FEW_PLACES):
        places = np.arange(start, min(start + FEW_PLACES, count))
        rivals, smallest = np.ones((len(places), count), bool), np.full((len(places), count), np.inf)
        for each, (rows, columns) in zip(objectives, products, strict=True):
            leads = each.values - each.values[places, None]
            rivals &= leads * np.abs(leads) > rows[places] @ columns
            np.minimum(smallest, leads, out=smallest)
        yield places, rivals, smallest


def _beats(objectives: Sequence[Estimates], rivals: Ints, places: Ints, normal: float) -> npt.NDArray[np.bool_]:
    """Whether recipes beat others, of the same number or a single one, in every objective beyond doubt."""
    lows = [(each[rivals] - each[places]).interval(normal)[0] for each in objectives]
    return np.asarray(np.min(lows, axis=0) > 0)


def _beaten(objectives: Sequence[Estimates], place: int, rivals: Ints, normal: float) -> bool:
    """Whether a recipe is beaten by any of these, of which those with the largest leads are first."""
    pieces = (rivals[start : start + PIECE] for start in range(0, len(rivals), PIECE))
    return any(_beats(objectives, some, np.array([place]), normal).any() for some in pieces)


def _multipliers(statements: Sequence[Estimates], draws: int) -> Iterator[Reals]:
    """Draw the same multipliers for the same clusters; for each of the statements, shape (its clusters, draws)."""
    clusters = np.unique(np.concatenate([each.clusters for each in statements]))
    drawn = np.random.default_rng(0).standard_normal((len(clusters), draws), np.float32)
    return (drawn[np.searchsorted(clusters, np.unique(each.clusters))] for each in statements)


def _paired_ses(contributions: Floats, places: Ints) -> Reals:
    """Compute the standard errors of the differences of some recipes from all, 0 where they do not differ.

    Args:
        contributions: of all recipes; shape (recipes, clusters).
        places: of the recipes.

    Returns:
        Shape (places, recipes).
    """
    squares = (contributions**2).sum(axis=1)
    sums = squares[places, None] + squares
    variances = sums - 2 * (contributions[places] @ contributions.T)
    return np.asarray(np.sqrt(np.where(variances > ROUNDING * sums, variances, 0)), np.float32)


def _largest(errors: Reals, inverse: Reals) -> Reals:
    """Compute the largest standardised error of each draw; shape (differences, draws) → (draws,)."""
    errors *= inverse[:, None]
    return np.asarray(np.maximum(errors.max(axis=0, initial=0), -errors.min(axis=0, initial=0)))
