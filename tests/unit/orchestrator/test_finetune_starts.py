"""Starting points of fine-tuning: rules that choose among the merges."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import UserError
from orchestrator.results.board import Board
from orchestrator.stages.finetune_starts import choose_starts
from tests.helpers.boards import VALUES, board


def chosen(found: Board) -> list[str]:
    return [
        start.label.removeprefix("slerp x=").removeprefix("linear x=")
        for start in choose_starts(found.config, found, None)
    ]


def test_rules_choose_among_the_merges() -> None:
    assert chosen(board(VALUES, {"best": "medical"})) == ["s1"]
    assert chosen(board(VALUES, {"best": "loss"})) == ["l2"], "less is better there"
    assert chosen(board(VALUES, {"best": "medical", "per": "method"})) == ["s1", "l1"]
    assert chosen(board(VALUES, {"best": "medical", "floor": {"loss": 0.5}})) == ["s2"]
    assert chosen(board(VALUES, {"nearest": "ideal"})) == ["s2"]
    assert chosen(board(VALUES, "pb", {"best": "medical"}, {"nearest": "ideal"}, {"best": "medical"})) == [
        "pb",
        "s1",
        "s2",
    ]


def test_a_rule_that_nothing_meets_and_a_name_that_is_none_are_refused() -> None:
    with pytest.raises(UserError, match="none of the 4 scored merges meets it"):
        chosen(board(VALUES, {"best": "medical", "floor": {"medical": 0.95}}))
    with pytest.raises(UserError, match=r"finetune.starts\[1\]: 'px' is no recipe"):
        chosen(board(VALUES, "pa", "px"))
