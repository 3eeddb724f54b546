"""DIR/sweep.json and DIR/questions.parquet, which a run writes before it evaluates anything.

`report`, `status` and the ledger tools read the sweep from them, on any machine, without its parents or its data.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.files import write_atomic, write_json
from orchestrator.core.locations import is_remote
from orchestrator.core.records import Halving, Profile, Serving, differing
from orchestrator.core.store import Store
from orchestrator.core.text import one_line
from orchestrator.ledger.blocks import block_folders
from orchestrator.recipes.recipe import Rows, Source
from orchestrator.results.layout import Layout

QUESTIONS = pa.schema(
    [
        pa.field("question_id", pa.string()),
        pa.field("stage", pa.string()),  # sweep, confirm (held out from the search) or tuned (fine-tuning's tasks)
        pa.field("objective", pa.string()),
        pa.field("task", pa.string()),
        pa.field("document", pa.int64()),  # its number in the task's data, as lm-eval counts
    ]
)


class QuestionUse(NamedTuple):
    """What a question is for: a row of `QUESTIONS`."""

    question_id: str
    stage: str
    objective: str
    task: str
    document: int


@dataclass(frozen=True)
class Manifest:
    """The content of DIR/sweep.json."""

    config: SweepConfig
    sources: dict[str, Source]
    serving: Serving
    profile: Profile
    digests: dict[str, str]
    """`objective/index/task` → digest of its questions."""
    documents: dict[str, str] = field(default_factory=dict)
    """`objective/index/task` → digest of its documents, labels and references included; empty in earlier versions."""
    halving: Halving = "question"
    """What decides the side of a question where a task is halved (see `tasks.benchmarks.splits`)."""


def write_manifest(layout: Layout, manifest: Manifest) -> None:
    """Write DIR/sweep.json, with the versions of the libraries that define recipes and scores."""
    versions = {name: importlib.metadata.version(name) for name in ("mergekit", "lm-eval", "torch", "transformers")}
    content = {
        "config": manifest.config.model_dump(mode="json"),
        "sources": {name: dataclasses.asdict(source) for name, source in manifest.sources.items()},
        "serving": dataclasses.asdict(manifest.serving),
        "profile": dataclasses.asdict(manifest.profile),
        "questions": manifest.digests,
        "documents": manifest.documents,
        "halving": manifest.halving,
        "versions": versions,
    }
    write_json(layout.manifest, content)


def read_manifest(layout: Layout) -> Manifest:
    """Read DIR/sweep.json.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        content = json.loads(layout.manifest.read_text(encoding="utf-8"))
        config = SweepConfig.model_validate_json(json.dumps(content["config"]))
        serving = _serving(layout, content["serving"])
        sources = {name: _source(fields, serving) for name, fields in content["sources"].items()}
        return Manifest(
            config,
            sources,
            serving,
            Profile(**content["profile"]),
            content["questions"],
            content.get("documents", {}),
            content.get("halving", "document"),
        )
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{layout.root}: has no sweep (no sweep.json); give the folder that `run --out` wrote"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{layout.manifest}: cannot be read ({one_line(error)}); `run` with the sweep file writes it again"
        ) from None


def read_halving(layout: Layout) -> Halving:
    """Read what decides the sides in a results folder; in one without a sweep, the text of each question."""
    try:
        return read_manifest(layout).halving
    except UserError:
        return "question"


def changes(layout: Layout, now: Manifest) -> list[str]:
    """Describe what makes stored answers of no use to a sweep that is resumed: weights, serving, engine, questions.

    Nothing is said of a results folder without a sweep, or with one that cannot be read, which is written again.
    """
    try:
        before = read_manifest(layout)
    except UserError:
        return []
    both = [name for name in now.sources if name in before.sources]
    weights = [name for name in both if now.sources[name].id != before.sources[name].id]
    lines = [f"{name} has other weights than at the last command: its recipes are evaluated again" for name in weights]
    keys = [*differing(now.serving, before.serving), *differing(now.profile, before.profile)]
    if keys:
        lines.append(f"served otherwise than at the last command ({', '.join(keys)}): every recipe is evaluated again")
    tasks = [name for name, digest in now.digests.items() if before.digests.get(name, digest) != digest]
    lines += [
        f"{name} has other questions than at the last command: only those without an answer are evaluated"
        for name in tasks
    ]
    return [*lines, *relabelled(before, now)]


def relabelled(before: Manifest, now: Manifest) -> list[str]:
    """Name tasks whose questions are those of before and whose labels, references or other columns are not."""
    return [
        f"{name} has other labels or references than at the last command: answers are scored with the present ones"
        for name, digest in now.documents.items()
        if before.documents.get(name, digest) != digest and before.digests.get(name) == now.digests.get(name)
    ]


def _source(fields: dict[str, Any], serving: Serving) -> Source:
    rows = fields.get("rows") and Rows(fields["rows"]["digest"], serving.folder, tuple(fields["rows"]["missing"]))
    return Source(**{**fields, "files": tuple((name, digest) for name, digest in fields["files"]), "rows": rows})


def _serving(layout: Layout, fields: dict[str, Any]) -> Serving:
    """Read how recipes are served; the tokenizer is looked up in the results folder, which may have been moved."""
    if Path(fields["tokenizer"]).name != fields["tokenizer"]:
        raise ValueError(f"serving.tokenizer is {fields['tokenizer']!r}, which is no folder in serving/")
    engine = tuple((key, value) for key, value in fields["engine"])
    stops, folder = tuple(fields["stop_token_ids"]), str(layout.serving / fields["tokenizer"])
    notes = tuple(fields.get("notes", ()))
    return Serving(**{**fields, "engine": engine, "stop_token_ids": stops, "folder": folder, "notes": notes})


# -------------------------------------------------------------------- where the answers are
def ledger_location(config: SweepConfig, layout: Layout) -> Path | str:
    """Where a sweep's answers are: a folder, or an address of object storage."""
    return config.ledger or layout.answers


def open_ledger_store(place: str) -> Store:
    """Open the ledger that a user names: by a results folder, or by the ledger's own folder or address.

    Raises:
        UserError: `place` is neither.
    """
    if is_remote(place):
        return Store(place)
    layout = Layout(Path(place))
    if layout.manifest.exists():
        return Store(ledger_location(read_manifest(layout).config, layout))
    store = Store(layout.root)
    if not layout.root.is_dir() or not block_folders(store):
        raise UserError(f"{place}: has neither a sweep nor a ledger; give a folder that `run --out` wrote")
    return store


# -------------------------------------------------------------------- questions
def write_questions(layout: Layout, uses: Sequence[QuestionUse]) -> None:
    """Write which questions recipes are evaluated on, and what each is for, to DIR/questions.parquet."""
    columns: list[Any] = [list(column) for column in zip(*uses, strict=True)] or [[] for _ in QUESTIONS]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=QUESTIONS), sink)
    write_atomic(layout.questions, sink.getvalue().to_pybytes())


def read_questions(layout: Layout) -> pa.Table:
    """Read DIR/questions.parquet.

    Returns:
        A table with the columns of `QUESTIONS`, in the order of evaluation.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    path = layout.questions
    try:
        table = pq.read_table(path)
        if table.schema != QUESTIONS:
            raise ValueError("other columns")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); `run` with the sweep file writes it again") from None
    return table
