"""The Pareto front, who is near it, and the volume that it dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from orchestrator.scores import Floats, Score, paired_se


def pareto_front(points: Mapping[str, Sequence[float] | Floats]) -> list[str]:
    """The names that nobody dominates, in the given order; equal points stand or fall together.

    Args:
        points: name → one number per objective, all to be maximised.
    """
    if not points:
        return []
    mask = front_mask(np.array([*points.values()], float))
    return [name for name, on in zip(points, mask, strict=True) if on]


def front_mask(points: Floats) -> npt.NDArray[np.bool_]:
    """Which of the points nobody dominates; shape (recipes, objectives) → (recipes,). To dominate is to be at least as
    good in every objective and better in one, all of them maximised."""
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
    slices = [
        (above[i, -1] - ends[i]) * hypervolume(above[: i + 1, :-1], reference[:-1])
        for i in range(len(above))
        if above[i, -1] > ends[i]
    ]
    return float(sum(slices))


def near_front(
    scores: Mapping[str, Mapping[str, Score]], signs: Mapping[str, float], front: Sequence[str]
) -> list[str]:
    """The recipes off the front that are, in every objective, within one paired standard error of one and the
    same recipe on it (the "on or near the front" of arXiv 2604.01538, made exact).

    Args:
        scores: recipe → objective → score, for scored recipes.
        signs: objective → +1 to maximise, -1 to minimise.
    """

    def near(name: str, on: str) -> bool:
        return all(
            signs[key] * (scores[on][key].value - scores[name][key].value)
            <= paired_se(scores[on][key], scores[name][key])
            for key in signs
        )

    return [name for name in scores if name not in front and any(near(name, on) for on in front)]
