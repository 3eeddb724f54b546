"""Scores and result files, from the stored answers alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from orchestrator.config.published import Published
from orchestrator.results.board import Board
from orchestrator.results.leaderboard import write_board

if TYPE_CHECKING:
    pass
from orchestrator.stages.open import Sweep
from orchestrator.stages.score import is_complete, make_board


# -------------------------------------------------------------------- what came of it
def publish(sweep: Sweep, beside: Published | None = None) -> Board:
    """Scores from the stored answers, the front, and all result files; others' figures beside, where given."""
    from orchestrator.report.page import write_report

    board = make_board(sweep)
    if sweep.config.finetune and is_complete(board):
        from orchestrator.stages.finetune import make_tuned

        results = make_tuned(sweep, board)
        notes = tuple(dict.fromkeys((*board.notes, *results.notes)))
        board = dataclasses.replace(board, finetuning=results, notes=notes)
    write_board(board, sweep.out)
    write_report(board, sweep.out, beside)
    return board
