"""The command line. Heavy imports wait until a command needs them: `--help` is instant."""

from __future__ import annotations

import argparse
import errno
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.ledger import add_commands, show_status, use_ledger

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.results.board import Board

DONE, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
OF_THE_USERS_FILES = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG,
    errno.ELOOP,
}  # fmt: skip
"""What a full disk, a missing permission or a wrong path says; any other OSError is a fault of ours."""


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
    plan.add_argument(
        "--cluster", metavar="NODES", help="such as '2 nodes of 8x H100-80GB + 2000GB'; default: RAY_ADDRESS's"
    )
    run = commands.add_parser("run", help="run a sweep, or go on with it")
    run.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    run.add_argument("--out", type=folder, required=True, metavar="DIR", help="results folder")
    run.add_argument("--max-gpu-hours", type=hours, metavar="H", help="stop cleanly after this much worker time")
    search = commands.add_parser("search", help="look beyond the grid, or go on looking: needs a search section")
    search.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    search.add_argument("--out", type=folder, required=True, metavar="DIR", help="results folder")
    sft = commands.add_parser("sft", help="the same for a sweep with finetune: asks what is open, then fine-tunes")
    sft.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    sft.add_argument("--out", type=folder, required=True, metavar="DIR", help="results folder, of `run` or a new one")
    report = commands.add_parser("report", help="rebuild scores and report from the stored answers alone")
    report.add_argument("dir", type=folder, metavar="DIR")
    report.add_argument("--beside", type=Path, metavar="FIGURES.yaml", help="published figures to lay beside the run's")
    compare = commands.add_parser("compare", help="two recipes: paired differences per task, and what flipped")
    compare.add_argument("dir", type=folder, metavar="DIR")
    compare.add_argument("a", metavar="A", help="recipe id, parent's name, or label such as 'linear alpha=0.4'")
    compare.add_argument("b", metavar="B")
    promote = commands.add_parser(
        "promote", help="write a recipe's checkpoint, with what it was served with and a card"
    )
    promote.add_argument("dir", type=folder, metavar="DIR")
    promote.add_argument("recipe", metavar="RECIPE", help="as for compare")
    promote.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a folder that does not exist yet")
    _add_review(commands)
    add_commands(commands)
    return top


