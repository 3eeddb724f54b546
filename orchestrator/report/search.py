"""The report's part on a search: hypervolume against questions, candidates in parallel coordinates, tables."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from orchestrator.core.records import RecipeStatus
from orchestrator.core.text import count, listed
from orchestrator.report.style import COLOURS, STYLE, new_figure
from orchestrator.report.tables import NONE, Table
from orchestrator.report.words import number, point_title, signed, span
from orchestrator.results.board import Board, HeldOutFloor, SearchResults, SearchRow
from orchestrator.stats.volume import Interval

SHOWN = 40
"""Most recipes in the table of candidates; the leaderboard has them all."""


def volume(board: Board) -> Figure | None:
    """Draw in-sample hypervolume against the number of questions that candidates have answered."""
    if board.search is None:
        return None
    answered, volumes = zip(*board.search.history, strict=True)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(board, 6.6, 3.6)
        axes = figure.subplots()
        axes.step(answered, volumes, where="post", color=COLOURS[0], linewidth=1.6)
        axes.axhline(board.search.grid, color="0.5", linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate("the grid", (answered[-1], board.search.grid), ha="right", va="bottom", color="0.35")
        axes.set_xlabel("questions answered by candidates")
        axes.set_ylabel("hypervolume, in-sample")
        return figure


def parallel(board: Board) -> Figure | None:
    """Draw each candidate as a line over its parameters, coloured by the first objective.

    There is a panel for each method, and one more where the search space has changed and given it other parameters.
    """
    found = board.search
    if found is None:
        return None
    groups: dict[tuple[str, tuple[str, ...]], list[SearchRow]] = {}
    for candidate in found.candidates:
        point = candidate.recipe.points[0]
        if candidate.number is not None and len(point.parameters) > 1:
            groups.setdefault((point.method, tuple(key for key, _ in point.parameters)), []).append(candidate)
    if not groups:
        return None
    first = board.axes[0]
    values = [candidate.values[first] for group in groups.values() for candidate in group]
    colours = ScalarMappable(Normalize(min(values), max(values)), "viridis")
    with matplotlib.rc_context(STYLE):
        figure = new_figure(board, 7.4, 2.6 * len(groups))
        panels = figure.subplots(len(groups), 1, squeeze=False)[:, 0]
        for axes, ((name, names), group) in zip(panels, groups.items(), strict=True):
            spans = [_span([float(c.recipe.points[0].parameters[k][1]) for c in group]) for k in range(len(names))]
            for candidate in sorted(group, key=lambda each: each.recipe.id in found.front):
                on = candidate.recipe.id in found.front
                own = (float(value) for _, value in candidate.recipe.points[0].parameters)
                line = [(value - low) / (high - low) for value, (low, high) in zip(own, spans, strict=True)]
                axes.plot(
                    line, color=colours.to_rgba(candidate.values[first]), linewidth=2.2 if on else 0.8,
                    alpha=1 if on else 0.6,
                )  # fmt: skip
            ticks = [f"{name}\n{low:.3g} to {high:.3g}" for name, (low, high) in zip(names, spans, strict=True)]
            axes.set_xticks(range(len(names)), ticks, rotation=12, fontsize=8)
            axes.set_yticks([])
            axes.set_ylabel(name)
        figure.colorbar(colours, ax=list(panels), label=first)
        return figure


def _span(values: list[float]) -> tuple[float, float]:
    """The ends of a parameter's axis: 0 and 1 for ratios, so that panels can be compared; else those of the values."""
    if all(0 <= value <= 1 for value in values) and max(values) > 0.1:
        return 0.0, 1.0
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 1, high + 1)


def words(found: SearchResults) -> list[str]:
    """Describe what the search found, in sentences."""
    proposals = [candidate for candidate in found.candidates if candidate.number is not None]
    scored, stopped, deferred = (
        sum(candidate.status == status for candidate in proposals)
        for status in (RecipeStatus.SCORED, RecipeStatus.STOPPED_EARLY, RecipeStatus.DEFERRED)
    )
    lines = [
        f"Sampler: {found.sampler}.",
        f"{count(len(proposals), 'candidate')}: {scored} scored on all questions, {stopped} stopped early (beaten in "
        f"the race), {deferred} deferred (probably beaten, the rest of the questions left out); "
        f"{found.history[-1][0]} questions answered in all.",
        *_unbounded(found),
    ]
    if found.infeasible:
        verbs = ("breaks", "is") if found.infeasible == 1 else ("break", "are")
        broken = count(found.infeasible, "scored recipe")
        lines.append(f"{broken} {verbs[0]} a constraint and {verbs[1]} left out below.")
    lines += [*_volumes(found), *_floors(found), _held_up(found)]
    if found.best is None:
        lines.append("No candidate of the search is on the front: the search found nothing better than the grid.")
    elif found.gains:
        ours, grid = (point_title(recipe.points[0]) for recipe in found.best)
        gains = listed(f"{g.objective} {signed(g.value)} ({span(g.low, g.high)})" for g in found.gains)
        lines.append(
            f"The best compromise of the search, {ours}, minus that of the grid, {grid}, on the held-out questions: "
            f"{gains}."
        )
    return lines


