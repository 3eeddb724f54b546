"""Figure 2 of arXiv 2604.01538: the front, or None where there is nothing to draw."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.report.beside import Beside
from orchestrator.report.labels import Label, place
from orchestrator.report.style import (
    INK,
    PARENT,
    STYLE,
    UNKNOWN,
    Look,
    legend,
    looks,
    new_figure,
    objective_axis,
    open_marker,
    published_handle,
    settle,
)
from orchestrator.report.words import parent_name, ranked, scored, title
from orchestrator.results.board import Board, Row
from orchestrator.stats.scores import Score

RANKED = 60
"""Number of recipes that a ranking shows; the table has them all."""
CROWD = 500
"""Above so many recipes, only those on the front have error bars, and an SVG has the others as pixels."""


def front(board: Board, beside: Beside | None = None) -> Figure | None:
    """Draw objective against objective: a panel for each pair if there are several, a ranking if there is only one.

    Of two objectives, the one that comes first in the sweep file is on the vertical axis.

    Args:
        beside: published figures, drawn as open markers where they have both objectives of a panel.
    """
    if not scored(board):
        return None
    with matplotlib.rc_context(STYLE):
        if len(board.axes) == 1:
            return _ranking(board, board.axes[0])
        pairs = [(x, y) for y, x in itertools.combinations(board.axes, 2)]
        columns = min(len(pairs), 3)
        lines = -(-len(pairs) // columns)
        width, height = (6.6, 5.2) if len(pairs) == 1 else (4.0 * columns, 3.7 * lines + 0.5)
        figure = new_figure(board, width, height)
        panels = list(figure.subplots(lines, columns, squeeze=False).flat)
        for axes in panels[len(pairs) :]:
            axes.set_axis_off()
        points = [_published_points(board, beside, x, y) if beside else [] for x, y in pairs]
        for axes, (x, y), published in zip(panels, pairs, points, strict=False):
            _cloud(board, axes, x, y)
            for point in published:
                open_marker(axes, point.x, point.y, point.look)
        _legend(board, figure, beside is not None and any(points))
        settle(figure)
        for axes, (x, y), published in zip(panels, pairs, points, strict=False):
            _name_points(board, axes, x, y, published)
        return figure


def _groups(board: Board) -> dict[str, tuple[Look, list[Row]]]:
    """Group the scored recipes, parents first, then method by method, each group with its look."""
    rows = scored(board)
    merges = [row for row in rows if not parent_name(row)]
    groups = {"parent": (PARENT, [row for row in rows if parent_name(row)])}
    for name, look in looks(row.method for row in merges).items():
        groups[name] = (look, [row for row in merges if row.method == name])
    return {name: group for name, group in groups.items() if group[1]}


class _Point(NamedTuple):
    """A published recipe in two objectives."""

    x: float
    y: float
    look: Look
    name: str


def _published_points(board: Board, beside: Beside, x: str, y: str) -> list[_Point]:
    """The published recipes that have both objectives, with the looks of this run's recipes where it has them."""
    others, groups = beside.of_objective(x), _groups(board)
    return [
        _Point(others[model].value, entry.value, _look_of(groups, entry.row), model)
        for model, entry in beside.of_objective(y).items()
        if model in others
    ]


def _look_of(groups: dict[str, tuple[Look, list[Row]]], row: Row | None) -> Look:
    ids = {each.recipe.id: look for look, members in groups.values() for each in members}
    return ids.get(row.recipe.id, UNKNOWN) if row else UNKNOWN


