"""What libraries say of a model's files is made once for each content, library version and state of our code."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from orchestrator.models.kept import kept


def test_it_is_made_once_for_each_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[str] = []

    def make(content: str) -> dict[str, tuple[int, ...]]:
        made.append(content)
        return {content: (1, 2)}

    for content in ("a", "b", "a", "b"):
        assert kept("things", [content], ["numpy"], partial(make, content)) == {content: [1, 2]}
    assert made == ["a", "b"]
    (note,) = [file for file in (tmp_path / "mergefront" / "things").iterdir() if '"a"' in file.read_text()]
    note.write_text("{cut off")
    assert kept("things", ["a"], ["numpy"], partial(make, "a")) == {"a": [1, 2]}
    assert kept("things", ["a"], ["torch"], partial(make, "a")) == {"a": [1, 2]}, "of another library"
    assert made == ["a", "b", "a", "a"]


def test_what_cannot_be_written_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mergefront").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert [kept("things", ["a"], ["numpy"], lambda: 7) for _ in range(2)] == [7, 7]
