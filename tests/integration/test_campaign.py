"""A short campaign (benchmarks/campaign.py): a node, a worker and, in the middle of a write, the driver are killed."""

from __future__ import annotations

from pathlib import Path

import ray

from benchmarks.campaign import campaign, write_demo


def test_whatever_is_killed_the_leaderboard_is_the_same_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    assert not ray.is_initialized(), "the campaign's drivers join a cluster of their own"
    results = campaign(write_demo(tmp_path, "fake"), tmp_path, 3, ("raylet", "ledger", "actor"), seed=1, nodes=2)
    assert [result.kind for result in results] == ["raylet", "ledger", "actor"]
    assert all(result.same for result in results)
    assert [result.twice for result in results] == [0, 0, 0]
    assert [result.commands for result in results] == [1, 2, 1], "only the driver's death needs the command again"
