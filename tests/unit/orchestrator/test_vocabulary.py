"""Parents have one vocabulary, or are refused with the way out; whose tokenizer is not served is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import load_config
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.models.resolve import resolve
from orchestrator.models.served_rows import other_tokenizers
from orchestrator.models.serving import make_profile, make_serving, served_sources, vocabularies
from orchestrator.models.tokenizer import read_tokenizer, tokenizer_files
from orchestrator.planning.plan import make_plan
from orchestrator.recipes.expand import expand
from orchestrator.results.layout import Layout
from orchestrator.results.manifest import Manifest, read_manifest, write_manifest
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
    "a renamed reserved token": (edit(rename), "only one of the two has '<|endoftext|>', '<|mine|>'"),
    "written differently": (replaced("normalizer", {"type": "Sequence", "normalizers": []}), ""),
    "in two files": (two_files, ""),
    "a token without a row": (beyond, ""),
    "adds a token": (replaced("post_processor", ADDS_A_TOKEN), "its own adds ['<|endoftext|>'] to a text"),
    "without a tokenizer": (without, "it has none of its own"),
}
SOURCES: dict[str, tuple[Make, dict[str, Any], str]] = {
    "no tokenizer": (
        without,
        {},
        "parents.b.model: has no tokenizer, and tokenizer_source matches rows by their tokens",
    ),
    "a token without a row": (
        beyond,
        {},
        "parents.b.model: its tokenizer has '[X]' with id 768, but its embedding 768",
    ),
    "no such parent": (
        two_files,
        {"tokenizer_source": "c"},
        "tokenizer_source: 'c' is not known; write one of union, base, a, b",
    ),
    "mergekit's word under the other key": (two_files, {"tokenizer": "union"}, "write tokenizer_source: union"),
    "more of mergekit's": (
        two_files,
        {"tokenizer": {"source": "union", "pad_to_multiple_of": 64}, "tokenizer_source": None},
        "tokenizer.pad_to_multiple_of: of mergekit's tokenizer only source is read here; write tokenizer_source: union",
    ),
}


@pytest.fixture
def opened(sweep: Callable[..., Path], parents: dict[str, Path], tmp_path: Path) -> Callable[..., SweepConfig]:
    """A sweep over the usual first parent and a changed second one."""

    def config(make: Make, **changes: Any) -> SweepConfig:
        folder = make(parents["b"], tmp_path / "changed")
        models = {"a": {"model": str(parents["a"])}, "b": {"model": str(folder)}}
        return load_config(sweep(**{"parents": models, "tokenizer": "a", **changes}))

    return config


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, opened: Callable[..., SweepConfig]) -> None:
    make, expected = REFUSED[name]
    with pytest.raises(UserError, match=r"^parents\.b\.model: ") as caught:
        resolve(opened(make))
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str, opened: Callable[..., SweepConfig]) -> None:
    make, expected = ACCEPTED[name]
    own = vocabularies(config := opened(make), resolve(config))
    found = dict(other_tokenizers(own, own["a"].files))
    assert set(found) == ({"b"} if expected else set())
    assert expected in found.get("b", "")


@pytest.mark.parametrize("name", SOURCES)
def test_a_tokenizer_source_that_cannot_be(name: str, opened: Callable[..., SweepConfig], tmp_path: Path) -> None:
    make, changes, expected = SOURCES[name]
    with pytest.raises(UserError) as caught:
        make_serving(config := opened(make, **{"tokenizer_source": "union", **changes}), resolve(config), tmp_path)
    assert expected in str(caught.value)


WRITTEN: dict[str, tuple[dict[str, Any], int, list[int]]] = {
    "union": ({"tokenizer_source": "union"}, 770, [768, 769]),
    "union in mergekit's other form": ({"tokenizer": {"source": "union"}}, 770, [768, 769]),
    "base": ({"tokenizer_source": "base"}, 768, []),
    "a parent": ({"tokenizer_source": "b"}, 770, [768, 769]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_recipe_has_the_rows_of_the_served_tokenizer(
    name: str, opened: Callable[..., SweepConfig], tmp_path: Path
) -> None:
    changes, tokens, missing = WRITTEN[name]
    config = opened(lambda source, folder: with_tokens(source, folder, ["[PAD]", "<|turn|>"]), **changes)
    serving = make_serving(config, files := resolve(config), tmp_path)
    served = read_tokenizer("served", tokenizer_files(Path(serving.folder)))
    assert len(served.tokens) == tokens
    sources = served_sources(config, files, serving)
    recipes = expand(config, sources)
    assert [recipe.missing for recipe in recipes if recipe.is_copy] == [missing, []]
    merge = next(recipe for recipe in recipes if not recipe.is_copy)
    assert merge.to_mergekit()["tokenizer_source"] == serving.folder
    plain = {each: replace(source, rows=None) for each, source in sources.items()}
    assert merge.id not in {recipe.id for recipe in expand(config, plain)}, "other weights, another recipe"
    manifest = Manifest(config, sources, serving, make_profile(config), {})
    write_manifest(layout := Layout(tmp_path), manifest)
    assert {**read_manifest(layout).sources} == {
        each: source if source.rows is None else replace(source, rows=replace(source.rows, folder=str(layout.serving / serving.tokenizer)))
        for each, source in sources.items()
    }  # fmt: skip


def test_a_tokenizer_built_twice_is_the_same(opened: Callable[..., SweepConfig], tmp_path: Path) -> None:
    config = opened(lambda source, folder: with_tokens(source, folder, ["[PAD]"]), tokenizer_source="union")
    ids = {make_serving(config, resolve(config), tmp_path / name).id for name in ("first", "second")}
    assert len(ids) == 1


def test_an_adapter_with_rows_or_a_tokenizer_of_its_own(
    sweep: Callable[..., Path], parents: dict[str, Path], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    def config(adapter: Path) -> SweepConfig:
        models = {"a": {"model": str(parents["a"])}, "b": {"model": str(parents["b"]), "lora": str(adapter)}}
        return load_config(sweep(parents=models, tokenizer="a"))

    model = AutoModelForCausalLM.from_pretrained(parents["b"])
    lora = LoraConfig(r=2, target_modules=["q_proj"])
    get_peft_model(model, lora).save_pretrained(tmp_path / "plain")
    for file in edit(reorder)(parents["b"], tmp_path / "other").glob("token*"):
        shutil.copy(file, tmp_path / "plain")
    with pytest.raises(UserError, match=r"parents\.b\.model: its tokenizer has other merges"):
        resolve(config(tmp_path / "plain"))
    model = AutoModelForCausalLM.from_pretrained(parents["b"])
    model.resize_token_embeddings(769)
    get_peft_model(model, lora).save_pretrained(tmp_path / "longer")
    with pytest.raises(UserError, match=r"parents\.b\.lora: .* has 769 rows in .*, but the model 768: it was trained"):
        resolve(config(tmp_path / "longer"))


def test_the_plan_counts_what_a_parent_would_read_otherwise(opened: Callable[..., SweepConfig]) -> None:
    config = opened(replaced("post_processor", ADDS_A_TOKEN))
    (note,) = make_plan(config).notes
    assert "b is served with another tokenizer than its own (its own adds ['<|endoftext|>'] to a text" in note
    assert ": 90 of 90 questions would be other tokens with its own" in note
    config = opened(lambda source, folder: edit(rename)(source, folder.with_name("renamed")))
    note = make_plan(config).notes[-1]
    assert ": 0 of 90 questions would be other tokens with its own, so it answers here as it does alone" in note


def test_the_plan_names_rows_that_are_left_out(opened: Callable[..., SweepConfig]) -> None:
    config = opened(lambda source, folder: with_tokens(source, folder, ["[PAD]"], 832), tokenizer_source="base")
    rows, other = make_plan(config).notes[-2:]
    assert rows.startswith("b has 64 rows that belong to no token of the served tokenizer; alone they would take some")
    assert other.endswith("(only one of the two has '[PAD]'): 0 of 90 questions would be other tokens with its own")
