"""Ray's doors, and what a run leaves behind: one token, loopback, nothing for others to read, nothing secret, and a
cluster that was there before goes on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import yaml

from cluster.session import session
from tests.helpers.hostile import LAUGHS, folder_instead, put
from tests.helpers.paths import ROOT
from tests.helpers.sweeps import content, own_task

SECRETS = {"HF_TOKEN": "hf_" + "Secret0" * 5, "AWS_SECRET_ACCESS_KEY": "very/secret/key/0123456789"}
PATIENT = "Mrs Wintergreen"
"""Stands in every text of the data set."""


ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Else a driver takes 127.0.0.1 in an address for this machine's address in the network."""


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cluster as `mergefront run` starts one; gives its address."""
    with session(tmp_path_factory.mktemp("spill")):
        yield ray.get_runtime_context().gcs_address


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which is open to all in what it writes."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **ON_LOOPBACK, **environment},
        umask=0o022,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_ray_listens_on_loopback_alone() -> None:
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    names = {process.name() for process in family}
    assert {"raylet", "gcs_server"} <= names
    listening = [c.laddr for process in family for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening
    assert {address.ip.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1", "::1"}


def test_without_the_token_nobody_gets_in(cluster: str) -> None:
    code = "import ray; ray.init(log_to_driver=False); print('inside', len(ray.nodes()))"
    assert "inside 1" in python(code, RAY_ADDRESS=cluster, RAY_AUTH_MODE="token").stdout
    for wrong in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
        refused = python(code, RAY_ADDRESS=cluster, RAY_NUM_REDIS_GET_RETRIES="1", **wrong)
        assert refused.returncode != 0 and "inside" not in refused.stdout
        assert "InvalidAuthToken" in refused.stderr


def test_a_cluster_that_was_there_before_is_sent_our_code_and_goes_on(cluster: str) -> None:
    code = """
import os, ray
from cluster.session import session
from orchestrator.core.packages import PACKAGES
def told():
    import importlib
    from orchestrator.core.packages import check_packages
    check_packages()
    place = {os.path.dirname(os.path.dirname(importlib.import_module(name).__file__)) for name in PACKAGES}
    files = [os.path.join(at, name) for at, _, names in os.walk(place.pop()) for name in names]
    models = [name for name in files if name.endswith(".safetensors")]
    return files[0], sum(map(os.path.getsize, files)), models, os.umask(0)
with session():
    print(ray.get(ray.remote(told).remote()))
"""
    done = python(code, RAY_ADDRESS=cluster, RAY_AUTH_MODE="token")
    assert done.returncode == 0, done.stderr
    place, size, models, umask = eval(done.stdout)
    assert "working_dir_files" in place and not place.startswith(str(ROOT)), "the copy that was sent"
    assert size < 5e6 and models == []
    assert umask == 0o077
    assert [node["Alive"] for node in ray.nodes()] == [True]
    assert done.stderr == "", "it has a token, and nothing to say"


def test_a_cluster_that_cannot_be_joined_is_named() -> None:
    done = python("from cluster.session import session\nwith session(): pass", RAY_ADDRESS="127.0.0.1:1")
    assert "UserError: the Ray cluster at 127.0.0.1:1 (RAY_ADDRESS names it) cannot be joined" in done.stderr


# -------------------------------------------------------------------- what a run leaves
@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cluster: str) -> tuple[Path, str]:
    """A finished sweep over texts, written to a folder that was open, by somebody whose files are open to all; and what
    it said."""
    folder = tmp_path_factory.mktemp("finished")
    text = {"input": f"{PATIENT} coughs.", "reference": f"{PATIENT} has a cold."}
    (folder / "own.jsonl").write_text(json.dumps(text) + "\n")
    sweep = own_task(folder / "own.jsonl", "{{input}}")
    sweep["objectives"]["clinical"] = content()["objectives"]["clinical"]
    sweep["include_path"] = content()["include_path"]
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    (folder / "out").mkdir()
    (folder / "out").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "run", str(folder / "sweep.yaml"), "--out", str(folder / "out")],
        cwd=ROOT,
        env={**os.environ, **ON_LOOPBACK, **SECRETS, "RAY_ADDRESS": cluster, "RAY_AUTH_MODE": "token"},
        umask=0o022,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout + done.stderr


def test_only_the_owner_can_read_what_a_run_writes(finished: tuple[Path, str]) -> None:
    files = [finished[0], *finished[0].rglob("*")]
    assert len(files) > 20
    assert [f"{path} {path.lstat().st_mode:o}" for path in files if path.lstat().st_mode & 0o077] == []


def test_no_secret_and_no_text_of_a_patient_is_in_what_a_run_writes_and_says(finished: tuple[Path, str]) -> None:
    out, said = finished
    for secret in (*SECRETS.values(), PATIENT):
        assert secret not in said
        assert [path for path in out.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()] == []


def change(key: str, value: Any) -> Callable[[Path], None]:
    """Edit sweep.json: `a.b` is a key in a key."""

    def apply(out: Path) -> None:
        note = json.loads((out / "sweep.json").read_text())
        place, *rest = reversed(key.split("."))
        inner = note
        for part in reversed(rest):
            inner = inner[part]
        inner[place] = value
        (out / "sweep.json").write_text(json.dumps(note))

    return apply


def broken_failure(out: Path) -> None:
    (out / "failures").mkdir()
    put("failures/x.json", "[1]")(out)


RESULTS: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "no JSON": (put("sweep.json", "{"), ["report"], "sweep.json: cannot be read"),
    "nested deep": (put("sweep.json", "[" * 100_000), ["report"], "sweep.json: cannot be read"),
    "a folder": (folder_instead("sweep.json"), ["report"], "Is a directory"),
    "no object": (put("sweep.json", "[]"), ["report"], "sweep.json: cannot be read"),
    "wrong types": (change("config.seed", "x"), ["report"], "sweep.json: cannot be read"),
    "tokenizer that climbs": (change("serving.tokenizer", "../../../etc"), ["report"], "which is no folder in serving/"),
    "task files of a stranger": (change("config.include_path", ["/tmp"]), ["report"], "export MERGEFRONT_TRUST=/tmp"),
    "broken failure": (broken_failure, ["report"], "is damaged"),
    "published figures": (put("figures.yaml", LAUGHS), ["report", "--beside", "{}/figures.yaml"], "its aliases expand it to more"),
    "recipe that climbs": (lambda out: None, ["compare", "../../x", "clinical"], "'../../x' is no recipe of this sweep"),
    "promoted onto it": (lambda out: None, ["promote", "clinical", "--to", "{}"], "exists already"),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_results(name: str, finished: tuple[Path, str], tmp_path: Path, refuses: Callable[..., str]) -> None:
    spoil, (command, *options), expected = RESULTS[name]
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    spoil(out)
    refuses(expected, command, out, *(option.format(out) for option in options))
