"""Figure 3 of arXiv 2604.01538: each objective along the mixing ratio; None where there is nothing to draw."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from orchestrator.config.methods import METHODS
from orchestrator.recipes.recipe import Recipe
from orchestrator.report.beside import Beside
from orchestrator.report.figures import CROWD, bar
from orchestrator.report.labels import Label, place
from orchestrator.report.style import (
    INK,
    PARENT,
    STYLE,
    Look,
    legend,
    looks,
    new_figure,
    objective_axis,
    open_marker,
    published_handle,
    settle,
)
from orchestrator.report.words import parent_name, scored, title
from orchestrator.results.board import Board, Row

RATIO_KEYS = {name: method.ratio.key for name, method in METHODS.items() if method.ratio}
"""Method → the parameter that is its mixing ratio."""
Line = tuple[str, str, str]
"""Method, first parent, second parent."""


def _lines(board: Board) -> dict[Line, list[tuple[float, Row]]]:
    """Each method that mixes two parents by a ratio → (ratio, row) of its recipes by ratio, ends included.

    A recipe's point has the method and the ratio, and its models are the two parents, of which the base model is the
    first. An end (ratio 0 or 1) is one parent alone, and belongs to each line that begins or ends there. A recipe whose
    ratio is not one number (a gradient over the layers, filters) is on no line.
    """
    points = [
        (point.method, float(ratio), row)
        for row in scored(board)
        for point in row.recipe.points
        for ratio in (dict(point.parameters).get(RATIO_KEYS.get(point.method, "")),)
        if isinstance(ratio, int | float)  # a label has text in place of lists
    ]
    names = {id(row): _merged(row.recipe) for _, _, row in points}
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


def _merged(recipe: Recipe) -> list[str]:
    """The names of the models that are merged, the base model first."""
    base = [recipe.base_model] if recipe.base_model else []
    return list(dict.fromkeys(source.name for source in (*base, *(source for source, _ in recipe.models))))


def trajectories(board: Board, beside: Beside | None = None) -> Figure | None:
    """Draw each objective along the mixing ratio, whether it is an axis of the front or not.

    Args:
        beside: published figures, drawn as open markers at the ratio of this run's recipe of the same name.
    """
    lines = _lines(board)
    if not lines:
        return None
    with matplotlib.rc_context(STYLE):
        names = list(board.objectives)
        columns = min(len(names), 3)
        rows = -(-len(names) // columns)
        figure = new_figure(board, 3.6 * columns + (1.2 if columns == 1 else 0), 3.1 * rows + 0.5)
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        for axes, objective in zip(panels, names, strict=False):
            _draw_lines(board, axes, lines, objective)
        drawn = [
            _draw_published(axes, lines, beside, name) for axes, name in zip(panels, names, strict=False) if beside
        ]
        handles = panels[0].get_legend_handles_labels()[0]
        legend(figure, [*handles, *([published_handle()] if any(drawn) else [])])
        settle(figure)
        for axes, objective in zip(panels, names, strict=False):
            ends = {title(row): (r, row) for line in lines.values() for r, row in line if parent_name(row)}
            place(
                axes,
                [Label(r, row.scores[objective].value, parent_name(row) or "", must=True) for r, row in ends.values()],
                [point for line in lines.values() for point in _along(line, objective)],
            )
        return figure


def _draw_published(axes: Any, lines: dict[Line, list[tuple[float, Row]]], beside: Beside, objective: str) -> bool:
    """Draw what is published of an objective; whether there is anything."""
    found, look = False, _line_looks(lines)
    for entry in beside.of_objective(objective).values():
        for name, line in lines.items():
            for ratio, row in line:
                if entry.row and entry.row.recipe.id == row.recipe.id:
                    open_marker(axes, ratio, entry.value, PARENT if parent_name(row) else look[name])
                    found = True
    return found


def _line_looks(lines: Iterable[Line]) -> dict[Line, Look]:
    found = looks("→".join(line) for line in lines)
    return {line: found["→".join(line)] for line in lines}


def _along(line: Sequence[tuple[float, Row]], objective: str) -> list[tuple[float, float]]:
    """Interpolate points along a line, so densely that a label clear of them is clear of the line."""
    ratios, values = zip(*((ratio, row.scores[objective].value) for ratio, row in line), strict=True)
    x = np.linspace(ratios[0], ratios[-1], 100)
    return list(zip(x.tolist(), np.interp(x, ratios, values).tolist(), strict=True))


def _draw_lines(board: Board, axes: Any, lines: dict[Line, list[tuple[float, Row]]], objective: str) -> None:
    look = _line_looks(lines)
    pairs = {(first, second) for _, first, second in lines}
    for (method, first, second), line in lines.items():
        colour, marker, size, dashes = look[method, first, second]
        x = np.array([ratio for ratio, _ in line])
        y = np.array([row.scores[objective].value for _, row in line])
        se = np.array([bar(row.scores[objective]) for _, row in line])
        label = method if len(pairs) == 1 else f"{method}, {first} to {second}"
        axes.fill_between(x, y - se, y + se, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            x, y, dashes, color=colour, marker=marker, markersize=0.8 * size, linewidth=1.4, label=label, zorder=4,
            rasterized=len(line) > CROWD,
        )  # fmt: skip
        for ratio, row in line:
            if parent_name(row):
                value = row.scores[objective].value
                axes.axhline(value, color="0.5", linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
                axes.scatter(ratio, value, s=150, c=INK, marker="*", edgecolors="white", linewidths=0.8, zorder=6)
    axes.set_xlim(-0.04, 1.04)
    axes.set_xticks(np.linspace(0, 1, 6))
    ends = next(iter(pairs)) if len(pairs) == 1 else ("first parent", "second")
    keys = " or ".join(dict.fromkeys(RATIO_KEYS[method] for method, _, _ in lines))
    axes.set_xlabel(textwrap.fill(f"{keys}: 0 is {ends[0]}, 1 is {ends[1]}", 44), fontsize=9)
    objective_axis(board, axes.yaxis, objective)
