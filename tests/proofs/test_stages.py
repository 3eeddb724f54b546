"""Engines of several ranks in a Ray cluster of two nodes, from `mergefront run`: each on one node, and one over both."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tests.helpers.paths import EXAMPLES, ROOT

RANKS: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "one": ({"count": 1, "cpus": 1}, {}),
    "two ranks on each node": ({"cpus": 1}, {"tensor_parallel_size": 2}),
    "a stage on each node": ({"cpus": 2}, {"pipeline_parallel_size": 2}),
}
"""Name → workers, where a node has two cores, and the engine's cut."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes of two cores; gives their address."""
    import ray
    from ray.cluster_utils import Cluster

    each = {"num_cpus": 2, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=each)
    nodes.add_node(**each)
    nodes.wait_for_nodes()
    yield nodes.address
    ray.shutdown()
    nodes.shutdown()


def run(out: Path, address: str, workers: dict[str, int], engine: dict[str, int]) -> dict[str, dict[str, Any]]:
    """The leaderboard, by recipe, of the demo with four recipes and 24 documents of each task."""
    sweep = yaml.safe_load((EXAMPLES / "demo.yaml").read_text())
    sweep["parents"] = {name: {"model": str(ROOT / "tasks" / "demo" / "parents" / name)} for name in sweep["parents"]}
    sweep["include_path"] = [str(ROOT / "tasks" / "demo" / "lm_eval")]
    sweep["recipes"] = [{"method": "linear", "alpha": [0, 0.5, 1]}, {"method": "slerp", "t": [0.3]}]
    for objective in sweep["objectives"].values():
        objective["limit"] = 24
    sweep["workers"] = {**workers, "block": 32, "engine": {**sweep["workers"]["engine"], **engine}}
    out.mkdir()
    path = out / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep))
    subprocess.run(
        [sys.executable, "-m", "orchestrator", "run", str(path), "--out", str(out / "results")],
        cwd=ROOT, env={**os.environ, "RAY_ADDRESS": address}, check=True, timeout=1500,
    )  # fmt: skip
    rows = pq.read_table(out / "results" / "leaderboard.parquet").to_pylist()
    return {row["recipe_id"]: row for row in rows}


@pytest.mark.prove
@pytest.mark.timeout(5000)
def test_engines_of_several_ranks_score_as_one_rank_does(cluster: str, tmp_path: Path) -> None:
    boards = {name: run(tmp_path / name.replace(" ", "-"), cluster, *ranks) for name, ranks in RANKS.items()}
    for name, board in boards.items():
        assert board.keys() == boards["one"].keys() and len(board) == 4, name
        for recipe_id, row in board.items():
            assert row["status"] == "scored", name
            for objective in ("clinical", "instruction"):
                print(name, row["method"], objective, row[objective])
                assert row[objective] == pytest.approx(boards["one"][recipe_id][objective], abs=1 / 24), name
