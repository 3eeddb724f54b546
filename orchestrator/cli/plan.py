"""The command `plan`: what a sweep would do and need, without starting an engine."""

from __future__ import annotations

import argparse
from pathlib import Path

from orchestrator.cli.arguments import Commands, folder


def add_commands(commands: Commands) -> None:
    """Add `plan` with its arguments."""
    plan = commands.add_parser(
        "plan", help="what would run: recipes, questions, tokens, memory, disk; starts no engine"
    )
    plan.add_argument("sweep", type=Path, metavar="SWEEP.yaml")
    plan.add_argument("--json", action="store_true", help="print the plan as JSON")
    plan.add_argument("--shape", type=Path, metavar="CONFIG.json", help="stands in for the parents, with no hub")
    plan.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="the tokenizer's folder, needed with --shape")
    plan.add_argument(
        "--cluster", metavar="NODES", help="such as '2 nodes of 8x H100-80GB + 2000GB'; default: RAY_ADDRESS's"
    )
    plan.add_argument("--detect", type=float, metavar="D", help="how many questions would show a difference of D")
    plan.add_argument(
        "--answers", type=folder, metavar="DIR", help="results whose answers say how unlike recipes answer"
    )
    plan.set_defaults(execute=_plan)


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
    if args.detect is not None and not 0 < args.detect < 1:
        raise UserError(f"--detect {args.detect:g}: is no difference of scores; give one between 0 and 1, such as 0.01")
    answers = None
    if args.answers is not None:
        from orchestrator.stages.publish import read_board  # imports Ray, which a plan does without

        answers = read_board(args.answers)
    plan = make_plan(
        load_config(args.sweep), args.shape, args.tokenizer, args.cluster, detect=args.detect, answers=answers
    )
    print(json.dumps(dataclasses.asdict(plan), indent=1) if args.json else describe(plan))
    return 0
