"""The command line of `mergefront status` and `mergefront ledger`: what was asked, without asking anything."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

DONE, DAMAGED = 0, 1


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    status = commands.add_parser("status", help="what a sweep is at, live or dead, from its files, on any machine")
    status.add_argument("dir", type=Path, metavar="DIR")
    status.add_argument("--json", action="store_true", help="for machines")
    ledger = commands.add_parser("ledger", help="the stored answers: export, gc, merge")
    tools = ledger.add_subparsers(dest="tool", required=True, metavar="TOOL")
    export = tools.add_parser("export", help="all answers of a sweep as one Parquet table")
    export.add_argument("dir", type=Path, metavar="DIR")
    export.add_argument("--to", type=Path, required=True, metavar="FILE.parquet", help="a file that does not exist yet")
    export.add_argument("--texts", action="store_true", help="generated texts too; they may be patients'")
    gc = tools.add_parser("gc", help="what nothing refers to any more: says what and how much; deletes with --yes")
    gc.add_argument("dir", type=Path, metavar="DIR")
    gc.add_argument("--yes", action="store_true", help="delete it")
    merge = tools.add_parser("merge", help="copy the answers of OTHER into DIR")
    merge.add_argument("dir", metavar="DIR", help="a results folder, or a ledger's folder or address")
    merge.add_argument("other", metavar="OTHER", help="likewise")


def show_status(args: argparse.Namespace) -> int:
    import dataclasses
    import json

    from orchestrator.results.status import describe, read_status

    status = read_status(args.dir)
    print(json.dumps(dataclasses.asdict(status), indent=1) if args.json else describe(status))
    return DONE


def use_ledger(args: argparse.Namespace) -> int:
    return {"export": _export, "gc": _gc, "merge": _merge}[args.tool](args)


def _export(args: argparse.Namespace) -> int:
    from orchestrator.results.export import export

    rows, damaged = export(args.dir, args.to, args.texts)
    print(f"{rows} rows: {args.to.resolve()}" + ("" if args.texts else " (without texts)"))
    return _told(damaged)


def _gc(args: argparse.Namespace) -> int:
    from orchestrator.results.gc import collect, find_garbage, summarise
    from orchestrator.results.lock import locked

    if not args.yes:
        garbage = find_garbage(args.dir)
        print(summarise(garbage))
        print("nothing was deleted; `--yes` deletes" if garbage else "there is nothing to delete")
        return DONE
    with locked(args.dir):
        garbage = find_garbage(args.dir)
        print(summarise(garbage))
        collect(args.dir, garbage)
    print("deleted")
    return DONE


def _merge(args: argparse.Namespace) -> int:
    from orchestrator.ledger.merge import merge
    from orchestrator.results.gc import open_store

    found = merge(open_store(args.dir), open_store(args.other))
    print(f"{found.copied} blocks copied, {found.there} were there")
    return _told(found.damaged)


def _told(damaged: list[str]) -> int:
    for each in damaged:
        print(f"mergefront: damaged: {each}; left out", file=sys.stderr)
    return DAMAGED if damaged else DONE
