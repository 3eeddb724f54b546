"""What a model's files may look like: merged as they are meant, with a note of what is left out, or refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.core.errors import UserError
from orchestrator.models.adapter import check_adapter, check_complete
from orchestrator.models.formats import read_json
from orchestrator.models.headers import Header, read_headers
from orchestrator.models.plain import left_out, plain_config
from orchestrator.models.tensors import architecture_of, check_tied, find_tensors
from tasks.merging.plain import write_plain
from tests.helpers.merges import stored
from tests.helpers.models import Models

Change = Callable[[Path], object]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
KEY = "model.layers.1.self_attn.k_proj.weight"


def tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    def apply(folder: Path) -> None:
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})

    return apply


def named(rename: Callable[[str], str]) -> Change:
    return tensors(lambda found: {rename(name): tensor for name, tensor in found.items()})


def shards(folder: Path, *, missing: int | None = None, twice: bool = False) -> None:
    """Two numbered files without an index; a tensor of the first may be in the second too, with other values."""
    found = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(found)
    for number, part in enumerate((names[::2], names[1::2]), 1):
        if number != missing:
            spoilt = {names[0]: found[names[0]] + 1} if twice and number == 2 else {}
            file = folder / f"model-{number:05d}-of-00002.safetensors"
            save_file({**{name: found[name] for name in part}, **spoilt}, file, {"format": "pt"})


def index(*names: str, file: str = WEIGHTS) -> Change:
    return lambda folder: (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, file)}))


def config(**changes: object) -> Change:
    def apply(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, **changes}))

    return apply


def both(*changes: Change) -> Change:
    def apply(folder: Path) -> None:
        for change in changes:
            change(folder)

    return apply


def one_numbered(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")


def hidden(folder: Path) -> None:
    shards(folder)
    (folder / "._model-00001-of-00002.safetensors").write_bytes(b"of a Mac")


def with_images(folder: Path) -> None:
    """As Gemma 3 and Mistral 3 are published: the text model's tensors and config below others."""
    settings = json.loads((folder / "config.json").read_text())
    text = {key: value for key, value in settings.items() if key not in ("architectures", "eos_token_id")}
    settings = {"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "text_config": text}
    (folder / "config.json").write_text(json.dumps({**settings, "eos_token_id": [0, 5], "vision_config": {}}))
    found = {f"language_model.{name}": tensor for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file({**found, "vision_tower.patch.weight": torch.zeros(2)}, folder / WEIGHTS, {"format": "pt"})


MERGED: dict[str, tuple[Change, str]] = {
    "one numbered file": (one_numbered, ""),
    "numbered files without an index": (shards, ""),
    "a hidden file of a Mac beside them": (hidden, ""),
    "an index that names one tensor": (index("model.embed_tokens.weight"), ""),
    "an index that names tensors of another model": (index("transformer.wte.weight"), ""),
    "a value head": (
        tensors(lambda found: {**found, "v_head.summary.weight": torch.zeros(1, 64)}),
        "not merged, for the architecture has no such tensors: v_head.summary.weight",
    ),
    "a classifier's head": (
        tensors(lambda found: {**found, "score.weight": torch.zeros(2, 64)}),
        "not merged, for the architecture has no such tensors: score.weight",
    ),
    "buffers of an old version": (
        tensors(lambda found: {**found, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(16)}),
        "",
    ),
    "names of a compiled model": (
        named(lambda name: f"_orig_mod.{name}"),
        "_orig_mod.lm_head.weight is read as lm_head.weight",
    ),
    "names of compiled layers": (
        named(lambda name: name.replace("layers.1.", "layers.1._orig_mod.")),
        "model.layers.1._orig_mod.",
    ),
    "names of an adapter's base": (named(lambda name: f"base_model.model.{name}"), "base_model.model."),
    "names of DDP": (named(lambda name: f"module.{name}"), "module."),
    "names without model.": (
        named(lambda name: name.removeprefix("model.")),
        "norm.weight is read as model.norm.weight",
    ),
    "names with model. twice": (named(lambda name: f"model.{name}"), "model.lm_head.weight is read"),
    "code that is not needed": (config(auto_map={"AutoModelForCausalLM": "modeling.LlamaForCausalLM"}), "auto_map"),
}


def notes(folder: Path) -> str:
    raw = read_json("a", folder / "config.json")
    headers = read_headers("a", folder)
    found = find_tensors("a", headers, plain_config("a", raw))
    check_tied("a", folder, headers, found)
    return "; ".join([*left_out(raw), *found.notes])


@pytest.mark.parametrize("name", MERGED)
def test_is_merged(name: str, models: Models, tmp_path: Path) -> None:
    change, note = MERGED[name]
    model, plain = tmp_path / "mo+del@home ä", tmp_path / "plain"
    shutil.copytree(models("llama", "bfloat16")["a"], model)
    change(model)
    plain.mkdir()
    said = notes(model)
    assert note in said and bool(note) == bool(said)
    write_plain("a", model, plain)
    expected = stored(models("llama", "bfloat16")["a"])
    found = stored(plain)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
    parts = [file.name for file in plain.glob("*.safetensors")]
    assert (plain / INDEX).exists() == (len(parts) > 1)
    if len(parts) > 1:
        assert set(read_json("a", plain / INDEX)["weight_map"]) == set(expected), "mergekit reads the index"
    assert "auto_map" not in read_json("a", plain / "config.json")


def test_the_text_part_of_a_model_with_images(models: Models, tmp_path: Path) -> None:
    model, plain = tmp_path / "model", tmp_path / "plain"
    shutil.copytree(models("mistral-whole", "bfloat16")["a"], model)
    expected = stored(model)
    with_images(model)
    plain.mkdir()
    assert notes(model) == (
        "the text part of Mistral3ForConditionalGeneration is merged and served, without images; the files name its "
        "tensors otherwise: language_model.lm_head.weight is read as lm_head.weight; not merged, for the architecture "
        "has no such tensors: vision_tower.patch.weight"
    )
    write_plain("a", model, plain)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in stored(plain).items())
    settings = read_json("a", plain / "config.json")
    assert (settings["architectures"], settings["eos_token_id"]) == (["MistralForCausalLM"], [0, 5])


REFUSED: dict[str, tuple[Change, str]] = {
    "a part that is missing": (lambda f: shards(f, missing=2), "has no model-00002-of-00002.safetensors: a part is"),
    "an index that names a file that is missing": (
        index("x", file="gone.safetensors"),
        "gone.safetensors, which is not",
    ),
    "a tensor in two files": (lambda f: shards(f, twice=True), "have different tensors lm_head.weight"),
    "files of two models": (
        both(
            shards,
            lambda f: shutil.copy(f / "model-00001-of-00002.safetensors", f / "model-00001-of-00003.safetensors"),
        ),
        "has files of several models",
    ),
    "an index for some of the files": (
        both(shards, index("x", file="model-00001-of-00002.safetensors")),
        "of LlamaForCausalLM not in model-00001-of-00002.safetensors",
    ),
    "a tensor that is missing": (
        tensors(lambda found: {name: tensor for name, tensor in found.items() if name != KEY}),
        f"{KEY} of LlamaForCausalLM not in model.safetensors",
    ),
    "a head that is missing": (
        both(tensors(lambda found: {n: t for n, t in found.items() if n != "lm_head.weight"})),
        "lm_head.weight of LlamaForCausalLM not in",
    ),
    "another shape": (
        tensors(lambda found: {**found, KEY: found[KEY][:-1].contiguous()}),
        f"{KEY} has shape [31, 64], but [32, 64] by config.json",
    ),
    "another number of tokens": (config(vocab_size=700), "has shape [768, 64], but [700, 64] by config.json"),
    "weights in 8 bits": (
        tensors(lambda found: {**found, KEY: found[KEY].to(torch.float8_e4m3fn)}),
        f"{KEY} is stored as F8_E4M3: the weights are quantised",
    ),
    "a scale": (
        tensors(lambda found: {**found, KEY + "_scale_inv": torch.ones(1)}),
        f"the weights have {KEY}_scale_inv, but LlamaForCausalLM with this config.json has not",
    ),
    "a bias that the config denies": (
        tensors(lambda found: {**found, "model.layers.0.mlp.up_proj.bias": torch.ones(96)}),
        "the weights have model.layers.0.mlp.up_proj.bias, but",
    ),
    "more layers than the config": (config(num_hidden_layers=1), "the weights have model.layers.1."),
    "a million layers": (config(num_hidden_layers=10**6), "num_hidden_layers 1000000, but the files have 21 tensors"),
    "a tensor that mergekit leaves out": (config(attention_bias=True), "but not in mergekit's definition of it"),
    "a trained head where the config ties it": (config(tie_word_embeddings=True), "differs from model.embed_tokens"),
    "code that is needed": (
        config(auto_map={"AutoModelForCausalLM": "modeling.Own"}, architectures=["OwnForCausalLM"]),
        "needs custom code",
    ),
    "an architecture of another": (
        config(architectures=["Qwen2ForCausalLM"]),
        "but model_type 'llama' is LlamaForCausalLM",
    ),
    "an architecture of nobody": (
        config(model_type="own"),
        "transformers makes no causal language model of config.json",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused(name: str, models: Models, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    model = tmp_path / "model"
    shutil.copytree(models("llama", "bfloat16")["a"], model)
    change(model)
    with pytest.raises(UserError) as error:
        notes(model)
    assert message in str(error.value)
    assert str(error.value).startswith("a: ")


@pytest.mark.parametrize(
    ("module", "shapes", "message"),
    [
        ("model.layers.0.self_attn.q_proj", ((4, 64), (64, 4)), None),
        ("model.layers.1.mlp.down_proj", ((4, 96), (64, 4)), None),
        ("lm_head", ((4, 64), (768, 4)), None),
        (
            "model.layers.0.self_attn.q_proj",
            ((4, 128), (128, 4)),
            "has shape [4, 128], but model.layers.0.self_attn.q_",
        ),
        ("model.layers.2.self_attn.q_proj", ((4, 64), (64, 4)), "has no model.layers.2.self_attn.q_proj"),
        ("model.language_model.layers.0.self_attn.q_proj", ((4, 64), (64, 4)), "it was trained on another model"),
    ],
)
def test_an_adapter_is_of_this_model(
    module: str, shapes: tuple[tuple[int, ...], ...], message: str | None, models: Models
) -> None:
    architecture = architecture_of("a", read_json("a", models("llama", "bfloat16")["a"] / "config.json"), 100)
    headers = {
        f"base_model.model.{module}.lora_{part}.weight": Header("adapter_model.safetensors", shape, "F32")
        for part, shape in zip("AB", shapes, strict=True)
    }
    if message is None:
        check_adapter("parents.a.lora", headers, architecture)
    else:
        with pytest.raises(UserError, match=re.escape(message)):
            check_adapter("parents.a.lora", headers, architecture)


def test_an_adapter_in_8_bits(models: Models) -> None:
    architecture = architecture_of("a", read_json("a", models("llama", "bfloat16")["a"] / "config.json"), 100)
    headers = {"base_model.model.lm_head.lora_A.weight": Header("adapter_model.safetensors", (4, 64), "I8")}
    with pytest.raises(UserError, match="is stored as I8: the adapter is quantised"):
        check_adapter("parents.a.lora", headers, architecture)


Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
UNFIT: dict[str, tuple[dict[str, object], Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], bool, str]] = {
    "as saved": ({}, dict, False, ""),
    "as saved, over a tied head": ({}, dict, True, ""),
    "of fewer modules by its settings": ({"target_modules": ["k_proj"]}, dict, False, "k_proj.lora_A.weight: adapter_model.safetensors has no such tensor"),
    "of another rank": ({"r": 8}, dict, False, f"{Q_PROJ}: adapter_model.safetensors has shape [4, 64], but by adapter_config.json there is shape [8, 64]"),
    "without a tensor": ({}, lambda found: {name: found[name] for name in sorted(found)[1:]}, False, f"{Q_PROJ}: adapter_model.safetensors has no such"),
    "with names of another form": ({}, lambda found: {n.replace("lora_A", "lora_A.default"): t for n, t in found.items()}, False, f"{Q_PROJ}: "),
    "with tensors that its settings do not name": ({"layers_to_transform": [0]}, dict, False, "layers.1.self_attn.q_proj.lora_A.weight: adapter_model.safetensors has shape [4, 64], but by"),
    "that changes prompts": ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4}, dict, False, "peft makes no adapter that can be merged of adapter_config.json"),
    "with a head of its own": ({"modules_to_save": ["lm_head"]}, lambda found: {**found, "base_model.model.lm_head.weight": torch.zeros(768, 64)}, True, "trains base_model.model.lm_head.weight, after which LlamaForCausalLM's head and embedding are no longer one"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_an_adapter_has_the_tensors_that_its_settings_make(name: str, models: Models, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings, change, tied, message = UNFIT[name]
    folder = models("llama", "bfloat16")["a"]
    lora = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**written, **settings}))
    save_file(change(load_file(tmp_path / "adapter_model.safetensors")), tmp_path / "adapter_model.safetensors")
    plain = {**read_json("a", folder / "config.json"), "tie_word_embeddings": tied}
    if message:
        with pytest.raises(UserError, match=re.escape(message)):
            check_complete("parents.a.lora", tmp_path, plain, architecture_of("a", plain, 100))
    else:
        check_complete("parents.a.lora", tmp_path, plain, architecture_of("a", plain, 100))
