"""Why a task file of lm-eval is refused, read from the file and its programs before any of them is run.

lm-eval's own tasks are scored as lm-eval scores them, except those that need more than a model's text: pictures, code
that is downloaded or that a model has written, a service, a package that is not installed.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lm_eval.api.registry import metric_registry
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Entry, Kind
from lm_eval.tasks._yaml_loader import load_yaml

COMPUTED = {
    "loglikelihood": {"acc", "perplexity"},
    "loglikelihood_rolling": {"word_perplexity", "byte_perplexity", "bits_per_byte"},
    "multiple_choice": {
        "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "f1", "mcc", "exact_match", "brier_score", "likelihood",
    },
    "generate_until": {"exact_match", "bleu", "chrf", "chrf++", "ter", "f1", "mcc"},
}  # fmt: skip
"""Output type → lm-eval's metrics that a task without a `process_results` of its own has a value of."""
SERVICES = {"openai", "anthropic", "google.generativeai", "together", "litellm"}
"""Packages that ask a service."""


@dataclass(frozen=True)
class Refusal:
    """Why a task is refused."""

    kind: str
    """One of a few words, to count by."""
    reason: str
    """A clause that continues `task 'x' …`."""


# -------------------------------------------------------------------- task files
def files_behind(index: TaskManager, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tasks behind the name of a task, group or tag, with their files' settings; functions are not imported.

    A function is written as the path of its program, a dot and its name.
    """
    entry = index.task_index.get(name)
    if entry is not None:
        yield from _members(index, entry, {})


def _members(index: TaskManager, entry: Entry, laid_over: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if entry.kind is Kind.TAG:
        for member in sorted(entry.tags):
            yield from _members(index, index.task_index[member], laid_over)
        return
    settings = dict(load_yaml(entry.yaml_path, resolve_func=False) if entry.yaml_path else entry.cfg or {})
    if entry.kind is not Kind.GROUP:
        yield entry.name, {**settings, **laid_over}
        return
    for item in settings.get("task") or []:
        own = dict(item) if isinstance(item, dict) else {"task": item}
        member = index.task_index.get(own.pop("group", own.get("task")))
        if member is not None:
            yield from _members(index, member, {**laid_over, **{k: v for k, v in own.items() if k != "task"}})


def why_refused(settings: Mapping[str, Any]) -> Refusal | None:
    """Say why a task is refused, from its file's settings; None where it is not."""
    if settings.get("doc_to_image") or settings.get("doc_to_audio"):
        return Refusal("pictures or sound", "has pictures or sound in its prompts, which the merged models cannot read")
    if settings.get("unsafe_code"):
        return Refusal("runs generated code", "runs the code that a model has written, on this machine")
    if settings.get("use_prompt") and not _is_installed("promptsource"):
        return Refusal("package missing", "needs the Python package promptsource, which is not installed")
    if "class" not in settings and not (settings.get("test_split") or settings.get("validation_split")):
        return Refusal("no split to evaluate", "names neither test_split nor validation_split")
    return _why_programs(settings) or (None if "class" in settings else _why_metrics(settings))


def _why_metrics(settings: Mapping[str, Any]) -> Refusal | None:
    """Whether a metric would be downloaded, and whether the first one, which is the score, is computed at all."""
    kind, own = settings.get("output_type") or "generate_until", settings.get("process_results") is not None
    listed = [item for item in settings.get("metric_list") or [] if isinstance(item, Mapping)]
    for item in listed if kind == "generate_until" and not own else ():  # otherwise lm-eval never calls it
        name = str(item.get("metric"))
        if item.get("hf_evaluate") or (name not in _metrics() and _program(name) is None):
            return Refusal("metric is downloaded code", f"has the metric {name}, which is code from the hub")
    if listed and not own:
        has_own_aggregation = _program(listed[0].get("aggregation")) is not None
        why = why_not_computed(kind, str(listed[0].get("metric")), has_own_aggregation)
        return Refusal("metric is not computed", why) if why else None
    return None


def why_not_computed(output_type: str, metric: str, has_own_aggregation: bool) -> str | None:
    """Say why lm-eval has no value of a metric for a task without a `process_results`; None where it has one.

    Args:
        has_own_aggregation: the task file names a program for it, which may take what lm-eval's metric only hands on.
    """
    if metric == "bypass":
        return "has the metric bypass, which is 999 whatever the answers are"
    hands_on = output_type == "generate_until" and (has_own_aggregation or metric not in _metrics())
    if hands_on or metric in COMPUTED.get(output_type, ()):
        return None
    return f"has the metric {metric}, which lm-eval does not compute for output_type {output_type}"


@cache
def _metrics() -> frozenset[str]:
    import lm_eval.api.metrics  # noqa: F401  (it fills the registry)

    return frozenset(metric_registry.keys())


# -------------------------------------------------------------------- programs
def _program(value: Any) -> tuple[Path, str] | None:
    """The file and name of a function that a task file names; None for any other value."""
    if not isinstance(value, str) or not value.startswith("/"):
        return None
    stem, _, name = value.rpartition(".")
    file = Path(f"{stem}.py")
    return (file, name) if file.is_file() else None


def _programs(value: Any) -> Iterator[tuple[Path, str]]:
    """Every function that is named anywhere in the settings."""
    if found := _program(value):
        yield found
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _programs(each)


def _why_programs(settings: Mapping[str, Any]) -> Refusal | None:
    """What the programs of a task need: those parts that run when it is loaded, and those that score."""
    scoring = {key: settings.get(key) for key in ("process_results", "metric_list", "filter_list", "class")}
    for file, name in dict.fromkeys(_programs(settings)):
        names = {name} if (file, name) in set(_programs(scoring)) else set()
        for what, word in _needs(file, frozenset(names)):
            if what == "package" and word.split(".")[0] and not _is_installed(word.split(".")[0], file.parent):
                return Refusal(
                    "package missing", f"needs the Python package {word.split('.')[0]}, which is not installed"
                )
            if what == "package" and word in SERVICES:
                return Refusal("asks a service", f"asks a service ({word}) for its score")
            if what == "metric":
                return Refusal("metric is downloaded code", f"loads the metric {word}, which is code from the hub")
    return None


@cache
def _needs(file: Path, scoring: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """(`package` or `metric`, name) of what a program imports, and loads by `evaluate`, when it is loaded or scores."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return ()
    defined = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    reached: dict[str, ast.AST] = {}
    waiting = [name for name in scoring if name in defined]
    while waiting:
        name = waiting.pop()
        reached[name] = defined[name]
        used = {node.id for node in ast.walk(defined[name]) if isinstance(node, ast.Name)}
        waiting += [each for each in used if each in defined and each not in reached]
    loaded = [node for node in tree.body if node not in defined.values()]
    found = [each for node in (*loaded, *reached.values()) for each in _wanted(node)]
    return tuple(dict.fromkeys(found))


def _wanted(node: ast.AST) -> Iterator[tuple[str, str]]:
    """What one statement needs; an import that a program tries is none, as the program copes without it."""
    for each in ast.iter_child_nodes(node) if not isinstance(node, ast.Try) else node.finalbody:
        yield from _wanted(each)
    if isinstance(node, ast.Try):
        yield from (found for each in node.body for found in _wanted(each) if found[0] == "metric")
    elif isinstance(node, ast.Import):
        yield from (("package", alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        yield "package", node.module
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("evaluate.load", "hf_evaluate.load", "load_metric"):
        yield "metric", str(node.args[0].value) if node.args and isinstance(node.args[0], ast.Constant) else "evaluate"


@cache
def _is_installed(package: str, beside: Path | None = None) -> bool:
    if beside is not None and ((beside / f"{package}.py").exists() or (beside / package).is_dir()):
        return True
    return importlib.util.find_spec(package) is not None
