"""Scores and result files, from the stored answers alone."""

from __future__ import annotations

import dataclasses

from orchestrator.config.published import Published
from orchestrator.report.page import write_report
from orchestrator.results.board import Board
from orchestrator.results.layout import Layout
from orchestrator.results.leaderboard import write_board
from orchestrator.stages.finetune import finetune_results
from orchestrator.stages.open import Sweep
from orchestrator.stages.score import is_complete
from orchestrator.stages.search import Race, confirmed_board, race_board
from orchestrator.stages.search_summary import summarise


def publish(sweep: Sweep, race: Race | None, published: Published | None = None) -> Board:
    """Write all result files of a sweep: what was evaluated, searched and fine-tuned so far.

    Args:
        race: the sweep's search, where there is one.
        published: others' figures, for the report to lay beside the run's.
    """
    board = race_board(sweep, race)
    before = board
    if race is not None and race.has_begun:
        held_out = confirmed_board(sweep, race)
        _write(held_out, sweep.layout.confirmed)
        board = dataclasses.replace(board, search=summarise(race, held_out))
    if sweep.config.finetune and is_complete(before):
        found = finetune_results(sweep, before)
        notes = tuple(dict.fromkeys((*board.notes, *found.notes)))
        board = dataclasses.replace(board, finetuning=found, notes=notes)
    _write(board, sweep.layout, published)
    return board


def _write(board: Board, layout: Layout, published: Published | None = None) -> None:
    write_board(board, layout)
    write_report(board, layout, published)
