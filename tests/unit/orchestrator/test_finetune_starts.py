"""Starting points of fine-tuning: rules that choose among the merges."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.config.finetune import Baseline
from orchestrator.config.search import Search
from orchestrator.core.errors import UserError
from orchestrator.results.board import Board
from orchestrator.stages.finetune_starts import check_starts, choose_starts
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


def test_names_are_checked_before_anything_is_evaluated() -> None:
    def check(
        *starts: object, search: Any = None, values: dict[str, tuple[float, float]] = VALUES, **more: Any
    ) -> None:
        found = board(values, *starts)
        assert found.config.finetune is not None
        finetune = found.config.finetune.model_copy(update=more)
        config = found.config.model_copy(update={"finetune": finetune, "search": search})
        check_starts(config, [row.recipe for row in found.rows])

    check("pa", "slerp x=s1", {"best": "medical"})
    with pytest.raises(UserError, match=r"finetune.starts\[1\]: 'pc' is no recipe of this sweep"):
        check("pa", "pc")
    with pytest.raises(UserError, match=r"finetune.starts\[0\] \(best in medical\): the sweep has no merges"):
        check({"best": "medical"}, values={"pa": (0.9, 0.9), "pb": (0.1, 0.1)})
    baseline = Baseline(start="pz", file="x.jsonl")
    with pytest.raises(UserError, match=r"finetune.baseline.start: 'pz' is no recipe"):
        check("pa", baseline=baseline)
    search = Search.model_validate(
        {"space": [{"method": "slerp", "t": {"low": 0.0, "high": 1.0}}], "budget": {"candidates": 9}}
    )
    check("slerp t=0.1234", "0123456789abcdef0123", search=search)
    with pytest.raises(UserError, match=r"'linear alpha=0.7' is no recipe"):
        check("linear alpha=0.7", search=search)
