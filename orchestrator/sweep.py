"""A sweep from beginning to end. Read `run_sweep` first: it is the whole system in a dozen lines.

    sweep.yaml → config → recipes × questions → what the ledger does not know yet → blocks → pool → answers
    → ledger → scores → front → report

The ledger is the truth. To resume is to run the same command: what is answered is not asked again, and what is
reported is computed from the stored answers, whoever asked them and when.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.load import load_config
from orchestrator.results.board import Board
from orchestrator.results.heartbeat import driving
from orchestrator.results.lock import locked

if TYPE_CHECKING:
    pass
from orchestrator.stages.evaluate import ask, continue_into_fine_tuning, open_blocks
from orchestrator.stages.open import open_sweep
from orchestrator.stages.publish import publish


def run_sweep(path: Path, out: Path, max_gpu_hours: float | None = None) -> Board:
    """Run a sweep, or go on with it, and write its report.

    Args:
        path: the sweep file.
        out: results folder, private to its owner; created if missing.
        max_gpu_hours: stop handing out work once the workers have been held this long (a worker without a GPU
            counts as one); what is under way is finished and stored.

    Raises:
        UserError: the sweep file, a parent, a task or the results folder is wrong, or object storage cannot be had.
        KeyboardInterrupt: interrupted; all finished blocks are stored.
    """
    from cluster.session import session
    from orchestrator.stages.finetune import check_training

    config = load_config(path)
    with locked(out), driving(out):
        sweep = open_sweep(config, out)
        if config.finetune:
            check_training(sweep)
        blocks = open_blocks(sweep)
        with session(out / "ray") if blocks else contextlib.nullcontext():
            ask(sweep, blocks, max_gpu_hours)
            if config.finetune:
                continue_into_fine_tuning(sweep)
        return publish(sweep)
