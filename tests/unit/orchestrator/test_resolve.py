"""Parents are found in folders and in the hub's own cache layout, and are the same model in both."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config.load import load_config
from orchestrator.models.formats import weight_files
from orchestrator.models.resolve import architecture, resolve
from orchestrator.models.serving import make_serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def as_hub_cache(folder: Path, cache: Path, name: str) -> None:
    """Lay a model out as huggingface_hub's cache does: snapshots of links to blobs, large ones named by SHA-256."""
    home = cache / f"models--{name.replace('/', '--')}"
    for part in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (home / part).mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    for file in folder.iterdir():
        blob = home / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (home / "snapshots" / COMMIT / file.name).symlink_to(f"../../blobs/{blob.name}")


def test_a_hub_model_is_found_in_the_cache_and_is_the_folder_it_came_from(
    sweep: Callable[..., Path], parents: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    as_hub_cache(parents["b"], tmp_path / "hub", "org/instruct")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    here = load_config(sweep())
    there = load_config(
        sweep(parents={"a": {"model": str(parents["a"])}, "b": {"model": "org/instruct", "revision": "main"}})
    )
    for weights in (True, False):
        found, known = resolve(there, weights=weights)["b"], resolve(here)["b"]
        assert found.source.digest == known.source.digest
        assert found.parameters == known.parameters > 0
        assert found.source.reference == f"org/instruct@{COMMIT}", "a branch is pinned to its commit"


def test_a_digest_is_of_the_content(parents: dict[str, Path], sweep: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(parents["b"], tmp_path / "elsewhere")
    files = resolve(load_config(sweep(candidates={"c": {"model": str(tmp_path / "elsewhere")}})))
    assert files["c"].source.digest == files["b"].source.digest != files["a"].source.digest


def test_the_serving_takes_the_template_of_one_parent_and_the_stops_of_all(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    config = load_config(root / "examples" / "demo.yaml")
    serving = make_serving(config, resolve(config), tmp_path)
    assert serving.parent == "instruct"
    assert serving.chat_template is not None
    assert serving.stop_token_ids == (0, 2), "<|endoftext|> of the clinical parent, <|im_end|> of the instruct one"
    other = make_serving(config.model_copy(update={"tokenizer": "clinical"}), resolve(config), tmp_path)
    assert other.chat_template is None
    assert other.id != serving.id
    assert (Path(serving.folder) / "chat_template.jinja").exists()
    assert not (Path(other.folder) / "chat_template.jinja").exists(), "one tokenizer's files never join another's"


@pytest.mark.parametrize("file", sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml")), ids=str)
def test_every_example_is_a_sweep(file: Path) -> None:
    from orchestrator.core.errors import UserError

    try:
        load_config(file)
    except UserError as error:
        # The example's data lies outside the project; that it is missing is all that may be wrong.
        assert "data_root: the folder" in str(error)


def test_old_and_new_ways_of_writing_a_config_are_the_same_architecture(
    sweep: Callable[..., Path], parents: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "old"
    shutil.copytree(parents["b"], copy)
    config = json.loads((copy / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config.pop("head_dim")
    config.update(rope_theta=rope["rope_theta"], rope_scaling=None)
    (copy / "config.json").write_text(json.dumps(config))
    files = resolve(load_config(sweep(candidates={"old": {"model": str(copy)}})))
    assert architecture(files["old"]) == architecture(files["b"])


def test_a_second_copy_of_the_weights_in_the_folder_is_not_read(parents: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "twice"
    shutil.copytree(parents["b"], copy)
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    assert [file.name for file in weight_files(copy)] == ["model.safetensors"]
    (copy / "model.safetensors.index.json").write_text('{"weight_map": {"x": "consolidated.safetensors"}}')
    assert [file.name for file in weight_files(copy)] == ["consolidated.safetensors"]
