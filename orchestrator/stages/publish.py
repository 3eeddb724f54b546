"""The board of a sweep and its result files, from the stored answers alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from orchestrator.config.published import Published
from orchestrator.report.page import write_report
from orchestrator.results.board import Board
from orchestrator.results.layout import Layout
from orchestrator.results.leaderboard import write_board
from orchestrator.stages.finetune import finetune_results
from orchestrator.stages.open import Sweep, reopen_sweep
from orchestrator.stages.search import Race, confirmed_board, is_ready, open_race, race_board
from orchestrator.stages.search_summary import summarise


def publish(sweep: Sweep, race: Race | None, published: Published | None = None) -> Board:
    """Write all result files of a sweep: of what was evaluated, searched and fine-tuned so far.

    Args:
        race: the sweep's search, where there is one.
        published: others' figures, for the report to lay beside the run's.
    """
    board = make_board(sweep, race)
    if race is not None and race.has_begun:
        _write(confirmed_board(sweep, race), sweep.layout.confirmed)
    _write(board, sweep.layout, published)
    return board


def make_board(sweep: Sweep, race: Race | None) -> Board:
    """Score everything that is answered; nothing is evaluated and nothing is written."""
    board = race_board(sweep, race)
    if race is not None and race.has_begun:
        board = dataclasses.replace(board, search=summarise(race, confirmed_board(sweep, race)))
    if sweep.config.finetune is None:
        return board
    if not is_ready(sweep, race):
        return dataclasses.replace(board, awaits_finetuning=True)
    found = finetune_results(sweep, board)
    notes = tuple(dict.fromkeys((*board.notes, *found.notes)))
    return dataclasses.replace(board, finetuning=found, notes=notes)


def read_board(out: Path) -> Board:
    """The board of a results folder, scored from its stored answers.

    Args:
        out: what `run` was given as --out.

    Raises:
        UserError: it holds no sweep, or its tasks have other questions today.
    """
    sweep = reopen_sweep(Layout(out))
    return make_board(sweep, open_race(sweep))


def _write(board: Board, layout: Layout, published: Published | None = None) -> None:
    write_board(board, layout)
    write_report(board, layout, published)
