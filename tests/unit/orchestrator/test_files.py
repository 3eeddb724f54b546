"""Files that are read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.files import read_json_if_exists, write_json


def test_a_written_object_is_read_back_and_a_missing_file_is_empty(tmp_path: Path) -> None:
    assert read_json_if_exists(tmp_path / "missing" / "a.json") == {}
    write_json(tmp_path / "a.json", {"ä": [1, 2.5, None]})
    assert read_json_if_exists(tmp_path / "a.json") == {"ä": [1, 2.5, None]}


@pytest.mark.parametrize("content", ["", '{"a": 1', "[1, 2]", "[]", '"text"'])
def test_a_file_that_holds_no_object_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError):
        read_json_if_exists(tmp_path / "a.json")
