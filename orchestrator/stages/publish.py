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
    held_out = confirmed_board(sweep, race)
    board = make_board(sweep, race, held_out)
    if held_out is not None:
        make_private(sweep.layout.confirmed.root)
        _write(held_out, sweep.layout.confirmed)
    _write(board, sweep.layout, published)
    return board


def make_board(sweep: Sweep, race: Race | None, held_out: Board | None) -> Board:
    """Score everything that is answered: the grid, the search and fine-tuning; nothing is evaluated.

    Args:
        held_out: the search's front on the held-out questions, where a search has begun.
    """
    board = race_board(sweep, race)
    if race is not None and held_out is not None:
        board = dataclasses.replace(board, search=summarise(race, held_out))
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


def open_board(layout: Layout) -> tuple[Sweep, Board]:
    """Open a results folder with the board of everything that is answered there: grid, search and fine-tuning.

    Raises:
        UserError: the folder has no sweep, or its tasks have other questions now.
    """
    sweep = reopen_sweep(layout)
    return sweep, make_board(sweep, open_race(sweep), None)


def read_board(out: Path) -> Board:
    """Open a results folder and score what is answered there.

    Args:
        out: the results folder, as `run --out` names it.

    Raises:
        UserError: the folder has no sweep, or its tasks have other questions now.
    """
    sweep = reopen_sweep(Layout(out))
    race = open_race(sweep)
    return make_board(sweep, race, confirmed_board(sweep, race))


def _write(board: Board, layout: Layout, published: Published | None = None) -> None:
    write_board(board, layout)
    write_report(board, layout, published)
