"""The Pareto front, and the volume that it dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.stats.estimates import Floats

PIECE = 512
"""Number of recipes that are compared at once, to limit memory."""


def pareto_front(points: Mapping[str, Sequence[float] | Floats]) -> list[str]:
    """List the names of the points that no other dominates, in the given order; equal points are on the front together.

    Args:
        points: name → one number per objective, all to be maximised.
    """
    if not points:
        return []
    mask = front_mask(np.array([*points.values()], float))
    return [name for name, on in zip(points, mask, strict=True) if on]


def front_mask(points: Floats) -> npt.NDArray[np.bool_]:
    """Mark the points that no other dominates; shape (recipes, objectives) → (recipes,).

    To dominate is to be at least as good in every objective and better in one, where all are maximised.

    A point that dominates another comes before it in descending lexicographic order, so each piece of that order is
    compared with itself and with the front of all pieces before it: linear time where the front is small.
    """
    assert not np.isnan(points).any(), "nothing dominates NaN, so that it would be on every front"
    order = np.lexsort(points.T[::-1])[::-1]
    front = order[:0]
    for start in range(0, len(order), PIECE):
        piece = order[start : start + PIECE]
        piece = piece[~_dominated(points[piece], points[front])]
        front = np.append(front, piece[~_dominated(points[piece], points[piece])])
    return np.isin(np.arange(len(points)), front)


def _dominated(points: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    """Mark the points that at least one of the others dominates; shape (points,)."""
    at_least = (others[:, None, :] >= points[None, :, :]).all(axis=2)
    better = (others[:, None, :] > points[None, :, :]).any(axis=2)
    return np.asarray((at_least & better).any(axis=0))


def hypervolume(points: Floats, reference: Floats) -> float:
    """Compute the exact volume that the points dominate above the reference, by slicing the last objective.

    Args:
        points: shape (n, objectives), to be maximised.
        reference: shape (objectives,).
    """
    assert not np.isnan(points).any() and not np.isnan(reference).any(), "a volume needs numbers"
    above = points[(points > reference).all(axis=1)]
    if len(above) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(above.max() - reference[0])
    above = above[np.argsort(-above[:, -1])]
    ends = np.append(above[1:, -1], reference[-1])
    slices = [
        (above[i, -1] - ends[i]) * hypervolume(above[: i + 1, :-1], reference[:-1])
        for i in range(len(above))
        if above[i, -1] > ends[i]
    ]
    return float(sum(slices))
