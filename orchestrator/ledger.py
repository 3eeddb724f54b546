"""Every answer ever given: one Parquet file per block of questions, complete when its SUCCESS marker exists.

    DIR/answers/<recipe>/<block>/answers-<random>.parquet
    DIR/answers/<recipe>/<block>/SUCCESS                    JSON: that file's name, hash and row count; the
                                                           serving, the numeric profile, what it cost

The marker is written last and names its file, so a crash, a full disk or two writers at once can leave an
orphan file behind but never half a block. Scores are not stored: they are views over the answers
(`orchestrator.scores`). A block that does not match its marker counts as never asked, and is reported.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.config import Workers
from orchestrator.files import make_private, write_atomic
from orchestrator.records import Answer, Asked, Block, Profile, Question, Serving

COSTS = ("swap_s", "answer_s")
"""What a block cost, in seconds of its worker's time: until the engine held its recipe, and until it was answered."""

SCHEMA = pa.schema(
    [
        pa.field("question_id", pa.string(), nullable=False),
        pa.field("logprob", pa.float64()),
        pa.field("is_greedy", pa.bool_()),
        pa.field("text", pa.string()),
        pa.field("tokens", pa.int32(), nullable=False),
    ]
)


class Ledger:
    """The answers in one folder, seen through one serving and one numeric profile."""

    def __init__(self, folder: Path, serving: Serving, profile: Profile) -> None:
        self.folder = make_private(folder)
        self.serving = serving
        self.profile = profile
        self.damaged: list[str] = []
        """What was found wrong, a sentence each."""
        self._answers: dict[str, dict[str, Answer]] = {}
        self._costs: dict[str, dict[str, float]] = {}

    def answers(self, recipe_id: str) -> dict[str, Answer]:
        """All answers of a recipe, by question id."""
        if recipe_id not in self._answers:
            self._answers[recipe_id], self._costs[recipe_id] = {}, dict.fromkeys(COSTS, 0.0)
            for marker in sorted(self.folder.glob(f"{recipe_id}/*/SUCCESS")):
                self._read(recipe_id, marker)
        return self._answers[recipe_id]

    def costs(self, recipe_id: str) -> dict[str, float]:
        """Seconds spent on a recipe so far: `swap_s`, `answer_s`."""
        self.answers(recipe_id)
        return dict(self._costs[recipe_id])

    def missing(self, recipe_id: str, suites: Iterable[Iterable[Question]], workers: Workers) -> list[Block]:
        """The unanswered questions, in blocks of at most `workers.block`, and of `workers.text_block` where texts are
        to be written.

        Blocks are cut suite by suite from all the questions first and then thinned, so that what is left after an
        interruption is composed exactly as it would have been without one.
        """
        known, seen, blocks = self.answers(recipe_id), set[str](), []
        for questions in suites:
            unique = [q for q in dict.fromkeys(questions) if q.id not in seen]
            seen.update(question.id for question in unique)
            size = workers.text_block if any(question.decoding for question in unique) else workers.block
            for start in range(0, len(unique), size):
                part = tuple(q for q in unique[start : start + size] if q.id not in known)
                if part:
                    blocks.append(Block(recipe_id, part))
        return blocks

    def write(self, asked: Asked) -> None:
        """Store a block's answers; on return they are on the disk.

        Raises:
            OSError: the disk is full or not writable; the block is then not there at all.
        """
        recipe_id = asked.block.recipe_id
        known = self.answers(recipe_id)
        # The same questions asked through another serving or profile are another block.
        name = hashlib.sha256(f"{asked.block.id}{self.serving.id}{self.profile.id}".encode()).hexdigest()[:20]
        folder = make_private(self.folder / recipe_id / name)
        expected = [question.id for question in asked.block.questions]
        assert [answer.question_id for answer in asked.answers] == expected, "an answer for each question, in order"
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([dataclasses.asdict(a) for a in asked.answers], schema=SCHEMA), buffer)
        data = buffer.getvalue()
        costs = {key: getattr(asked, key) for key in COSTS}
        file = f"answers-{uuid.uuid4().hex[:8]}.parquet"
        marker = {
            "file": file,
            "sha256": hashlib.sha256(data).hexdigest(),
            "rows": len(asked.answers),
            "serving": self.serving.id,
            "profile": dataclasses.asdict(self.profile),
            "profile_id": self.profile.id,
            "worker": asked.worker,
            "written": time.time(),
            **costs,
        }
        write_atomic(folder / file, data)
        write_atomic(folder / "SUCCESS", json.dumps(marker, indent=1))
        known.update({answer.question_id: answer for answer in asked.answers})
        self._add_costs(recipe_id, costs)

    def _read(self, recipe_id: str, marker: Path) -> None:
        try:
            note: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
            if (note["serving"], note["profile_id"]) != (self.serving.id, self.profile.id):
                return
            data = (marker.parent / note["file"]).read_bytes()
            if hashlib.sha256(data).hexdigest() != note["sha256"]:
                raise ValueError(f"{note['file']} does not match its SHA-256")
            rows = pq.read_table(io.BytesIO(data)).to_pylist()
        except (ValueError, KeyError, OSError) as error:
            self.damaged.append(f"{marker.parent}: {error}; this block's questions are asked again")
            return
        self._answers[recipe_id].update({row["question_id"]: Answer(**row) for row in rows})
        self._add_costs(recipe_id, note)

    def _add_costs(self, recipe_id: str, costs: dict[str, Any]) -> None:
        for key in COSTS:
            self._costs[recipe_id][key] += costs[key]
