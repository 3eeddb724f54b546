"""Parents are found in folders and in the hub's own cache layout, and are the same model in both."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import load_config
from orchestrator.core.errors import UserError
from orchestrator.models.architecture import architecture
from orchestrator.models.headers import weight_files
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_serving
from tests.helpers.commands import refused
from tests.helpers.paths import EXAMPLES

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


def test_configs_are_compared_before_weights_are_fetched(
    sweep: Callable[..., Path], parents: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    copy = Path(shutil.copytree(parents["b"], tmp_path / "described"))
    (copy / "model.safetensors").unlink()  # nothing here can be fetched, so a fetch would be the error
    edit("config.json", lambda c: c.update(rms_norm_eps=0.1))(copy)
    as_hub_cache(copy, tmp_path / "hub", "org/instruct")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    there = {"model": "org/instruct", "revision": "main"}
    config = load_config(sweep(candidates={"c": there}))
    for weights in (True, False):
        with pytest.raises(UserError, match=r"candidates\.c\.model: rms_norm_eps is 0\.1, but 1e-06 in parents\.a"):
            resolve(config, weights=weights)


def test_a_digest_is_of_the_content(parents: dict[str, Path], sweep: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(parents["b"], tmp_path / "elsewhere")
    files = resolve(load_config(sweep(candidates={"c": {"model": str(tmp_path / "elsewhere")}})))
    assert files["c"].source.digest == files["b"].source.digest != files["a"].source.digest


def test_the_serving_takes_the_template_of_one_parent_and_the_stops_of_all(tmp_path: Path) -> None:
    config = load_config(EXAMPLES / "demo.yaml")
    serving = make_serving(config, resolve(config), tmp_path)
    assert serving.parent == "instruct"
    assert serving.chat_template is not None
    assert serving.stop_token_ids == (0, 2), "<|endoftext|> of the clinical parent, <|im_end|> of the instruct one"
    other = make_serving(config.model_copy(update={"tokenizer": "clinical"}), resolve(config), tmp_path)
    assert other.chat_template is None
    assert other.id != serving.id
    assert (Path(serving.folder) / "chat_template.jinja").exists()
    assert not (Path(other.folder) / "chat_template.jinja").exists(), "one tokenizer's files never join another's"


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
    assert architecture(files["old"].config) == architecture(files["b"].config)


def test_a_second_copy_of_the_weights_in_the_folder_is_not_read(parents: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "twice"
    shutil.copytree(parents["b"], copy)
    shutil.copy(copy / "model.safetensors", copy / "consolidated.safetensors")
    assert weight_files(copy) == ["model.safetensors"]
    (copy / "model.safetensors.index.json").write_text('{"weight_map": {"x": "consolidated.safetensors"}}')
    with pytest.raises(ValueError, match="some programs read the one, some the other"):
        weight_files(copy)
    (copy / "model.safetensors").unlink()
    assert weight_files(copy) == ["consolidated.safetensors"]


@pytest.fixture
def second(parents: dict[str, Path], tmp_path: Path) -> Callable[[Callable[[Path], None]], dict[str, Any]]:
    """The sweep's parents with a spoilt copy of the second."""

    def spoil(change: Callable[[Path], None]) -> dict[str, Any]:
        folder = tmp_path / "spoilt"
        shutil.copytree(parents["b"], folder)
        change(folder)
        return {"a": {"model": str(parents["a"])}, "b": {"model": str(folder)}}

    return spoil


def edit(file: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return apply


def cut_short(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.truncate((folder / "model.safetensors").stat().st_size - 100)


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def renumber(tokenizer: dict[str, Any]) -> None:
    tokens = list(tokenizer["model"]["vocab"])[-2:]
    ids = tokenizer["model"]["vocab"]
    ids[tokens[0]], ids[tokens[1]] = ids[tokens[1]], ids[tokens[0]]


SPOILT = {
    "other architecture": (
        edit("config.json", lambda c: c.update(architectures=["Qwen2ForCausalLM"])),
        "parents.b.model: architectures is ['Qwen2ForCausalLM'], but ['LlamaForCausalLM'] in parents.a",
    ),
    "other size": (
        edit("config.json", lambda c: c.update(hidden_size=128)),
        "parents.b.model: hidden_size is 128, but 64 in parents.a; merging needs parents of one architecture",
    ),
    "other vocabulary size": (
        edit("config.json", lambda c: c.update(vocab_size=7)),
        "parents.b.model: vocab_size is 7, but",
    ),
    "other vocabulary": (
        edit("tokenizer.json", renumber),
        "parents.b.model: its tokenizer's vocabulary differs from that of parents.a",
    ),
    "other RoPE": (
        edit("config.json", lambda c: c["rope_parameters"].update(rope_theta=500_000.0)),
        "parents.b.model: rope_parameters.rope_theta is 500000.0, but 10000.0 in parents.a",
    ),
    "no safetensors": (as_pickle, "has no *.safetensors file; only safetensors are read"),
    "cut off weights": (cut_short, "model.safetensors is damaged or cut off"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json does not exist; give a folder as"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_parent(name: str, second: Any, sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    change, expected = SPOILT[name]
    refused(sweep(parents=second(change)), capsys, expected)


def test_missing_parent(
    sweep: Callable[..., Path], parents: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    here = {"model": str(parents["a"])}
    refused(sweep(parents={"a": here}), capsys, "parents: ")
    refused(sweep(parents={"a": here, "b": {"model": "./gone"}}), capsys, "gone does not exist; correct the path")
    refused(
        sweep(parents={"a": here, "b": {"model": str(parents["b"]), "revision": "main"}}),
        capsys,
        "is a folder, and revision 'main' is for hub ids; remove it",
    )
    refused(
        sweep(parents={"a": here, "b": {"model": "some-org/not-there"}}),
        capsys,
        "parents.b.model: 'some-org/not-there' is no folder here, and the hub does not give it",
    )
    refused(
        sweep(parents={"a": here, "b": {"model": str(parents["b"]), "lora": "./gone"}}),
        capsys,
        "parents.b.lora: the folder",
    )


def test_slices_cover_whole_models(sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    def pasted(layers: int) -> Path:
        sources = [{"model": name, "layer_range": [0, layers]} for name in "ab"]
        entry = {"merge_method": "slerp", "base_model": "a", "slices": [{"sources": sources}], "parameters": {"t": 0.5}}
        return sweep(recipes=[entry])

    there = resolve(load_config(sweep()))["a"].config["num_hidden_layers"]
    refused(pasted(there + 1), capsys, f"recipes[0].slices: has layers 0 to {there + 1}, but the parents have {there}")
    config = load_config(pasted(there))
    resolve(config)
    assert set(config.recipes[0].models or {}) == {"a", "b"}


def test_a_filter_is_part_of_a_tensors_name(sweep: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    def filtered(*names: str) -> Path:
        filters = [*({"filter": name, "value": 0.3} for name in names), {"value": 0.5}]
        linear = {"method": "linear", "models": {"a": {"weight": 1}, "b": {"weight": {"grid": [0.5, filters]}}}}
        return sweep(recipes=[{"method": "slerp", "t": filters}, linear])

    refused(
        filtered("self_atn"), capsys, "recipes[0].t: no tensor's name contains 'self_atn'; did you mean 'self_attn'?"
    )
    resolve(load_config(filtered("self_attn", "layers.0.mlp", "lm_head")))
