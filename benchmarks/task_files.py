"""All of lm-eval's own task files, classed: scored as lm-eval scores them, or refused, with the reason.

    .venv/bin/python -m benchmarks.task_files [--write] [--list CLASS]

What is decidable without data is decided by the code with which `plan` and `run` refuse a task
(`tasks.evaluation.refusals`, `tasks.evaluation.gen_kwargs`); the programs that accepted task files name are imported.
`--write` writes the counts to docs/benchmarks.md. It takes some minutes, and needs no network.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind
from lm_eval.tasks._yaml_loader import load_yaml

from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from tasks.evaluation.gen_kwargs import overlaid, read_gen_kwargs
from tasks.evaluation.refusals import files_behind, why_refused
from tasks.evaluation.trust import close_downloads, close_templates

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
VERSIONS = ("lm-eval", "datasets", "transformers")
Classed = dict[str, tuple[str, str]]
"""Task → its class (`scored: …` or `refused: …`) and the reason of a refusal."""


def classify(settings: Mapping[str, Any], path: Path | None) -> tuple[str, str]:
    """Class one task file.

    Args:
        settings: as `files_behind` gives them.
        path: of the file, for the programs that it names.
    """
    if refusal := why_refused(settings):
        return f"refused: {refusal.kind}", refusal.reason
    kind = settings.get("output_type") or "generate_until"
    if kind == "generate_until" and "class" not in settings:
        try:
            kwargs = settings.get("generation_kwargs") or {}
            read_gen_kwargs(overlaid(kwargs, delimiter=settings.get("fewshot_delimiter", "\n\n")))
        except UserError as error:
            return "refused: generation_kwargs", str(error)
    try:
        if path is not None:
            load_yaml(path, resolve_func=True)
    except (Exception, SystemExit) as error:  # a task's program may raise anything when it is imported
        reason = re.sub(r"(/[^/\s]+)+/", "", one_line(error))  # without the paths of this machine
        return "refused: program cannot be imported", f"has a program that cannot be imported: {reason[:100]}"
    if "class" in settings:
        return "scored: a Python class", ""
    own = "the task's own `process_results`" if settings.get("process_results") else "lm-eval's own metrics"
    return f"scored: {kind}, {own}", ""


def class_all() -> tuple[Classed, Counter[str], int]:
    """Class every task of lm-eval's index.

    Returns:
        The classes, the numbers of groups and tags, and the tasks whose data set may be a loading script.
    """
    index = TaskManager()
    found: Classed = {}
    kinds: Counter[str] = Counter(entry.kind.name.lower() for entry in index.task_index.values())
    scripts = 0
    for name, entry in index.task_index.items():
        if entry.kind in (Kind.TASK, Kind.PY_TASK):
            for task, settings in files_behind(index, name):
                found[task] = classify(settings, entry.yaml_path)
                scripts += bool((settings.get("dataset_kwargs") or {}).get("trust_remote_code"))
    return found, kinds, scripts


def page(found: Classed, kinds: Counter[str], scripts: int) -> str:
    """Write the page of counts."""
    counts = Counter(kind for kind, _ in found.values())
    scored = {kind: n for kind, n in counts.most_common() if kind.startswith("scored")}
    refused = {kind: n for kind, n in counts.most_common() if kind.startswith("refused")}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    today = datetime.date.today().isoformat()
    lines = [
        "# lm-eval's task files",
        "",
        f"Of lm-eval's {len(found):,} own tasks, {sum(scored.values()):,} are scored as lm-eval scores them, and "
        f"{sum(refused.values()):,} are refused by `plan` and `run` before their data is fetched. A group or tag "
        f"({kinds['group']:,} and {kinds['tag']:,}) is refused where a member is. ({versions}; {today})",
        "",
        "    .venv/bin/python -m benchmarks.task_files --write",
        "",
        "goes through all of them, with the code that refuses a task in a sweep. What only the data shows is checked "
        "when the data is there: that it can be loaded (`datasets` 4 and later reads no loading scripts; the files of "
        f"{scripts:,} tasks ask for `trust_remote_code`), [labels and choices]"
        "(evaluation.md#documents-that-cannot-be-scored), the length of prompts. That scores are lm-eval's own to the "
        "last bit is a test for each output type, metric, aggregation and filter "
        "(`tests/unit/tasks/test_lm_evals_scores.py`).",
        "",
        "| scored: output type, and what computes the metrics | tasks |",
        "|---|---|",
        *(f"| {kind.removeprefix('scored: ')} | {n:,} |" for kind, n in scored.items()),
        "",
        "| refused, because it … | tasks | such as |",
        "|---|---|---|",
    ]
    reasons = Counter(value for value in found.values() if value[1])
    for (kind, reason), n in reasons.most_common():
        example = next(task for task, value in found.items() if value == (kind, reason))
        lines.append(f"| {reason.replace('|', ' ')} | {n:,} | `{example}` |")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let the programs of task files write nothing: some print when they are imported."""
    logging.disable(logging.CRITICAL)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def main() -> None:
    """Print, or write, the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--list", metavar="CLASS", help="print the tasks of the classes that begin so")
    args = parser.parse_args()
    close_templates()
    close_downloads()
    with _quiet():
        found, kinds, scripts = class_all()
    if args.list:
        print("\n".join(f"{task}: {kind}. {why}" for task, (kind, why) in found.items() if kind.startswith(args.list)))
    elif args.write:
        PAGE.write_text(page(found, kinds, scripts), encoding="utf-8")
    else:
        print(page(found, kinds, scripts), end="")


if __name__ == "__main__":
    main()
