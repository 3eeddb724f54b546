"""The command `ledger`: export, clean up and merge stored answers, without evaluating anything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from orchestrator.cli.arguments import Commands

DONE, DAMAGED = 0, 1


def add_commands(commands: Commands) -> None:
    """Add `ledger` with its tools `export`, `gc` and `merge`."""
    ledger = commands.add_parser("ledger", help="the stored answers: export, gc, merge")
    tools = ledger.add_subparsers(dest="tool", required=True, metavar="TOOL")
    export = tools.add_parser("export", help="all answers of a sweep as one Parquet table")
    export.add_argument("dir", type=Path, metavar="DIR")
    export.add_argument("--to", type=Path, required=True, metavar="FILE.parquet", help="a file that does not exist yet")
    export.add_argument("--texts", action="store_true", help="generated texts too; they may be patients'")
    export.set_defaults(execute=_export)
    gc = tools.add_parser("gc", help="what nothing refers to any more, and how much; deletes with --yes")
    gc.add_argument("dir", type=Path, metavar="DIR")
    gc.add_argument("--yes", action="store_true", help="delete it")
    gc.set_defaults(execute=_gc)
    merge = tools.add_parser("merge", help="copy the answers of OTHER into DIR")
    merge.add_argument("dir", metavar="DIR", help="a results folder, or a ledger's folder or address")
    merge.add_argument("other", metavar="OTHER", help="likewise")
    merge.set_defaults(execute=_merge)


def _export(args: argparse.Namespace) -> int:
    from orchestrator.results.export import export
    from orchestrator.results.layout import Layout
    from orchestrator.stages.search_candidates import stored_candidates

    layout = Layout(args.dir)
    rows, damaged = export(layout, args.to, stored_candidates(layout), texts=args.texts)
    print(f"{rows} rows: {args.to.resolve()}" + ("" if args.texts else " (without texts)"))
    return _say(damaged)


def _gc(args: argparse.Namespace) -> int:
    from orchestrator.results.gc import collect, find_garbage, summarise
    from orchestrator.results.layout import Layout
    from orchestrator.results.lock import locked

    layout = Layout(args.dir)
    if not args.yes:
        garbage = find_garbage(layout)
        print(summarise(garbage))
        print("nothing was deleted; `--yes` deletes" if garbage else "there is nothing to delete")
        return DONE
    with locked(layout):
        garbage = find_garbage(layout)
        print(summarise(garbage))
        collect(layout, garbage)
    print("deleted")
    return DONE


def _merge(args: argparse.Namespace) -> int:
    from orchestrator.ledger.merge import merge
    from orchestrator.results.manifest import open_ledger_store

    found = merge(open_ledger_store(args.dir), open_ledger_store(args.other))
    print(f"{found.copied} blocks copied, {found.there} were there")
    return _say(found.damaged)


def _say(damaged: list[str]) -> int:
    """Name the damaged blocks on stderr; returns the exit code."""
    for each in damaged:
        print(f"mergefront: damaged: {each}; left out", file=sys.stderr)
    return DAMAGED if damaged else DONE