def _unbounded(found: SearchResults) -> list[str]:
    """Say where stopping early has no guarantee."""
    return [
        f"Stopping early has no guarantee, because nothing is known that bounds {listed(found.unbounded)} "
        f"({'; '.join(found.unbounded.values())}): the largest difference seen took its place."
    ] if found.unbounded else []  # fmt: skip


def _volumes(found: SearchResults) -> list[str]:
    """Describe the hypervolume of the search and of the grid on the held-out questions, then in-sample."""
    reached = found.history[-1][1]
    lines = []
    if found.held_out is None:
        lines.append(
            "Hypervolume: not known. The fronts of the search and of the grid are compared on the held-out questions, "
            "and not all of their recipes have a score there."
        )
    else:
        first, second, gain = found.held_out.volumes
        above = listed(
            f"{name} {number(value)} ({parent})" for name, (parent, value) in found.held_out.reference.items()
        )
        lines.append(
            f"Hypervolume of the front on the held-out questions: {_interval(first)}; of the grid's front "
            f"{_interval(second)}; above {above}."
        )
        lines.append(
            "The search's front is the grid's: there is no gain."
            if found.held_out.is_same
            else f"Gain over the grid there: {signed(gain.value)} ({span(gain.low, gain.high)}, 95 %, paired)"
            + (". " if gain.low > 0 or gain.high < 0 else ": it cannot be told from none. ").rstrip()
        )
    lines.append(
        f"In-sample, on the questions that the recipes were chosen by, it is {number(reached)}, and the grid's "
        f"{number(found.grid)}; that flatters both, and the search more."
    )
    return lines


def _interval(found: Interval) -> str:
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def _floors(found: SearchResults) -> list[str]:
    """Say which recipes of the front keep the constraints on the held-out questions, which break one, which neither."""
    lines = []
    for constraint in dict.fromkeys(floor.constraint for floor in found.floors):
        own = [floor for floor in found.floors if floor.constraint == constraint]
        kept = [floor for floor in own if floor.margin.low >= 0]
        broken = [floor for floor in own if floor.margin.high < 0]
        open_ = [floor for floor in own if floor not in kept and floor not in broken]
        words = [
            f"kept beyond doubt by {len(kept)} of {count(len(own), 'recipe')} on the front",
            *([f"it is broken by {listed(map(_floor, broken))}"] if broken else []),
            *([f"it cannot be told of {listed(map(_floor, open_))}"] if open_ else []),
        ]
        lines.append(f"{constraint}, on the held-out questions (95 % for all at once): {'; '.join(words)}.")
    return lines


def _floor(floor: HeldOutFloor) -> str:
    margin = floor.margin
    return f"{point_title(floor.recipe.points[0])} ({signed(margin.value)}, {span(margin.low, margin.high)})"


def _held_up(found: SearchResults) -> str:
    """Say which recipes of the front are on the front of the held-out questions, by their scores there."""
    there = {*found.confirmed, *found.near}
    fallen = [c for c in found.candidates if c.recipe.id in found.front and c.recipe.id not in there]
    near = f" and {len(found.near)} near it" if found.near else ""
    names = listed(point_title(candidate.recipe.points[0]) for candidate in fallen)
    return (
        f"Of {count(len(found.front), 'recipe')} on the front, {len(found.confirmed)} are on the front of the held-out "
        f"questions too{near}, by their scores there{f'; these are neither: {names}' if fallen else ''}."
    )


def candidates(board: Board) -> Table:
    """List the recipes on the front, then the others by the share of resamplings in which they are on it."""
    assert board.search is not None, "the sweep was searched"
    found = board.search
    shown = sorted(found.candidates, key=lambda c: (c.recipe.id not in found.front, -np.nan_to_num(c.resamplings)))[
        :SHOWN
    ]
    cells = [
        (
            point_title(c.recipe.points[0]),
            c.status + (", front" if c.recipe.id in found.front else ", near" if c.may_be_on_front else ""),
            "on" if c.recipe.id in found.confirmed else "near" if c.recipe.id in found.near else NONE,
            f"{100 * c.share:.0f} %",
            NONE if np.isnan(c.resamplings) else f"{100 * c.resamplings:.0f} %",
            *(number(c.values[name]) for name in board.axes),
        )
        for c in shown
    ]
    head = ("recipe", "status", "held out", "answered", "share of resamplings", *board.axes)
    return Table.of(head, cells, words=3)


def importance(found: SearchResults) -> Table:
    """List how much of each objective's variance each parameter explains, in per cent."""
    names = list(dict.fromkeys(name for shares in found.importance.values() for name in shares))
    cells = [
        (name, *(f"{100 * shares.get(name, np.nan):.0f} %" for shares in found.importance.values())) for name in names
    ]
    return Table.of(("parameter", *found.importance), cells)
