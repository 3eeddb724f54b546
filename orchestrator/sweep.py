"""A sweep from beginning to end. Read `run_sweep` first: it is the whole system in a dozen lines.

    sweep.yaml → config → recipes × questions → what the ledger does not know yet → blocks → pool → answers
    → ledger → scores → front → report

The ledger is the truth. To resume is to run the same command: what is answered is not evaluated again, and what is
reported is computed from the stored answers, whoever made them and when. A search and fine-tuning are further rounds
over the same ledger.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from orchestrator.config.load import load_config
from orchestrator.results.board import Board
from orchestrator.results.heartbeat import driving
from orchestrator.results.layout import Layout
from orchestrator.results.lock import locked
from orchestrator.stages.compute import computing
from orchestrator.stages.evaluate import evaluate
from orchestrator.stages.finetune import finetune
from orchestrator.stages.open import open_sweep
from orchestrator.stages.publish import publish
from orchestrator.stages.search import is_ready, open_race, race_board, search


class Stage(StrEnum):
    """What a sweep does, in this order, as far as its file has the sections `search` and `finetune`."""

    EVALUATE = "evaluate"
    SEARCH = "search"
    FINETUNE = "finetune"


def run_sweep(path: Path, out: Path, *, until: Stage = Stage.FINETUNE, max_gpu_hours: float | None = None) -> Board:
    """Run a sweep, or resume it, and write its report.

    Args:
        path: the sweep file.
        out: results folder, private to its owner; created if missing.
        until: the last stage.
        max_gpu_hours: stop handing out work once the workers have been held this long (a worker without a GPU
            counts as one); what is under way is finished and stored.

    Raises:
        UserError: the sweep file, a parent, a task or the results folder is wrong, or object storage cannot be had.
        KeyboardInterrupt: interrupted; all finished blocks are stored.
    """
    config, layout = load_config(path), Layout(out)
    searches = config.search is not None and until != Stage.EVALUATE
    with locked(layout), driving(layout):
        sweep = open_sweep(config, layout)
        race = open_race(sweep, starts=searches)
        with computing(sweep, max_gpu_hours, searches=searches) as compute:
            evaluate(sweep, sweep.grid, compute)
            if race and searches:
                search(sweep, race, compute)
            if config.finetune and until == Stage.FINETUNE and is_ready(sweep, race) and not compute.is_exhausted():
                finetune(sweep, race_board(sweep, race), compute)
        return publish(sweep, race)
