"""The commands `run`, its short forms `search` and `sft`, and `report`; all of them end with the leaderboard."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.arguments import Commands, folder, hours

if TYPE_CHECKING:
    from orchestrator.results.board import Board

UNTIL = ("evaluate", "search", "finetune")
"""The values of `orchestrator.sweep.Stage`, whose module takes seconds to import."""
EXAMPLES = {"search": "search.yaml", "finetune": "demo_sft.yaml"}
"""Section of the sweep file → an example that has it."""


def add_commands(commands: Commands) -> None:
    """Add `run`, `search`, `sft` and `report` with their arguments."""
    run = commands.add_parser("run", help="run a sweep, or resume it: evaluate, search, fine-tune, as its file says")
    run.add_argument("--until", choices=UNTIL, default=UNTIL[-1], help="the last stage (default: as far as it goes)")
    run.set_defaults(execute=_run, section=None)
    search = commands.add_parser("search", help="`run --until search` of a sweep file that has a section search")
    search.set_defaults(execute=_run, section="search", until="search")
    sft = commands.add_parser("sft", help="`run` of a sweep file that has a section finetune")
    sft.set_defaults(execute=_run, section="finetune", until="finetune")
    for command in (run, search, sft):
        command.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
        command.add_argument("--out", type=folder, required=True, metavar="DIR", help="results folder")
        command.add_argument(
            "--max-gpu-hours", type=hours, metavar="H", help="stop cleanly once the workers have used H GPU hours"
        )
    report = commands.add_parser("report", help="rebuild scores and report from the stored answers alone")
    report.add_argument("dir", type=folder, metavar="DIR")
    report.add_argument(
        "--beside", type=Path, metavar="FIGURES.yaml", help="published figures to compare the run's with"
    )
    report.set_defaults(execute=_report)


def _run(args: argparse.Namespace) -> int:
    from orchestrator.config.load import load_config
    from orchestrator.core.errors import UserError
    from orchestrator.sweep import Stage, run_sweep

    if args.section and getattr(load_config(args.sweep), args.section) is None:
        raise UserError(
            f"{args.sweep}: has no section {args.section}; add one (examples/{EXAMPLES[args.section]}), or use "
            "`mergefront run`"
        )
    board = run_sweep(args.sweep, args.out, until=Stage(args.until), max_gpu_hours=args.max_gpu_hours)
    return _show(board, args.out)


def _report(args: argparse.Namespace) -> int:
    from orchestrator.config.load import load_published
    from orchestrator.results.layout import Layout
    from orchestrator.results.lock import locked
    from orchestrator.stages.open import reopen_sweep
    from orchestrator.stages.publish import publish
    from orchestrator.stages.search import open_race

    beside = load_published(args.beside) if args.beside else None
    layout = Layout(args.dir)
    sweep = reopen_sweep(layout)
    with locked(layout):
        return _show(publish(sweep, open_race(sweep), beside), args.dir)


def _show(board: Board, out: Path) -> int:
    """Print the leaderboard, where the report is, and the recipes that have no score; returns the exit code."""
    from orchestrator.core.records import RecipeStatus
    from orchestrator.report.terminal import console, print_board, print_finetuning
    from orchestrator.results.layout import Layout

    print_board(board, console())
    if board.finetuning:
        print_finetuning(board, board.finetuning, console())
    rows = [*board.rows, *(run.row for run in (board.finetuning.runs if board.finetuning else ()))]
    final = (RecipeStatus.UNSCORED, RecipeStatus.INVALID, RecipeStatus.FAILED)
    unscored = [row for row in rows if row.failure and row.status in final]
    for row in unscored:
        assert row.failure is not None
        print(
            f"mergefront: {row.status}: {row.recipe.id} ({row.recipe.label}): {row.failure.message}",
            file=sys.stderr,
        )
    pending = sum(row.status == RecipeStatus.PENDING for row in rows)
    if pending:
        print(f"mergefront: {pending} recipes are not finished; the same command resumes", file=sys.stderr)
    print(f"report: {Layout(out).report_html.resolve()}")
    return 1 if unscored else 0
