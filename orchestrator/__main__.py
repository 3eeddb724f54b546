"""The command line. Heavy imports wait until a command needs them: `--help` is instant."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.board import Board

DONE, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mergefront",
        description="Find the Pareto front of the merges of two language models.",
        epilog="Exit codes: 0 done; 1 finished, but recipes failed (named); 2 wrong input; 130 interrupted.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    plan = commands.add_parser(
        "plan", help="what would run: recipes, questions, tokens, memory, disk; starts no engine"
    )
    plan.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    plan.add_argument("--json", action="store_true", help="for machines")
    plan.add_argument("--shape", type=Path, metavar="CONFIG.json", help="stands in for the parents, with no hub")
    plan.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="goes with --shape")
    run = commands.add_parser("run", help="run a sweep, or go on with it")
    run.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="results folder")
    run.add_argument("--max-gpu-hours", type=hours, metavar="H", help="stop cleanly after this much worker time")
    report = commands.add_parser("report", help="rebuild scores and report from the stored answers alone")
    report.add_argument("dir", type=Path, metavar="DIR")
    compare = commands.add_parser("compare", help="two recipes: paired differences per task, and what flipped")
    compare.add_argument("dir", type=Path, metavar="DIR")
    compare.add_argument("a", metavar="A", help="recipe id, parent's name, or label such as 'linear alpha=0.4'")
    compare.add_argument("b", metavar="B")
    promote = commands.add_parser(
        "promote", help="write a recipe's checkpoint, with what it was served with and a card"
    )
    promote.add_argument("dir", type=Path, metavar="DIR")
    promote.add_argument("recipe", metavar="RECIPE", help="as for compare")
    promote.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a folder that does not exist yet")
    return top


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from cluster.session import check_packages, interrupt
    from orchestrator.config import UserError

    signal.signal(signal.SIGTERM, interrupt)
    try:
        check_packages()
        return {"plan": _plan, "run": _run, "report": _report, "compare": _compare, "promote": _promote}[args.command](
            args
        )
    except UserError as error:
        print(f"mergefront: error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        place = f" ({error.filename})" if error.filename else ""
        print(f"mergefront: error: {error.strerror}{place}; mend that, and the same command goes on", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("\nmergefront: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _plan(args: argparse.Namespace) -> int:
    import dataclasses
    import json

    from orchestrator.config import UserError
    from orchestrator.plan import describe, make_plan
    from orchestrator.sweepfile import load_config

    if (args.shape is None) != (args.tokenizer is None):
        raise UserError(
            "--shape and --tokenizer go together: a model's config.json and a tokenizer's folder; give both"
        )
    plan = make_plan(load_config(args.sweep), args.shape, args.tokenizer)
    print(json.dumps(dataclasses.asdict(plan), indent=1) if args.json else describe(plan))
    return DONE


def _run(args: argparse.Namespace) -> int:
    from orchestrator.sweep import run_sweep

    return _show(run_sweep(args.sweep, args.out, args.max_gpu_hours), args.out)


def _report(args: argparse.Namespace) -> int:
    from orchestrator.sweep import locked, publish, reopen_sweep

    sweep = reopen_sweep(args.dir)
    with locked(args.dir):
        return _show(publish(sweep), args.dir)


def _compare(args: argparse.Namespace) -> int:
    from orchestrator.report.terminal import print_difference
    from orchestrator.sweep import make_board, reopen_sweep

    board = make_board(reopen_sweep(args.dir))
    print_difference(board, board.find(args.a), board.find(args.b), _console())
    return DONE


def _promote(args: argparse.Namespace) -> int:
    from orchestrator.promote import promote
    from orchestrator.sweep import make_board, reopen_sweep

    sweep = reopen_sweep(args.dir)
    row = promote(sweep, make_board(sweep), args.recipe, args.to)
    print(f"{row.recipe.label} ({row.recipe.id}): {args.to.resolve()}")
    return DONE


def _show(board: Board, out: Path) -> int:
    """The leaderboard, where the report is, and the recipes that have no score."""
    from orchestrator.report.terminal import print_board

    print_board(board, _console())
    lost = [row for row in board.rows if row.status in {"invalid", "failed"}]
    for row in lost:
        assert row.failure is not None, "a recipe without a score says why"
        print(
            f"mergefront: {row.status}: {row.recipe.id} ({row.recipe.label}): {row.failure.message}",
            file=sys.stderr,
        )
    pending = sum(row.status == "pending" for row in board.rows)
    if pending:
        print(f"mergefront: {pending} recipes are not finished; the same command goes on", file=sys.stderr)
    print(f"report: {(out / 'report.html').resolve()}")
    return SOME_FAILED if lost else DONE


def _console() -> Console:
    from rich.console import Console

    # In a log or a pipe nobody has chosen a width, and rich's 80 columns would cut names.
    return Console(width=None if sys.stdout.isatty() else 200)


def hours(text: str) -> float:
    """argparse shows this name: `invalid hours value`."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
