"""Parents have one vocabulary, or are refused with the way out; whose tokenizer is not served is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import load_config
from orchestrator.core.errors import UserError
from orchestrator.core.records import Serving
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_serving
from tests.helpers.vocabularies import changed, with_tokens

Content = dict[str, Any]
Make = Callable[[Path, Path], Path]
"""From a parent to a changed copy of it in another folder."""


def edit(change: Callable[[Content], None]) -> Make:
    return lambda source, folder: changed(source, folder, change)


def rename(content: Content) -> None:
    """Rename the first added token, which stands in the vocabulary too."""
    token = content["added_tokens"][0]
    if token["content"] in content["model"]["vocab"]:
        content["model"]["vocab"]["<|mine|>"] = content["model"]["vocab"].pop(token["content"])
    token["content"] = "<|mine|>"


def swap_added(content: Content) -> None:
    first, second = content["added_tokens"][:2]
    first["content"], second["content"] = second["content"], first["content"]
    vocabulary = content["model"]["vocab"]
    vocabulary[first["content"]], vocabulary[second["content"]] = first["id"], second["id"]


def swap(content: Content) -> None:
    vocabulary = content["model"]["vocab"]
    a, b = [token for token in vocabulary if len(token) == 1][:2]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]


def reorder(content: Content) -> None:
    content["model"]["merges"][:2] = content["model"]["merges"][1::-1]


def replaced(key: str, value: Any) -> Make:
    return edit(lambda content: content.update({key: value}))


def two_files(source: Path, folder: Path, reordered: bool = False) -> Path:
    """A tokenizer in the older form: vocab.json and merges.txt."""
    shutil.copytree(source, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    if reordered:
        reorder(content)
    (folder / "tokenizer.json").unlink()
    added = {token["content"]: token["id"] for token in content["added_tokens"]}
    (folder / "vocab.json").write_text(json.dumps({**content["model"]["vocab"], **added}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, content["model"]["merges"])))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "GPT2Tokenizer"}))
    return folder


def without(source: Path, folder: Path) -> Path:
    return Path(shutil.copytree(source, folder, ignore=shutil.ignore_patterns("token*")))


def beyond(source: Path, folder: Path) -> Path:
    """A token was added to the tokenizer, and no row to the embedding."""
    return edit(
        lambda content: content["added_tokens"].append({**content["added_tokens"][0], "id": 768, "content": "[X]"})
    )(source, folder)


ADDS_A_TOKEN = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
}
REFUSED: dict[str, tuple[Make, str]] = {
    "rows swapped": (edit(swap), "its tokenizer's vocabulary differs from that of parents.a (token "),
    "added tokens swapped": (edit(swap_added), "its tokenizer's vocabulary differs from that of parents.a (token "),
    "other merges": (edit(reorder), "its tokenizer has other merges (from number 0 on, "),
    "a normalizer": (replaced("normalizer", {"type": "Lowercase"}), "its tokenizer cuts 'A 63-year-old man"),
    "a pre-tokenizer": (
        replaced("pre_tokenizer", {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]}),
        "(its normalizer or pre_tokenizer differs)",
    ),
    "other merges in a file": (lambda a, b: two_files(a, b, True), "its tokenizer has other merges"),
    "a token more": (
        lambda source, folder: with_tokens(source, folder, ["[PAD]"]),
        "vocab_size is 769, but 768 in parents.a; '[PAD]' is only here; tokenizer_source: union in the sweep file gives",
    ),
    "padded": (
        lambda source, folder: with_tokens(source, folder, [], 832),
        "vocab_size is 832, but 768 in parents.a, for the same 768 tokens: the others are padding; tokenizer_source: ",
    ),
    "not a tokenizer": (lambda a, b: edit(lambda c: c.update(model={}))(a, b), "its tokenizer cannot be loaded ("),
}  # fmt: skip
ACCEPTED: dict[str, tuple[Make, str]] = {
    "the same": (lambda source, folder: Path(shutil.copytree(source, folder)), ""),
    "a renamed reserved token": (edit(rename), "only one of the two has '<|endoftext|>', '<|mine|>', and texts with"),
    "written differently": (replaced("normalizer", {"type": "Sequence", "normalizers": []}), ""),
    "in two files": (two_files, ""),
    "a token without a row": (beyond, ""),
    "adds a token": (replaced("post_processor", ADDS_A_TOKEN), "b alone does not answer every text as with its own tokenizer: its own adds ['<|endoftext|>'] to a text"),
    "without a tokenizer": (without, "b has no tokenizer of its own: it is taken for the served one"),
}  # fmt: skip


@pytest.fixture
def served(sweep: Callable[..., Path], parents: dict[str, Path], tmp_path: Path) -> Callable[..., Serving]:
    def serve(make: Make, **changes: Any) -> Serving:
        folder = make(parents["b"], tmp_path / "changed")
        models = {"a": {"model": str(parents["a"])}, "b": {"model": str(folder)}}
        config = load_config(sweep(**{"parents": models, "tokenizer": "a", **changes}))
        return make_serving(config, resolve(config), tmp_path / "serving")

    return serve


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, served: Callable[..., Serving]) -> None:
    make, expected = REFUSED[name]
    with pytest.raises(UserError, match=r"^parents\.b\.model: ") as caught:
        served(make)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str, served: Callable[..., Serving]) -> None:
    make, expected = ACCEPTED[name]
    notes = [note for note in served(make).notes if "eos_token" not in note]  # test_stop_ids.py
    assert len(notes) == bool(expected)
    assert expected in "".join(notes)
