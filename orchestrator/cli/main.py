"""The command line; heavy imports wait until a command needs them, so that `--help` is instant."""

from __future__ import annotations

import argparse
import errno
import signal
import sys

from orchestrator.cli import commands, ledger, plan, review, run
from orchestrator.core.errors import UserError
from orchestrator.core.packages import check_packages

DONE, SOME_FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
OF_THE_USERS_FILES = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG,
    errno.ELOOP,
}  # fmt: skip
"""Error numbers of a full disk, a missing permission or a wrong path; any other OSError is a bug of mergefront."""


def parser() -> argparse.ArgumentParser:
    """Make the parser of all commands and their arguments."""
    top = argparse.ArgumentParser(
        prog="mergefront",
        description="Find the Pareto front of the merges of two language models.",
        epilog="Exit codes: 0 done; 1 finished, but recipes failed (named); 2 wrong input; 130 interrupted.",
    )
    subparsers = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (plan, run, commands, review, ledger):
        module.add_commands(subparsers)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command, and turn errors in what the user gave into one line on stderr.

    Args:
        argv: the command and its arguments; None for those of the process.

    Returns:
        The exit code: 0 done, 1 finished with failed recipes or damaged blocks, 2 wrong input, 130 interrupted.
    """
    args = parser().parse_args(argv)
    try:
        check_packages()
        from cluster.session import interrupt, private, quiet

        quiet()
        private()
        signal.signal(signal.SIGTERM, interrupt)
        return int(args.execute(args))
    except UserError as error:
        print(f"mergefront: error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        if error.errno not in OF_THE_USERS_FILES:
            raise
        place = f" ({error.filename})" if error.filename else ""
        print(f"mergefront: error: {error.strerror}{place}; fix that, and run the same command again", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("\nmergefront: interrupted; the same command resumes from here", file=sys.stderr)
        return INTERRUPTED
