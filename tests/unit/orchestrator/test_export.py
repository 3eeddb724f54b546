"""Export: a row an answer."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.core.errors import UserError
from orchestrator.results.export import export
from tests.helpers.answers import LETTERS, Results


def test_export_has_a_row_an_answer_and_texts_only_where_asked(results: Results, tmp_path: Path) -> None:
    for recipe in range(len(results.recipes)):
        results.answer(recipe)
    for name, texts in (("plain", False), ("texts", True)):
        rows, damaged = export(results.out, tmp_path / f"{name}.parquet", texts)
        table = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
        assert rows == len(table) == 4 * 18 and damaged == []
        assert {row["text"] for row in table} == ({None, "a patient's text"} if texts else {None})
        assert stat.S_IMODE(os.stat(tmp_path / f"{name}.parquet").st_mode) == 0o600
    assert {row["label"] for row in table} == {"parent name=a", "parent name=b", "linear alpha=0.5", "slerp t=0.5"}
    one = next(r for r in table if r["label"] == "linear alpha=0.5" and r["question_id"] == LETTERS[5].id)
    assert (one["parents"], one["method"], json.loads(one["parameters"])) == ("a, b", "linear", {"alpha": 0.5})
    assert (one["objective"], one["task"], one["document"], one["logprob"]) == ("clinical", "letters", 2, -1.0)
    with pytest.raises(UserError, match="exists already"):
        export(results.out, tmp_path / "plain.parquet", False)
