"""A parent comes to a node once, from wherever it lies, and is there what the driver saw, or is refused."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import load_config
from orchestrator.config.models import Parent
from orchestrator.core.errors import UserError
from orchestrator.core.store import StorageError, Store
from orchestrator.models.fetch import bring, fetch
from orchestrator.models.resolve import open_model
from orchestrator.recipes.recipe import Source
from tests.helpers.paths import ROOT


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node of its own: nothing was fetched there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    return tmp_path / "node"


@pytest.fixture
def uploaded(bucket: Any, parents: dict[str, Path], request: pytest.FixtureRequest) -> str:
    """The address of parent `b` in a bucket."""
    address = str(bucket(f"models/{request.node.name}"))
    store = Store(address)
    for file in parents["b"].iterdir():
        store.write(file.name, file.read_bytes())
    store.write("pytorch_model.bin", b"never read")
    store.write("checkpoint-1/model.safetensors", b"of another model")
    return address


def source_of(model: str) -> Source:
    return open_model("parents", "b", Parent(model=model)).source


def test_a_model_in_object_storage_is_the_folder_it_came_from(
    uploaded: str, parents: dict[str, Path], node: Path
) -> None:
    there, here = source_of(uploaded), source_of(str(parents["b"]))
    assert (there.digest, there.files, there.id) == (here.digest, here.files, here.id)
    (copy,) = (path for path in (node / "mergefront" / "models").iterdir() if path.is_dir())
    assert {file.name for file in copy.iterdir()} <= {file.name for file in parents["b"].iterdir()}
    assert "+" not in str(copy) and "@" not in str(copy), "mergekit would read them as adapter and revision"


def test_two_workers_of_a_node_download_once(uploaded: str, bucket: Any, node: Path) -> None:
    script = (
        "import sys; from orchestrator.models.fetch import bring; from orchestrator.recipes.recipe import Source\n"
        "bring({'parents.b': Source(*eval(sys.argv[1]))})"
    )
    source = source_of(uploaded)
    shutil.rmtree(node)
    before = downloads(bucket)
    told = repr(tuple(getattr(source, field.name) for field in dataclasses.fields(source)))
    started = [
        subprocess.Popen([sys.executable, "-c", script, told], cwd=ROOT, env={**os.environ, "PYTHONPATH": "."})
        for _ in range(2)
    ]
    assert [worker.wait() for worker in started] == [0, 0]
    assert downloads(bucket) - before == 1


def downloads(bucket: Any) -> int:
    return sum(
        '"GET /bucket/models/' in line and "/model.safetensors" in line for line in bucket.log.read_text().splitlines()
    )


def test_a_download_that_was_killed_is_made_anew(uploaded: str, node: Path) -> None:
    folder, _ = fetch("parents.b.model", uploaded, None, True)
    partial = folder.with_name(f".{folder.name}.partial")
    folder.rename(partial)
    (partial / "model.safetensors").write_bytes(b"half")
    assert fetch("parents.b.model", uploaded, None, True)[0] == folder
    bring({"parents.b": source_of(uploaded)})


def test_a_copy_that_was_damaged_is_refused_by_the_driver_too(uploaded: str, node: Path) -> None:
    folder, _ = fetch("parents.b.model", uploaded, None, True)
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(
        UserError, match=rf"parents\.b\.model: {file}: expected SHA-256 .* delete {folder} to fetch it again"
    ):
        source_of(uploaded)
    shutil.rmtree(folder)
    bring({"parents.b": source_of(uploaded)})


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-10]),
    "altered": lambda file: file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1])),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_parent_that_is_not_the_drivers_is_never_served(
    parents: dict[str, Path], tmp_path: Path, node: Path, damage: str
) -> None:
    folder = tmp_path / "b"
    shutil.copytree(parents["b"], folder)
    source = source_of(str(folder))
    bring({"parents.b": source})
    file = folder / "model.safetensors"
    DAMAGE[damage](file)
    with pytest.raises(UserError) as caught:
        bring({"parents.b": source})
    expected = dict(source.files)["model.safetensors"]
    for said in ("parents.b:", str(file), f"expected SHA-256 {expected}, found", "fetch it again"):
        assert said in str(caught.value)


def test_a_damaged_blob_of_the_hubs_cache_is_found(parents: dict[str, Path], tmp_path: Path, node: Path) -> None:
    """Its name is its hash, and the driver believes it; workers look."""
    import hashlib

    home = tmp_path / "models--org--b"
    folder, blobs = home / "snapshots" / "c0ffee", home / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    for file in parents["b"].iterdir():
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (folder / file.name).symlink_to(blob)
    blob = (folder / "model.safetensors").resolve()
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(UserError, match=r"parents\.b: .*model\.safetensors: expected SHA-256"):
        bring({"parents.b": source_of(str(folder))})


def test_what_is_wrong_with_an_address_is_said(bucket: Any, node: Path, sweep: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"parents\.b\.model: .* has no file of a model"):
        source_of(bucket("models/nothing"))
    with pytest.raises(UserError, match="revision 'main' is for hub ids"):
        fetch("parents.b.model", bucket("models/x"), "main", True)
    with pytest.raises(StorageError, match=r"parents\.b\.model: .* there is no bucket 'other'"):
        source_of(bucket("models/x").replace("bucket/", "other/"))
    for model, said in (
        ("ftp://host/model", "parents.b.model: ftp:// is not supported; give a folder, or an address with s3://"),
        ("s3://key:secret@bucket/model", "parents.b.model: contains a password in a URL"),
        ("s3:///model", "parents.b.model: 's3:///model' is not an address"),
    ):
        with pytest.raises(UserError) as caught:
            load_config(sweep(parents={"a": {"model": "x"}, "b": {"model": model}}))
        assert said in str(caught.value) and "key:secret" not in str(caught.value)
