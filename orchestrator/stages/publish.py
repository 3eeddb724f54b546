"""The board of a sweep and its result files, computed from the stored answers alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from orchestrator.config.published import Published
from orchestrator.core.errors import UserError
from orchestrator.core.files import make_private
from orchestrator.report.page import write_report
from orchestrator.results.board import Board
from orchestrator.results.layout import Layout
from orchestrator.results.leaderboard import write_board
from orchestrator.stages.finetune import finetune_results
from orchestrator.stages.open import Sweep, reopen_sweep
from orchestrator.stages.search import Race, confirmed_board, is_ready, open_race, race_board
from orchestrator.stages.search_summary import summarise


def publish(sweep: Sweep, race: Race | None, published: Published | None = None) -> Board:
    """Write the leaderboard, the report and all other result files, from what is evaluated so far.

    Args:
        race: the sweep's search, where there is one.
        published: published figures that the report compares the run's with.
    """
    board = make_board(sweep, race)
    if race is not None and race.has_begun:
        make_private(sweep.layout.confirmed.root)
        _write(confirmed_board(sweep, race), sweep.layout.confirmed)
    _write(board, sweep.layout, published)
    return board


def make_board(sweep: Sweep, race: Race | None) -> Board:
    """Score everything that is answered: the grid, the search and fine-tuning; nothing is evaluated."""
    board = race_board(sweep, race)
    if race is not None and race.has_begun:
        board = dataclasses.replace(board, search=summarise(race, confirmed_board(sweep, race)))
    if sweep.config.finetune is None:
        return board
    if not is_ready(sweep, race):
        return dataclasses.replace(board, awaits_finetuning=True)
    try:
        results = finetune_results(sweep, board)
    except UserError as error:  # no recipe meets a starting point: all else can be reported all the same
        return dataclasses.replace(board, awaits_finetuning=True, notes=(*board.notes, str(error)))
    notes = tuple(dict.fromkeys((*board.notes, *results.notes)))
    return dataclasses.replace(board, finetuning=results, notes=notes)


def read_board(out: Path) -> Board:
    """Open a results folder and score what is answered there.

    Args:
        out: the results folder, as `run --out` names it.

    Raises:
        UserError: the folder has no sweep, or its tasks have other questions now.
    """
    sweep = reopen_sweep(Layout(out))
    return make_board(sweep, open_race(sweep))


def _write(board: Board, layout: Layout, published: Published | None = None) -> None:
    write_board(board, layout)
    write_report(board, layout, published)
