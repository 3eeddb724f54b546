"""DIR/sweep.json and DIR/questions.parquet: what a run writes down before it asks anything.

From them `report`, `status` and the ledger tools know the sweep, on any machine, without its parents or its data.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.files import write_atomic, write_json
from orchestrator.core.records import Profile, Serving
from orchestrator.recipes.recipe import Source

if TYPE_CHECKING:
    from tasks.evaluation.suites import SuiteTask

QUESTIONS = pa.schema(
    [
        pa.field("question_id", pa.string()),
        pa.field("stage", pa.string()),  # sweep, confirm (a search's front) or tuned (what fine-tuning is for)
        pa.field("objective", pa.string()),
        pa.field("task", pa.string()),
        pa.field("document", pa.int64()),  # its number in the task's data, as lm-eval counts
    ]
)


@dataclass(frozen=True)
class Note:
    """What DIR/sweep.json holds."""

    config: SweepConfig
    sources: dict[str, Source]
    serving: Serving
    profile: Profile
    digests: dict[str, str]
    """Objective, place and task → digest of its questions."""


def write_note(out: Path, note: Note) -> None:
    versions = {name: importlib.metadata.version(name) for name in ("mergekit", "lm-eval", "torch", "transformers")}
    content = {
        "config": note.config.model_dump(mode="json"),
        "sources": {name: dataclasses.asdict(source) for name, source in note.sources.items()},
        "serving": dataclasses.asdict(note.serving),
        "profile": dataclasses.asdict(note.profile),
        "questions": note.digests,
        "versions": versions,
    }
    write_json(out / "sweep.json", content)


def read_note(out: Path) -> Note:
    """
    Raises:
        UserError: there is none, or it cannot be read.
    """
    try:
        content = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
        config = SweepConfig.model_validate_json(json.dumps(content["config"]))
        sources = {name: _source(fields) for name, fields in content["sources"].items()}
        fields = content["serving"]
        engine = tuple((key, value) for key, value in fields["engine"])
        if Path(fields["tokenizer"]).name != fields["tokenizer"]:
            raise ValueError(f"serving.tokenizer is {fields['tokenizer']!r}, which is no folder in serving/")
        stops, folder = tuple(fields["stop_token_ids"]), str(out / "serving" / fields["tokenizer"])
        serving = Serving(**{**fields, "engine": engine, "stop_token_ids": stops, "folder": folder})
        return Note(config, sources, serving, Profile(**content["profile"]), content["questions"])
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{out}: holds no sweep (no sweep.json); give the folder that `run --out` wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:500]
        raise UserError(
            f"{out / 'sweep.json'}: cannot be read ({reason}); `run` with the sweep file mends it"
        ) from None


def _source(fields: dict[str, Any]) -> Source:
    return Source(**{**fields, "files": tuple((name, digest) for name, digest in fields["files"])})


def ledger_place(config: SweepConfig, out: Path) -> Path | str:
    """Where a sweep's answers are."""
    return config.ledger or out / "answers"


def write_questions(out: Path, stages: Mapping[str, Sequence[SuiteTask]]) -> None:
    """Write down which questions are asked of recipes, and what of.

    Args:
        stages: see `QUESTIONS`.
    """
    rows = [
        (question.id, stage, suite.objective, suite.name, document)
        for stage, suites in stages.items()
        for suite in suites
        for question, document in zip(suite.questions, suite.document_of, strict=True)
    ]
    columns: list[Any] = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in QUESTIONS]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=QUESTIONS), sink)
    write_atomic(out / "questions.parquet", sink.getvalue().to_pybytes())


def read_questions(out: Path) -> pa.Table:
    """
    Returns:
        With the columns of `QUESTIONS`, in the order in which they are asked.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    path = out / "questions.parquet"
    try:
        table = pq.read_table(path)
        if table.schema != QUESTIONS:
            raise ValueError("other columns")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); `run` with the sweep file writes it again") from None
    return table
