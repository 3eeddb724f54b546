"""Results folders and Ray clusters that are none, or somebody else's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orchestrator.cli.main import main
from tests.helpers.results import state
from tests.helpers.sweeps import content


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("file", "--out {}/file: cannot be written (File exists)"),
        ("file/below", "--out {}/file/below: cannot be written (File exists)"),
        ("dangling/below", "--out {}/dangling/below: cannot be written"),
        ("itself", "--out {}/itself: cannot be written"),
        ("x" * 300, "cannot be written (File name too long)"),
        ("/proc/mergefront", "--out /proc/mergefront: cannot be written"),
        ("locked", "--out {}/locked: cannot be written (Is a directory)"),
    ],
)
def test_out(
    place: str, expected: str, tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "locked" / ".lock").mkdir(parents=True)
    refuses(expected.format(tmp_path), "run", write(content()), "--out", tmp_path / place)


def test_a_lock_that_is_a_link_costs_nobody_a_file(
    tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., str]
) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to("../precious")
    parents = {"a": {"model": "./gone"}, "b": {"model": "./too"}}
    refuses("gone does not exist", "run", write(content(parents=parents)), "--out", tmp_path / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read a folder")
def test_folders_of_somebody_else(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "sweep.yaml").write_text(
            yaml.safe_dump(content(parents={"a": {"model": f"{home}/shut"}, "b": {"model": f"{home}/shut/b"}}))
        )
        (home / "sweep.yaml").chmod(0o644)
        (home / "shut").mkdir(mode=0o700)
        before = state(home)
        os.seteuid(65534)
        try:
            assert main(["plan", f"{home}/sweep.yaml"]) == 2
            assert main(["run", f"{home}/sweep.yaml", "--out", f"{home}/shut/out"]) == 2
            assert main(["report", f"{home}/shut"]) == 2
        finally:
            os.seteuid(0)
        message = capsys.readouterr().err
        assert message.count("mergefront: error:") == 3 and message.count("Permission denied") == 3
        assert "Traceback" not in message
        assert state(home) == before


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ray://head:10001", "RAY_ADDRESS=ray://head:10001: a sweep's driver runs on a node of the cluster"),
        ("http://127.0.0.1:8265", "a sweep's driver runs on a node of the cluster; submit it there"),
        ("nonsense", "RAY_ADDRESS=nonsense: is no address"),
    ],
)
def test_ray_address(address: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    from cluster.session import find
    from orchestrator.core.errors import UserError

    with pytest.raises(UserError, match=expected.replace(".", r"\.")):
        find()
