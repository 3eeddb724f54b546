"""The figures' style, and how figures become bytes.

Figures are made as objects, without pyplot, which would keep every figure in a global. The same board gives the same
bytes: no dates, and a fixed salt for SVG's ids.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from orchestrator.report.words import unmeasured
from orchestrator.results.board import Board

# Okabe & Ito's colours, which colour-blind people can distinguish; their yellow is too pale on paper and left out.
# Markers distinguish the methods in black-and-white prints too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#222222"
STYLE = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.edgecolor": "0.4",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.7,
    "xtick.color": "0.3",
    "ytick.color": "0.3",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "mergefront",
}


class Look(NamedTuple):
    """How the points and lines of one method are drawn."""

    colour: str
    marker: str
    size: float
    """Of the marker, in typographic points."""
    dashes: str


PARENT = Look(INK, "*", 13, "-")
"""Black stars stand out from every merge."""
UNKNOWN = Look("0.35", "D", 6.5, "-")
"""Published recipes that the run does not have."""


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Choose a look for each name; colours and markers cycle at different lengths, so that 42 names look different.

    What is drawn later is smaller or dashed: where two methods give the same scores (SLERP is linear for parents that
    are close), both can be seen.
    """
    return {
        name: Look(
            COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)], max(8.5 - 2.5 * i, 5.0), "-" if i == 0 else "--"
        )
        for i, name in enumerate(dict.fromkeys(names))
    }


def new_figure(board: Board, width: float, height: float) -> Figure:
    """Make a figure of this size in inches.

    A backend that measures nothing is named in the figure itself, as figures are passed around without their report.
    """
    figure = Figure(figsize=(width, height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    if words := unmeasured(board):
        figure.suptitle(words + ": nothing was measured", color="#B00020", fontsize=9, fontweight="bold")
    return figure


def legend(figure: Figure, handles: Sequence[Any]) -> None:
    """Add a legend below the panels: in one row where there is room, else in as many columns as fit."""
    room = figure.get_figwidth() * 72
    widths = [5.5 * len(handle.get_label()) + 46 for handle in handles]
    columns = len(handles) if sum(widths) <= room else max(1, int(room / max(widths)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.4)


def open_marker(axes: Any, x: float, y: float, look: Look) -> None:
    """Draw a published figure: the marker of this run's recipe, but open."""
    axes.scatter(
        x, y, s=look.size**2, facecolors="none", edgecolors=look.colour, marker=look.marker, linewidths=1.3, zorder=8
    )  # fmt: skip


def published_handle() -> Line2D:
    """Make the legend's entry of the open markers."""
    return Line2D([], [], color="0.35", marker="o", markerfacecolor="none", linestyle="none", markersize=7,
                  markeredgewidth=1.3, label="published")  # fmt: skip


def settle(figure: Figure) -> None:
    """Fix the layout, so that labels can be placed where there is room."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def objective_axis(board: Board, axis: Any, objective: str) -> None:
    """Label an axis, and invert it where less is better, so that better is always up or right."""
    if board.objectives[objective].sign < 0:
        axis.set_inverted(True)
        objective += "\n(less is better: axis turned)"
    axis.set_label_text(objective)


def render(figure: Figure) -> dict[str, bytes]:
    """Render a figure in both formats: `png` for places that show no SVG, `svg` for print."""
    files = {}
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        sink = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(sink, format=kind, dpi=200, metadata=metadata)
        files[kind] = sink.getvalue()
    return files