def _add_review(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    review = commands.add_parser("review", help="blinded rating sheets for clinicians, and what the filled ones say")
    review.add_argument("dir", type=folder, metavar="DIR")
    review.add_argument("recipe", nargs="*", metavar="RECIPE", help="as for compare; the first is compared with")
    way = review.add_mutually_exclusive_group(required=True)
    way.add_argument("--to", type=Path, metavar="FOLDER", help="write sheets: a folder that does not exist yet")
    way.add_argument("--read", type=Path, metavar="FOLDER", help="read the filled sheets (CSV) in this folder")
    review.add_argument("--task", metavar="NAME", help="a task that generates text; default: the only one")
    review.add_argument("--sample", type=at_least(2), default=20, metavar="N", help="documents at most (default: 20)")
    review.add_argument("--raters", type=at_least(1), default=2, metavar="N", help="sheets (default: 2)")
    review.add_argument("--reference", action="store_true", help="show the reference texts too")


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from cluster.session import check_packages, interrupt, private, quiet
    from orchestrator.core.errors import UserError

    quiet()
    private()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        check_packages()
        return COMMANDS[args.command](args)
    except UserError as error:
        print(f"mergefront: error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        if error.errno not in OF_THE_USERS_FILES:
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

    from orchestrator.config.load import load_config
    from orchestrator.core.errors import UserError
    from orchestrator.planning.plan import describe, make_plan

    if (args.shape is None) != (args.tokenizer is None):
        raise UserError(
            "--shape and --tokenizer go together: a model's config.json and a tokenizer's folder; give both"
        )
    plan = make_plan(load_config(args.sweep), args.shape, args.tokenizer, args.cluster)
    print(json.dumps(dataclasses.asdict(plan), indent=1) if args.json else describe(plan))
    return DONE


def _run(args: argparse.Namespace) -> int:
    from orchestrator.sweep import run_sweep

    return _show(run_sweep(args.sweep, args.out, args.max_gpu_hours), args.out)


def _search(args: argparse.Namespace) -> int:
    from orchestrator.stages.search import run_search

    return _show(run_search(args.sweep, args.out), args.out)


def _sft(args: argparse.Namespace) -> int:
    from orchestrator.config.load import load_config
    from orchestrator.core.errors import UserError
    from orchestrator.sweep import run_sweep

    if load_config(args.sweep).finetune is None:
        raise UserError(f"{args.sweep}: has no key finetune; say there what to fine-tune, from where, and on what")
    return _show(run_sweep(args.sweep, args.out), args.out)


def _report(args: argparse.Namespace) -> int:
    from orchestrator.config.load import load_published
    from orchestrator.results.lock import locked
    from orchestrator.stages.open import reopen_sweep
    from orchestrator.stages.publish import publish
    from orchestrator.stages.search import publish_search

    beside = load_published(args.beside) if args.beside else None
    sweep = reopen_sweep(args.dir)
    with locked(args.dir):
        if (args.dir / "search").is_dir():
            return _show(publish_search(sweep, beside), args.dir)
        return _show(publish(sweep, beside), args.dir)


def _compare(args: argparse.Namespace) -> int:
    from orchestrator.report.terminal import print_difference
    from orchestrator.stages.open import reopen_sweep
    from orchestrator.stages.score import make_board

    board = make_board(reopen_sweep(args.dir))
    print_difference(board, board.find(args.a), board.find(args.b), _console())
    return DONE


def _promote(args: argparse.Namespace) -> int:
    from orchestrator.promote import promote
    from orchestrator.stages.open import reopen_sweep
    from orchestrator.stages.score import make_board

    sweep = reopen_sweep(args.dir)
    row = promote(sweep, make_board(sweep), args.recipe, args.to)
    print(f"{row.recipe.label} ({row.recipe.id}): {args.to.resolve()}")
    return DONE


def _review(args: argparse.Namespace) -> int:
    from orchestrator.core.errors import UserError
    from orchestrator.review.ratings import read_review
    from orchestrator.review.sheets import write_review
    from orchestrator.review.terminal import print_ratings
    from orchestrator.stages.open import reopen_sweep

    if args.read:
        if args.recipe or args.task or args.reference:
            raise UserError(
                "--read: takes no recipes, --task or --reference: the review's key knows them; leave them out"
            )
        print_ratings(read_review(args.dir, args.read), _console())
        return DONE
    if not args.recipe:
        raise UserError("review --to: names no recipe; name those to rate: `review DIR RECIPE … --to FOLDER`")
    sweep = reopen_sweep(args.dir)
    review = write_review(sweep, args.recipe, args.task, args.to, args.sample, args.raters, args.reference)
    print(f"{review.items} outputs for {review.documents} documents, a sheet a rater:")
    print("\n".join(f"  {sheet.resolve()}" for sheet in review.sheets))
    if review.truncated:
        print(f"{review.truncated} of the prompts were cut to fit the engine; the sheets show these inputs whole")
    print("These sheets hold texts of the data set, patients' too if it does. Only you can read them (0700, 0600);")
    print("pass them on, with rubric.txt, only where such texts may go.")
    print(f"Which recipe is which, not for the raters: {review.key.resolve()}")
    return DONE


def _show(board: Board, out: Path) -> int:
    """The leaderboard, where the report is, and the recipes that have no score."""
    from orchestrator.report.terminal import print_board, print_finetuning

    print_board(board, _console())
    if board.finetuning:
        print_finetuning(board, board.finetuning, _console())
    rows = [*board.rows, *(run.row for run in (board.finetuning.runs if board.finetuning else ()))]
    lost = [row for row in rows if row.status in {"invalid", "failed"}]
    for row in lost:
        assert row.failure is not None, "a recipe without a score says why"
        print(
            f"mergefront: {row.status}: {row.recipe.id} ({row.recipe.label}): {row.failure.message}",
            file=sys.stderr,
        )
    pending = sum(row.status == "pending" for row in rows)
    if pending:
        print(f"mergefront: {pending} recipes are not finished; the same command goes on", file=sys.stderr)
    print(f"report: {(out / 'report.html').resolve()}")
    return SOME_FAILED if lost else DONE


def _console() -> Console:
    from rich.console import Console

    # In a log or a pipe nobody has chosen a width, and rich's 80 columns would cut names.
    return Console(width=None if sys.stdout.isatty() else 200)


def folder(text: str) -> Path:
    """Absolute, for the workers have working directories of their own."""
    return Path(text).absolute()


def hours(text: str) -> float:
    """argparse shows this name: `invalid hours value`."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, but got {text}")
    return value


def at_least(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, but got {text}")
        return value

    return number


COMMANDS = {
    "plan": _plan,
    "run": _run,
    "search": _search,
    "sft": _sft,
    "report": _report,
    "compare": _compare,
    "promote": _promote,
    "review": _review,
    "status": show_status,
    "ledger": use_ledger,
}
