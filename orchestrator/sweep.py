"""A sweep from beginning to end: read `run_sweep` first, it is the whole system in a dozen lines.

    sweep.yaml → config → recipes × questions → what the ledger does not know yet → blocks → pool → answers
    → ledger → scores → front → report

A recipe is a merge, or a model as it is. A question is one lm-eval request, and a block is some questions for one
recipe: the unit of work. Each worker of the pool has one vLLM engine; it loads a recipe's merged weights into the
running engine and answers the recipe's blocks. Each stage below is a module of `orchestrator.stages`:

    open_sweep   resolve parents, recipes, questions, training examples and the ledger; check them all, start nothing
    open_race    what the ledger and the stored proposals say of the search so far
    computing    Ray and the pool of engines, each started when a stage first needs it
    evaluate     answer the questions that have no answer yet
    search       propose further recipes (candidates), race them against the grid, confirm the front on other questions
    finetune     train chosen recipes on labelled examples, and evaluate the checkpoints like any recipe
    publish      compute scores, front and report from the stored answers alone

The ledger is the truth. To resume is to run the same command: what is answered is not evaluated again, and every score
is computed from the stored answers, whichever run they come from. A search and fine-tuning are further rounds over the
same ledger.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from orchestrator.config.load import load_config
from orchestrator.core.errors import UserError
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
    """The stages that `--until` names, in order; one that has no section in the sweep file is skipped."""

    EVALUATE = "evaluate"
    SEARCH = "search"
    FINETUNE = "finetune"


def run_sweep(path: Path, out: Path, *, until: Stage = Stage.FINETUNE, max_gpu_hours: float | None = None) -> Board:
    """Run a sweep, or resume it, and write its report.

    Args:
        path: the sweep file.
        out: results folder, private to its owner; created if missing.
        until: the last stage.
        max_gpu_hours: start no further work once the workers have occupied GPUs for so long (a worker without a GPU
            counts as one GPU); what is under way is finished and stored.

    Returns:
        The board: a row for each recipe, with its scores where all its questions are answered.

    Raises:
        UserError: the sweep file, a parent, a task or the results folder is wrong, object storage cannot be reached, or
            no engine can be started.
        KeyboardInterrupt: interrupted; all finished blocks are stored.
    """
    config, layout = load_config(path), Layout(out)
    searches = config.search is not None and until != Stage.EVALUATE
    finetunes = config.finetune is not None and until == Stage.FINETUNE
    with locked(layout), driving(layout):
        sweep = open_sweep(config, layout)
        race = open_race(sweep, starts=searches)
        with computing(sweep, max_gpu_hours, searches=searches, finetunes=finetunes) as compute:
            evaluate(sweep, sweep.grid, compute)
            try:
                if race and searches:
                    search(sweep, race, compute)
                # Starting points are chosen among all scored recipes, so every one must have been evaluated.
                if finetunes and is_ready(sweep, race) and not compute.is_exhausted():
                    finetune(sweep, race_board(sweep, race), compute)
            except UserError:
                publish(sweep, race)  # no recipe meets a starting point, say: the scores help to choose another
                raise
        return publish(sweep, race)
