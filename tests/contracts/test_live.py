"""Live merging is mergekit: the same bytes as its checkpoint, and an engine that holds and answers the same."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.config.methods import METHODS
from orchestrator.core.errors import UserError
from orchestrator.recipes.recipe import Recipe, Source
from tasks.merging.checkpoint import MergeRefused, materialise
from tasks.merging.lazy import PIECE, Merged, Tally
from tasks.merging.live import Merger, materialise_random
from tasks.merging.plain import write_plain
from tasks.serving.engine import InvalidWeights
from tasks.serving.vllm_engine import VllmEngine
from tests.helpers.merges import ARCHITECTURES, DETERMINED, QUESTIONS, WAYS, live, recipe, stored
from tests.helpers.models import Models
from tests.helpers.quantised import dequantised, quantise


def test_every_method_is_tried() -> None:
    assert {way.split(",")[0] for way in WAYS} == set(METHODS)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("way", DETERMINED)
def test_the_bytes_are_mergekits(way: str, dtype: str, models: Models, tmp_path: Path) -> None:
    wanted = recipe(way, models("llama", dtype), dtype)
    expected = stored(materialise(wanted, tmp_path / "checkpoint", tmp_path))
    merged = live(wanted, tmp_path)
    assert set(merged) == set(expected)
    for name, tensor in merged.items():
        assert tensor.dtype == expected[name].dtype, name
        # Bytes, and not values: zeros have a sign.
        assert torch.equal(tensor.view(torch.uint8), expected[name].view(torch.uint8)), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    "way", ["linear", "slerp", "nuslerp", "task_arithmetic, five of them", "ties", "breadcrumbs_ties", "ram"]
)
def test_tensors_of_several_pieces(way: str, dtype: str, models: Models, tmp_path: Path) -> None:
    folders = models("llama-wide", dtype)
    wanted = recipe(way, folders, dtype)
    expected = stored(materialise(wanted, tmp_path / "checkpoint", tmp_path))
    assert max(tensor.numel() for tensor in expected.values()) > 3 * PIECE["cpu"]
    merged = live(wanted, tmp_path)
    for name, tensor in merged.items():
        assert torch.equal(tensor.view(torch.uint8), expected[name].view(torch.uint8)), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("way", ["linear", "slerp", "task_arithmetic"])
def test_of_every_architecture(way: str, architecture: str, models: Models, tmp_path: Path) -> None:
    wanted = recipe(way, models(architecture, "bfloat16"), "bfloat16")
    expected = stored(materialise(wanted, tmp_path / "checkpoint", tmp_path))
    merged = live(wanted, tmp_path)
    assert set(merged) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())


@pytest.mark.parametrize("how", ["FP8_DYNAMIC", "W4A16_ASYM", "fp8 of blocks"])
def test_of_a_quantised_parent(how: str, models: Models, tmp_path: Path) -> None:
    folders = dict(models("llama", "bfloat16"))
    folders["b"] = quantise(folders["b"], tmp_path / "quantised", how)
    wanted = recipe("linear", folders, "bfloat16")
    expected = stored(materialise(wanted, tmp_path / "checkpoint", tmp_path))
    merged = live(wanted, tmp_path)
    assert set(merged) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())
    name = "model.layers.1.mlp.down_proj.weight"
    theirs, ours = dequantised(folders["b"])[name].float(), stored(folders["a"])[name].float()
    assert torch.allclose(merged[name].float(), 0.7 * ours + 0.3 * theirs, atol=1e-2)


def test_parents_are_cast_first_as_mergekit_does(models: Models, tmp_path: Path) -> None:
    wanted = recipe("linear", models("llama", "bfloat16"), "float32")
    expected = stored(materialise(wanted, tmp_path / "checkpoint", tmp_path))
    merged = live(wanted, tmp_path)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())
    assert {tensor.dtype for tensor in merged.values()} == {torch.float32}


@pytest.mark.parametrize("way", [way for way in WAYS if way not in DETERMINED])
def test_a_random_methods_tensors_depend_on_the_seed_and_on_nothing_else(
    way: str, models: Models, tmp_path: Path
) -> None:
    wanted = recipe(way, models("llama", "bfloat16"), "bfloat16")
    first = live(wanted, tmp_path)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    merger = Merger(tmp_path)
    backwards = dict(merger.tensors(wanted, merger.plan(wanted)[::-1], Tally()))
    assert torch.equal(torch.random.get_rng_state(), before), "nobody else's random numbers are touched"
    assert all(torch.equal(backwards[name], tensor) for name, tensor in first.items())
    written = stored(materialise_random(wanted, tmp_path / "checkpoint", tmp_path))
    assert all(torch.equal(written[name], tensor) for name, tensor in first.items()), "what is kept is what was served"
    if way != "arcee_fusion":  # it samples only from tensors of more than a million elements
        other = live(dataclasses.replace(wanted, seed=8), tmp_path)
        assert any(not torch.equal(other[name], tensor) for name, tensor in first.items())


OTHER_RATIO: dict[str, Callable[[Recipe], Recipe]] = {
    "slerp": lambda wanted: dataclasses.replace(wanted, parameters={"t": 0.8}),
    "nuslerp": lambda wanted: dataclasses.replace(
        wanted,
        models=tuple((source, {"weight": weight}) for (source, _), weight in zip(wanted.models, (1, 4), strict=True)),
    ),
}


@pytest.mark.parametrize("way", OTHER_RATIO)
def test_a_second_ratio_needs_no_second_look_at_the_angles(way: str, models: Models, tmp_path: Path) -> None:
    merger = Merger(tmp_path)
    wanted = recipe(way, models("llama", "bfloat16"), "bfloat16")
    dict(merger.whole(wanted))
    measured = dict(merger.measured.found)
    assert measured
    other = OTHER_RATIO[way](wanted)
    merged = dict(merger.whole(other))
    assert merger.measured.found.keys() == measured.keys()
    assert all(merger.measured.found[key] is value for key, value in measured.items()), "not measured again"
    expected = stored(materialise(other, tmp_path / "checkpoint", tmp_path))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())


@pytest.mark.parametrize("way", ["linear", "slerp", "nuslerp", "task_arithmetic", "ties", "della", "nearswap"])
def test_a_shard_is_what_is_cut_from_the_whole(way: str, models: Models, tmp_path: Path) -> None:
    """What a rank of several, or a fused parameter, takes of a tensor."""
    merger, tally = Merger(tmp_path), Tally()
    wanted = recipe(way, models("llama", "bfloat16"), "bfloat16")
    whole = dict(merger.whole(wanted))
    for name, tensor in merger.tensors(wanted, merger.plan(wanted), tally):
        assert isinstance(tensor, Merged)
        for dim in range(tensor.dim()):
            start, length = tensor.shape[dim] // 4, tensor.shape[dim] // 2
            shard = torch.empty_like(whole[name].narrow(dim, start, length))
            shard.copy_(tensor.narrow(dim, start, length))
            assert torch.equal(shard, whole[name].narrow(dim, start, length))
    assert not tally.failures


def test_an_adapter_is_merged_in_first(models: Models, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folders = models("llama", "float32")
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(folders["a"]), lora).save_pretrained(tmp_path / "adapter")
    adapted = Source("digest-lora", "a", str(folders["a"]), None, str(tmp_path / "adapter"))
    wanted = Recipe("passthrough", ((adapted, {}),), None, {}, "float32")
    merged = live(wanted, tmp_path / "live")
    expected = stored(materialise(wanted, tmp_path / "checkpoint", tmp_path / "stored"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())
    plain = stored(folders["a"])
    changed = {name for name, tensor in merged.items() if not torch.equal(tensor, plain[name])}
    assert changed == {name for name in merged if "q_proj" in name or "down_proj" in name}


def test_any_path_and_a_base_whose_generation_config_is_invalid(models: Models, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    plain = models("llama", "float32")
    home = tmp_path / "häuser+user@corp.example" / "a b"
    folders = {name: Path(shutil.copytree(plain[name], home / name)) for name in ("a", "b")}
    (folders["a"] / "generation_config.json").write_text('{"temperature": 0.9, "top_p": 0.6}')
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(plain["a"]), lora).save_pretrained(home / "adapter")

    def wanted(folders: dict[str, Path], adapter: Path) -> Recipe:
        found = recipe("linear", folders, "float32")
        sources = [
            dataclasses.replace(source, lora=str(adapter) if source.name == "a" else None) for source, _ in found.models
        ]
        return dataclasses.replace(found, models=tuple(zip(sources, (each for _, each in found.models), strict=True)))

    expected = live(wanted(plain, home / "adapter"), tmp_path / "expected")
    shutil.move(home / "adapter", home / "adapter@1")
    there = wanted(folders, home / "adapter@1")
    merged = live(there, home / "scratch")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in merged.items())
    written = stored(materialise(there, home / "checkpoint", home / "scratch"))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in written.items())


def test_an_impossible_recipe_is_refused_before_the_engine_is_touched(models: Models, tmp_path: Path) -> None:
    wanted = recipe("linear", models("llama", "float32"), "float32")
    with pytest.raises(MergeRefused):
        Merger(tmp_path).plan(dataclasses.replace(wanted, method="slerp"))


def test_files_that_cannot_be_merged_are_refused_and_a_model_that_is_not_there_is_not(
    models: Models, tmp_path: Path
) -> None:
    """The first is the same at every attempt; the other may be there at the next one, or on another node."""
    folders = dict(models("llama", "float32"))
    shutil.copytree(folders["b"], tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "vocab_size": config["vocab_size"] + 64}))
    for folder, error in ((tmp_path / "other", MergeRefused), (tmp_path / "gone", UserError)):
        wanted = recipe("linear", {**folders, "b": folder}, "float32")
        for merge in (Merger(tmp_path).plan, lambda each: materialise(each, tmp_path / "checkpoint", tmp_path)):
            with pytest.raises(error, match=r"lm_head|gone"):
                merge(wanted)


# -------------------------------------------------------------------- inside vLLM
Start = Callable[..., VllmEngine]


@pytest.fixture(scope="module")
def start(start_engine: Start) -> Start:
    """As `start_engine`; `in_place` as on a GPU, where vLLM leaves the parameters as checkpoints have them."""

    def either(folder: Path, in_place: bool) -> VllmEngine:
        from vllm import _custom_ops
        from vllm.model_executor.layers import utils

        with pytest.MonkeyPatch.context() as patch:
            if in_place:
                # What a CPU can do decides whether vLLM packs the weights for it; this one can do nothing.
                patch.setattr(_custom_ops, "_supports_onednn", False)
                patch.setattr(utils, "check_cpu_sgl_kernel", lambda *_: False)
            engine = start_engine(folder, "bfloat16")
        assert engine.llm.collective_rpc(lambda worker: worker._as_stored) == [in_place]
        return engine

    return either


PLACES = [*((name, False) for name in ARCHITECTURES), ("llama", True), ("qwen2-tied", True)]


@pytest.fixture(scope="module", params=PLACES, ids=lambda place: place[0] + (", in place" if place[1] else ""))
def engine(request: pytest.FixtureRequest, models: Models, start: Start) -> tuple[str, bool, VllmEngine]:
    """One engine per architecture, started with parent a, in bfloat16."""
    architecture, in_place = request.param
    return architecture, in_place, start(models(architecture, "bfloat16")["a"], in_place)


def test_a_swap_leaves_the_engine_as_a_fresh_start_would(
    engine: tuple[str, bool, VllmEngine], models: Models, start: Start, tmp_path: Path
) -> None:
    architecture, in_place, swapped = engine
    folders = models(architecture, "bfloat16")
    wanted = recipe("linear", folders, "bfloat16")
    checkpoint = materialise(wanted, tmp_path / "checkpoint", tmp_path)
    for file in folders["a"].glob("tokenizer*"):
        (checkpoint / file.name).write_bytes(file.read_bytes())
    swapped.load(wanted)
    fresh = start(checkpoint, in_place)
    assert swapped.checksums() == fresh.checksums()
    assert swapped.answer(QUESTIONS) == fresh.answer(QUESTIONS)


def test_a_tied_head_that_a_file_carries_never_reaches_the_embedding(
    models: Models, start_engine: Start, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    folders = models("llama-tied", "bfloat16")
    carries, boot = tmp_path / "carries", tmp_path / "boot"
    shutil.copytree(folders["a"], carries)
    tensors = stored(carries)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, carries / "model.safetensors", {"format": "pt"})
    boot.mkdir()
    write_plain("a", carries, boot)
    swapped, fresh = start_engine(boot, "bfloat16"), start_engine(folders["b"], "bfloat16")
    swapped.load(recipe("passthrough", {**folders, "a": folders["b"]}, "bfloat16"))
    assert swapped.checksums() == fresh.checksums()
    assert swapped.answer(QUESTIONS) == fresh.answer(QUESTIONS)


def test_tensors_that_do_not_fit_one_another_are_refused_as_mergekit_refuses_them(
    models: Models, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    folders = dict(models("llama", "float32"))
    shutil.copytree(folders["b"], tmp_path / "longer")
    tensors = stored(folders["b"])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], tensors[name]])
    save_file(tensors, tmp_path / "longer" / "model.safetensors", {"format": "pt"})
    config = json.loads((tmp_path / "longer" / "config.json").read_text())
    (tmp_path / "longer" / "config.json").write_text(json.dumps({**config, "vocab_size": 2 * config["vocab_size"]}))
    folders["b"] = tmp_path / "longer"
    for way in ("linear", "slerp"):
        with pytest.raises(MergeRefused, match="embed_tokens"):
            live(recipe(way, folders, "float32"), tmp_path)


@pytest.mark.parametrize("way", ["passthrough", "linear", "slerp", "task_arithmetic", "ties", "dare_ties"])
def test_the_engine_holds_and_answers_what_a_checkpoint_would_make_it(
    engine: tuple[str, bool, VllmEngine], way: str, models: Models, tmp_path: Path
) -> None:
    architecture, _, vllm = engine
    wanted = recipe(way, models(architecture, "bfloat16"), "bfloat16")
    vllm.load(wanted)
    answers, held = vllm.answer(QUESTIONS), vllm.checksums()
    if wanted.seed is None:
        vllm.load_checkpoint(materialise(wanted, tmp_path / "checkpoint", tmp_path))
        assert vllm.checksums() == held
        assert vllm.answer(QUESTIONS) == answers
    other = recipe(
        "passthrough", {**models(architecture, "bfloat16"), "a": models(architecture, "bfloat16")["b"]}, "bfloat16"
    )
    vllm.load(other)
    changed = vllm.checksums()
    assert all(changed[0][name] != digest for name, digest in held[0].items()), "every part of the engine was replaced"
    assert vllm.answer(QUESTIONS) != answers
    vllm.load(wanted)
    assert vllm.checksums() == held
    assert vllm.answer(QUESTIONS) == answers


def test_a_merged_tensor_with_nan_makes_the_recipe_invalid_and_is_named(
    models: Models, vllm: VllmEngine, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    folders = dict(models("llama", "float32"))
    shutil.copytree(folders["b"], tmp_path / "spoilt")
    tensors = stored(folders["b"])
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 4] = float("nan")
    save_file(tensors, tmp_path / "spoilt" / "model.safetensors", {"format": "pt"})
    spoilt = {**folders, "b": tmp_path / "spoilt"}
    for way in ("linear", "slerp", "task_arithmetic", "ties"):
        with pytest.raises(InvalidWeights, match=f"^{name} has NaN or Inf$"):
            vllm.load(recipe(way, spoilt, "float32"))
    sound = recipe("linear", folders, "float32")
    vllm.load(sound)
    held = vllm.checksums()
    vllm.load_checkpoint(materialise(sound, tmp_path / "sound", tmp_path))
    assert vllm.checksums() == held
