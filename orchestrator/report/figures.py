"""The two figures of arXiv 2604.01538: the front, and each objective along the mixing ratio.

Both take the board as it is and return None where there is nothing to draw, which the page then says.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.board import Board, Row
from orchestrator.report.labels import Label, place
from orchestrator.report.style import INK, STYLE, looks, new_figure, objective_axis, settle
from orchestrator.report.words import parent_name, ranked, scored, sign, title

RANKED = 60
"""Recipes that a ranking shows; the table has them all."""


def front(board: Board) -> Figure | None:
    """Objective against objective; a panel a pair where there are more than two, a ranking where there is one."""
    if not scored(board):
        return None
    with matplotlib.rc_context(STYLE):
        if len(board.objectives) == 1:
            return _ranking(board, board.objectives[0])
        pairs = list(itertools.combinations(board.objectives, 2))
        columns = min(len(pairs), 3)
        lines = -(-len(pairs) // columns)
        width, height = (6.6, 5.2) if len(pairs) == 1 else (4.0 * columns, 3.7 * lines + 0.5)
        figure = new_figure(board, width, height)
        panels = figure.subplots(lines, columns, squeeze=False).flat
        for axes, (x, y) in itertools.zip_longest(panels, pairs, fillvalue=("", "")):
            if x:
                _cloud(board, axes, x, y)
            else:
                axes.set_axis_off()
        _legend(board, figure)
        settle(figure)
        for axes, (x, y) in zip(figure.axes, pairs, strict=False):
            _name_points(board, axes, x, y)
        return figure


def _look(board: Board, row: Row) -> tuple[str, str]:
    """Parents are black stars, so that they stand out from every merge."""
    if parent_name(row):
        return INK, "*"
    return looks(r.method for r in board.rows if not parent_name(r))[row.method]


def _cloud(board: Board, axes: Any, x: str, y: str) -> None:
    rows = scored(board)
    for row in rows:
        (colour, marker), a, b = _look(board, row), row.scores[x], row.scores[y]
        strong = row.on_front or parent_name(row) is not None
        axes.errorbar(
            a.value, b.value, b.se, a.se, fmt="none", ecolor=colour, alpha=0.28, elinewidth=0.8, zorder=2
        )
        axes.scatter(
            a.value, b.value, s=190 if marker == "*" else 44, c=colour, marker=marker, alpha=1 if strong else 0.45,
            edgecolors="white" if marker == "*" else INK if strong else "none", linewidths=0.8, zorder=6 if strong else 5,
        )  # fmt: skip
    near = [row for row in rows if row.near_front]
    axes.scatter(
        [row.scores[x].value for row in near], [row.scores[y].value for row in near],
        s=130, facecolors="none", edgecolors=INK, linewidths=0.9, zorder=7,
    )  # fmt: skip
    if len(board.objectives) == 2:
        # The edge of what the front dominates: from a member straight to the left, then up to the next.
        members = sorted(board.front, key=lambda row: sign(board, x) * row.scores[x].value)
        xs, ys = ([row.scores[name].value for row in members] for name in (x, y))
        axes.step(xs, ys, where="pre", color="0.35", linewidth=1.1, zorder=3)
    axes.margins(0.09)
    objective_axis(board, axes.xaxis, x)
    objective_axis(board, axes.yaxis, y)


def _name_points(board: Board, axes: Any, x: str, y: str) -> None:
    rows = scored(board)
    labels = []
    for row in rows:
        name = parent_name(row)
        if name or row.on_front:
            label = name or short_label(board, row)
            labels.append(Label(row.scores[x].value, row.scores[y].value, label, must=name is not None))
    place(axes, labels, [(row.scores[x].value, row.scores[y].value) for row in rows])


def short_label(board: Board, row: Row) -> str:
    """The ratio, or the values that tell this recipe from the others of its method."""
    own = row.parameters
    siblings = [other.parameters for other in board.rows if other.method == row.method]
    telling = [value for key, value in own.items() if len({str(s.get(key)) for s in siblings}) > 1]
    values = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in telling or own.values()]
    return "/".join(values) or row.method


def _legend(board: Board, figure: Figure) -> None:
    rows = scored(board)

    def dot(colour: str, marker: str, label: str, size: float = 7) -> Line2D:
        return Line2D([], [], color=colour, marker=marker, linestyle="none", markersize=size, label=label)

    found = {("parent" if parent_name(row) else row.method): _look(board, row) for row in rows}
    handles = [dot(*look, name, 12 if look[1] == "*" else 7) for name, look in found.items()]
    if len(board.objectives) == 2:
        handles.append(Line2D([], [], color="0.35", linewidth=1.1, label="front (labels: ratio)"))
    if any(row.near_front for row in rows):
        handles.append(Line2D([], [], color=INK, marker="o", markerfacecolor="none", linestyle="none",
                              markersize=10, markeredgewidth=0.9, label="near the front"))  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), columnspacing=1.4)


def _ranking(board: Board, objective: str) -> Figure:
    rows = ranked(board, scored(board))
    shown = [row for i, row in enumerate(rows) if i < RANKED or parent_name(row)]
    figure = new_figure(board, 6.6, 1.3 + 0.22 * len(shown))
    axes = figure.subplots()
    for place_, row in enumerate(shown):
        (colour, marker), score = _look(board, row), row.scores[objective]
        axes.errorbar(
            score.value, place_, xerr=score.se, fmt="none", ecolor=colour, alpha=0.5, elinewidth=1.2
        )
        axes.scatter(score.value, place_, s=130 if marker == "*" else 40, c=colour, marker=marker, zorder=5)
        if row.near_front:
            axes.scatter(
                score.value, place_, s=130, facecolors="none", edgecolors=INK, linewidths=0.9, zorder=6
            )
    axes.set_yticks(range(len(shown)), [title(row) for row in shown])
    for tick, row in zip(axes.get_yticklabels(), shown, strict=True):
        tick.set_fontweight("bold" if row.on_front else "normal")
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    objective_axis(board, axes.xaxis, objective)
    if len(shown) < len(rows):
        axes.set_title(f"the best {RANKED} of {len(rows)} recipes, and the parents", fontsize=9)
    _legend(board, figure)
    return figure


Line = tuple[str, str, str]
"""Method, first parent, second parent."""


def _lines(board: Board) -> dict[Line, list[tuple[float, Row]]]:
    """Every method that runs between two parents → its recipes by ratio, ends included.

    A point tells the method and the ratio; which two parents, the recipe's models do. An end is one parent alone
    and belongs to each line that begins or ends there.
    """
    points = [
        (point.method, float(dict(point.parameters)[key]), row)
        for row in scored(board)
        for point in row.recipe.points
        for key in ({"linear": "alpha", "slerp": "t"}.get(point.method),)
        if key in dict(point.parameters)
    ]
    names = {id(row): [source.name for source, _ in row.recipe.models] for _, _, row in points}
    lines: dict[Line, list[tuple[float, Row]]] = {}
    for method, ratio, row in points:
        if len(names[id(row)]) == 2:
            first, second = names[id(row)]
            lines.setdefault((method, first, second), []).append((ratio, row))
    for (method, first, second), line in lines.items():
        ends = {0.0: first, 1.0: second}
        line += [(r, row) for m, r, row in points if m == method and names[id(row)] == [ends.get(r)]]
        line.sort(key=lambda item: item[0])
    return lines


def trajectories(board: Board) -> Figure | None:
    """Each objective, those off the front included, along the ratio."""
    lines = _lines(board)
    if not lines:
        return None
    with matplotlib.rc_context(STYLE):
        names = list(board.config.objectives)
        columns = min(len(names), 3)
        rows = -(-len(names) // columns)
        figure = new_figure(board, 3.6 * columns + (1.2 if columns == 1 else 0), 3.1 * rows + 0.5)
        panels = list(figure.subplots(rows, columns, squeeze=False, sharex=True).flat)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        for axes, objective in zip(panels, names, strict=False):
            _draw_lines(board, axes, lines, objective)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(handles), 4))
        settle(figure)
        for axes, objective in zip(panels, names, strict=False):
            ends = {title(row): (r, row) for line in lines.values() for r, row in line if parent_name(row)}
            place(
                axes,
                [
                    Label(r, row.scores[objective].value, parent_name(row) or "", must=True)
                    for r, row in ends.values()
                ],
                [(r, row.scores[objective].value) for line in lines.values() for r, row in line],
            )
        return figure


def _draw_lines(board: Board, axes: Any, lines: dict[Line, list[tuple[float, Row]]], objective: str) -> None:
    look = looks("→".join(line) for line in lines)
    pairs = {(first, second) for _, first, second in lines}
    for (method, first, second), line in lines.items():
        colour, marker = look["→".join((method, first, second))]
        x = np.array([ratio for ratio, _ in line])
        y = np.array([row.scores[objective].value for _, row in line])
        se = np.array([row.scores[objective].se for _, row in line])
        label = method if len(pairs) == 1 else f"{method}, {first} to {second}"
        axes.fill_between(x, y - se, y + se, color=colour, alpha=0.15, linewidth=0)
        axes.plot(x, y, color=colour, marker=marker, markersize=4.5, linewidth=1.4, label=label, zorder=4)
        for ratio, row in line:
            if parent_name(row):
                value = row.scores[objective].value
                axes.axhline(value, color="0.5", linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
                axes.scatter(
                    ratio, value, s=150, c=INK, marker="*", edgecolors="white", linewidths=0.8, zorder=6
                )
    axes.set_xlim(-0.04, 1.04)
    axes.set_xticks(np.linspace(0, 1, 6))
    only: Sequence[str] = next(iter(pairs)) if len(pairs) == 1 else ("first parent", "second parent")
    axes.set_xlabel(f"0 = {only[0]}      alpha or t      1 = {only[1]}", fontsize=8.5)
    objective_axis(board, axes.yaxis, objective)
