"""The command `review`: write blinded rating sheets, and read them back."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.cli.arguments import Commands, at_least, folder


def add_commands(commands: Commands) -> None:
    """Add `review` with its arguments."""
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
    review.set_defaults(execute=_review)


def _review(args: argparse.Namespace) -> int:
    return _read(args) if args.read else _write(args)


def _read(args: argparse.Namespace) -> int:
    from orchestrator.core.errors import UserError
    from orchestrator.report.terminal import console
    from orchestrator.results.layout import Layout
    from orchestrator.review.ratings import read_review
    from orchestrator.review.terminal import print_ratings

    if args.recipe or args.task or args.reference:
        raise UserError("--read: takes no recipes, --task or --reference: the review's key has them; leave them out")
    print_ratings(read_review(Layout(args.dir), args.read), console())
    return 0


def _write(args: argparse.Namespace) -> int:
    from orchestrator.core.errors import UserError
    from orchestrator.results.layout import Layout
    from orchestrator.review.sheets import write_review
    from orchestrator.stages.publish import open_board

    if not args.recipe:
        raise UserError("review --to: names no recipe; name those to rate: `review DIR RECIPE … --to FOLDER`")
    sweep, board = open_board(Layout(args.dir))
    review = write_review(sweep, board, args.recipe, args.task, args.to, args.sample, args.raters, args.reference)
    print(f"{review.items} outputs for {review.documents} documents, a sheet a rater:")
    print("\n".join(f"  {sheet.resolve()}" for sheet in review.sheets))
    if review.truncated:
        print(f"{review.truncated} of the prompts were cut to fit the engine; the sheets show these inputs whole")
    print("These sheets contain texts of the data set, patients' too if it does. Only you can read them (0700, 0600);")
    print("pass them on, with rubric.txt, only where such texts may go.")
    print(f"Which recipe is which, not for the raters: {review.key.resolve()}")
    return 0
