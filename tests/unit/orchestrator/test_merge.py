"""Ledgers are merged whatever the order, and mend one another."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli.main import main
from orchestrator.core.records import Answer, Block
from orchestrator.core.store import Store
from orchestrator.ledger.ledger import Ledger
from orchestrator.ledger.merge import merge
from orchestrator.results.manifest import open_ledger_store
from orchestrator.results.status import read_status
from tests.helpers.answers import LETTERS, PROFILE, SERVING, Results, asked, damage

Written = list[tuple[str, int, int, float]]

WRITTEN = st.lists(
    st.tuples(st.sampled_from("rs"), st.integers(0, 3), st.integers(1, 3), st.sampled_from([-1.0, -2.0, -3.0])),
    max_size=4,
)
"""Recipe, first question in fours, how many fours, log-probability: blocks that may overlap, or be the same."""


def write_all(where: Path, written: Written) -> None:
    ledger = Ledger(where, SERVING, PROFILE)
    for recipe, first, length, logprob in written:
        ledger.write(asked(Block(recipe, tuple(LETTERS[4 * first : 4 * (first + length)] or LETTERS[:4])), logprob))


def view(where: Path) -> dict[str, dict[str, Answer]]:
    ledger = Ledger(where, SERVING, PROFILE)
    found = {recipe: dict(sorted(ledger.answers(recipe).items())) for recipe in "rs"}
    assert ledger.damaged == []
    return found


@settings(max_examples=25, deadline=None)
@given(a=WRITTEN, b=WRITTEN, c=WRITTEN)
def test_merging_is_idempotent_commutative_and_associative(a: Written, b: Written, c: Written) -> None:
    with tempfile.TemporaryDirectory() as home:
        folders = {name: Path(home, name) for name in ("a", "b", "c")}
        for (_, folder), written in zip(folders.items(), (a, b, c), strict=True):
            write_all(folder, written)

        def merged(name: str, *order: str) -> dict[str, dict[str, Answer]]:
            for each in order:
                merge(Store(Path(home, name)), Store(folders[each] if each in folders else Path(home, each)))
            return view(Path(home, name))

        assert merged("ab", "a", "b") == merged("ba", "b", "a")
        assert merged("ab", "b", "a", "ab") == merged("ba")
        assert merged("ab_c", "ab", "c") == merged("bc_a", "b", "c", "a") == merged("c_ab", "c", "ab")
        known = {(r, q) for name in folders for r, found in view(folders[name]).items() for q in found}
        assert {(r, q) for r, found in view(Path(home, "ab_c")).items() for q in found} == known


def test_a_ledger_moves_into_a_bucket_and_damage_is_mended_from_the_other(
    bucket: Any, sweep: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results(sweep(), tmp_path / "out")
    results.answer(0)
    team = bucket("team")
    assert main(["ledger", "merge", team, str(results.out)]) == 0
    assert "3 blocks copied, 0 were there" in capsys.readouterr().out
    damage(Store(tmp_path / "out" / "answers"))
    assert main(["ledger", "merge", team, str(results.out)]) == 1
    assert "does not match its SHA-256; left out" in capsys.readouterr().err
    assert main(["ledger", "merge", str(results.out), team]) == 0
    assert "1 blocks copied, 2 were there" in capsys.readouterr().out
    assert read_status(results.layout).damaged == [] and read_status(results.layout).answered == 18
    assert len(open_ledger_store(str(tmp_path / "out" / "answers")).list()) == 6
