"""The commands `compare`, `promote` and `status`, which work on the results of a sweep."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.cli.arguments import Commands, folder


def add_commands(commands: Commands) -> None:
    """Add `compare`, `promote` and `status` with their arguments."""
    compare = commands.add_parser("compare", help="recipes: paired differences per task, and what flipped")
    compare.add_argument("dir", type=folder, metavar="DIR")
    what = "recipe id, parent's name, or label such as 'linear alpha=0.4'"
    mean = "; a fine-tuned checkpoint's without its seed=… is the mean over the seeds"
    compare.add_argument("a", metavar="A", help=what + mean)
    compare.add_argument("b", metavar="B", nargs="+", help="what A is compared with; all intervals hold at once")
    compare.set_defaults(execute=_compare)
    promote = commands.add_parser(
        "promote", help="write a recipe's checkpoint, with what it was served with and a card"
    )
    promote.add_argument("dir", type=folder, metavar="DIR")
    promote.add_argument("recipe", metavar="RECIPE", help="as for compare")
    promote.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a folder that does not exist yet")
    promote.set_defaults(execute=_promote)
    status = commands.add_parser("status", help="where a sweep is, live or dead, from its files, on any machine")
    status.add_argument("dir", type=Path, metavar="DIR")
    status.add_argument("--json", action="store_true", help="print the status as JSON")
    status.set_defaults(execute=_status)


def _compare(args: argparse.Namespace) -> int:
    from orchestrator.report.compare import print_comparison
    from orchestrator.report.terminal import console
    from orchestrator.results.layout import Layout
    from orchestrator.stages.publish import open_board

    _, board = open_board(Layout(args.dir))
    print_comparison(board, board.find_seeds(args.a), [board.find_seeds(name) for name in args.b], console())
    return 0


def _promote(args: argparse.Namespace) -> int:
    from orchestrator.promote import promote
    from orchestrator.results.layout import Layout
    from orchestrator.stages.publish import open_board

    sweep, board = open_board(Layout(args.dir))
    row = promote(sweep, board, args.recipe, args.to)
    print(f"{row.recipe.label} ({row.recipe.id}): {args.to.resolve()}")
    return 0


def _status(args: argparse.Namespace) -> int:
    import dataclasses
    import json

    from orchestrator.results.layout import Layout
    from orchestrator.results.status import describe, read_status

    status = read_status(Layout(args.dir))
    print(json.dumps(dataclasses.asdict(status), indent=1) if args.json else describe(status))
    return 0
