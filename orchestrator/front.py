"""The Pareto front of the scored recipes, and who is near it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.scores import Score, paired_se


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """At least as good in every objective and better in one; all objectives maximised."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def pareto_front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """The names that nobody dominates, in the given order; equal points stand or fall together.

    Args:
        points: name → one number per objective, all to be maximised.
    """
    return [
        name
        for name, point in points.items()
        if not any(dominates(other, point) for key, other in points.items() if key != name)
    ]


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
