"""Labels beside points without overlaps: each label in turn gets the free place nearest to its point.

The search is greedy, because that is short and good enough for the few dozen labels that a figure can have. There are
no points beyond a front, so places up and to the right are tried first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import patheffects

from orchestrator.stats.estimates import Floats

ANGLES = (45, 70, 20, 90, 0, 110, -20, 135, -45, 160, 180, -70, -90, -110, -135, -160)
GAPS = (5, 9, 14, 20, 28, 38)
"""Distances between a point and the edge of its label, in typographic points."""
LEADER = 14
"""The distance from which on a thin line connects them, in typographic points."""
MARKER = 4.5
"""Half the side of the square around a point that labels keep clear of, in typographic points."""


@dataclass(frozen=True)
class Label:
    """A text that belongs to a point, whose coordinates are those of the data."""

    x: float
    y: float
    text: str
    must: bool = False
    """Whether it is shown even where it overlaps something; other labels are then left out."""


def place(axes: Any, labels: Sequence[Label], points: Sequence[tuple[float, float]]) -> None:
    """Write the labels clear of each other and of all `points`, whose coordinates are those of the data.

    The figure must have its final layout: what is free depends on it.
    """
    scale = axes.figure.dpi / 72
    centres = axes.transData.transform(np.array(points, float).reshape(-1, 2)) / scale
    taken = np.hstack([centres - MARKER, centres + MARKER])
    inside = np.array(axes.bbox.extents) / scale
    for label in sorted(labels, key=lambda item: not item.must):
        text = _write(axes, label)
        size = text.get_window_extent()
        half = np.array([size.width, size.height]) / scale / 2 + 1.5
        anchor = axes.transData.transform((label.x, label.y)) / scale
        cost, gap, offset = _best(anchor, half, taken, inside)
        if cost > 0 and not label.must:
            text.remove()
            continue
        text.set_position(tuple(offset))
        text.arrow_patch.set_visible(gap >= LEADER)
        taken = np.vstack([taken, np.hstack([anchor + offset - half, anchor + offset + half])])


def _write(axes: Any, label: Label) -> Any:
    text = axes.annotate(
        label.text,
        (label.x, label.y),
        (0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=8.5 if label.must else 7.5,
        fontweight="bold" if label.must else "normal",
        path_effects=[patheffects.withStroke(linewidth=2.2, foreground="white")],
        arrowprops={"arrowstyle": "-", "color": "0.45", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4},
        zorder=9,
    )
    text.set_in_layout(False)
    return text


def _best(anchor: Floats, half: Floats, taken: Floats, inside: Floats) -> tuple[float, float, Floats]:
    """The cheapest place: its cost (the hidden area), its distance, and its centre relative to the anchor."""
    found: tuple[float, float, Floats] | None = None
    for gap in GAPS:
        for angle in np.radians(ANGLES):
            direction = np.array([np.cos(angle), np.sin(angle)])
            # The label's edge, not its centre, stands `gap` away: a wide label would cover its point.
            offset = direction * gap + half * np.clip(direction * 1.4, -1, 1)
            cost = _hidden(np.hstack([anchor + offset - half, anchor + offset + half]), taken, inside)
            if found is None or cost < found[0]:
                found = cost, gap, offset
            if cost == 0:
                return found
    assert found is not None, "GAPS and ANGLES are not empty"
    return found


def _hidden(box: Floats, taken: Floats, inside: Floats) -> float:
    """The area of a box (left, bottom, right, top) that lies over a taken one or outside."""

    def common(others: Floats) -> Floats:
        sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
        areas: Floats = np.prod(np.clip(sides, 0, None), axis=1)
        return areas

    area = np.prod(box[2:] - box[:2])
    outside = area - common(inside[None])[0]
    return float(common(taken).sum() + (10 * outside if outside > 1e-6 else 0))