def _cloud(board: Board, axes: Any, x: str, y: str) -> None:
    """Draw every scored recipe in two objectives, and the edge of the front where there are only these two."""
    rows = scored(board)
    crowd = len(rows) > CROWD
    for look, members in _groups(board).values():
        for strong in (False, True):
            chosen = [row for row in members if (row.on_front or look is PARENT) == strong]
            xs, ys = ([row.scores[name].value for row in chosen] for name in (x, y))
            if strong or not crowd:
                x_errors, y_errors = ([bar(row.scores[name]) for row in chosen] for name in (x, y))
                axes.errorbar(
                    xs, ys, y_errors, x_errors, fmt="none", ecolor=look.colour, alpha=0.28, elinewidth=0.8, zorder=2
                )  # fmt: skip
            axes.scatter(
                xs, ys, s=look.size**2, c=look.colour, marker=look.marker, linewidths=0.8, alpha=1 if strong else 0.45,
                edgecolors="white" if look is PARENT else INK if strong else "none", zorder=6 if strong else 5,
                rasterized=crowd and not strong,
            )  # fmt: skip
    near = [row for row in rows if row.near_front]
    axes.scatter(
        [row.scores[x].value for row in near], [row.scores[y].value for row in near],
        s=130, facecolors="none", edgecolors=INK, linewidths=0.9, zorder=7, rasterized=crowd,
    )  # fmt: skip
    if len(board.axes) == 2:
        # The edge of what the front dominates: from a member straight to the left, then up to the next.
        members = sorted(board.front, key=lambda row: board.objectives[x].sign * row.scores[x].value)
        xs, ys = ([row.scores[name].value for row in members] for name in (x, y))
        axes.step(xs, ys, where="pre", color="0.35", linewidth=1.1, zorder=3)
    axes.margins(0.09)
    objective_axis(board, axes.xaxis, x)
    objective_axis(board, axes.yaxis, y)


def _name_points(board: Board, axes: Any, x: str, y: str, published: Sequence[_Point]) -> None:
    """Label the parents, the front and what is published; recipes at the same place share a label."""
    spots = [((row.scores[x].value, row.scores[y].value), row) for row in scored(board)]
    names: dict[tuple[tuple[float, float], bool], list[str]] = {}
    for spot, row in spots:
        if (name := parent_name(row)) or row.on_front:
            names.setdefault((spot, name is not None), []).append(name or short_label(board, row))
    labels = [Label(*spot, ", ".join(dict.fromkeys(texts)), must) for (spot, must), texts in names.items()]
    labels += [Label(point.x, point.y, f"{point.name} (published)") for point in published]
    place(axes, labels, [*(spot for spot, _ in spots), *((point.x, point.y) for point in published)])


def short_label(board: Board, row: Row) -> str:
    """Label a recipe by its ratio, or by the parameters that vary among the recipes of its method."""
    own = row.parameters
    siblings = [other.parameters for other in board.rows if other.method == row.method]
    varying = [value for key, value in own.items() if len({str(other.get(key)) for other in siblings}) > 1]
    values = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in varying or own.values()]
    return "/".join(values) or row.method


def bar(score: Score) -> float:
    """The length of a score's error bar; NaN, which is not drawn, where its standard error is not known."""
    return np.nan if score.se is None else score.se


def _legend(board: Board, figure: Figure, published: bool = False) -> None:
    rows = scored(board)
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", markersize=look.size, label=name)
        for name, (look, _) in _groups(board).items()
    ]
    if len(board.axes) == 2:
        handles.append(Line2D([], [], color="0.35", linewidth=1.1, label="front"))
    if any(row.near_front for row in rows):
        handles.append(Line2D([], [], color=INK, marker="o", markerfacecolor="none", linestyle="none",
                              markersize=10, markeredgewidth=0.9, label="near the front"))  # fmt: skip
    legend(figure, [*handles, *([published_handle()] if published else [])])


def _ranking(board: Board, objective: str) -> Figure:
    rows = ranked(board, scored(board))
    shown = [row for i, row in enumerate(rows) if i < RANKED or parent_name(row)]
    figure = new_figure(board, 6.6, 1.3 + 0.22 * len(shown))
    axes = figure.subplots()
    groups = _groups(board)
    for rank, row in enumerate(shown):
        look, score = groups["parent" if parent_name(row) else row.method][0], row.scores[objective]
        axes.errorbar(score.value, rank, xerr=bar(score), fmt="none", ecolor=look.colour, alpha=0.5, elinewidth=1.2)
        axes.scatter(score.value, rank, s=look.size**2, c=look.colour, marker=look.marker, zorder=5)
        if row.near_front:
            axes.scatter(score.value, rank, s=130, facecolors="none", edgecolors=INK, linewidths=0.9, zorder=6)
    axes.set_yticks(range(len(shown)), [textwrap.shorten(title(row), 48, placeholder=" …") for row in shown])
    for tick, row in zip(axes.get_yticklabels(), shown, strict=True):
        tick.set_fontweight("bold" if row.on_front else "normal")
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    objective_axis(board, axes.xaxis, objective)
    if len(shown) < len(rows):
        axes.set_title(f"the best {RANKED} of {len(rows)} recipes, and the parents", fontsize=9)
    _legend(board, figure)
    return figure
