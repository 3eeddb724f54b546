"""Two ranks of a tensor-parallel engine hold what one would, and each does half of the work: real vLLM, on the CPU."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from orchestrator.core.records import Decoding, Question
from orchestrator.models.headers import read_headers
from orchestrator.recipes.recipe import Recipe, Source
from tasks.merging.checkpoint import materialise
from tasks.merging.live import write_checkpoint
from tasks.merging.ranks import deal
from tasks.serving.engine import InvalidWeights
from tasks.serving.vllm_engine import VllmEngine

PROMPTS = [tuple(range(20 + i, 50 + i)) for i in range(4)]
QUESTIONS = [
    *(Question(prompt, decoding=Decoding(24, ())) for prompt in PROMPTS),
    *(Question(prompt, (30, 31, 32)) for prompt in PROMPTS),
]
BOTH = ({"weight": 0.6, "density": 0.5}, {"weight": 0.5, "density": 0.7})
ITEM = 4
"""Bytes of a weight."""
UNEVEN = 0.7
"""At most this share of the work on one of two ranks: the embedding and the head are a third of this model each."""
Folders = dict[str, Path]


@pytest.fixture(scope="module")
def folders(models: Callable[[str, str], Folders]) -> Folders:
    return models("llama", "float32")


@pytest.fixture(scope="module")
def ranks(folders: Folders, start_engine: Callable[..., VllmEngine]) -> VllmEngine:
    return start_engine(folders["a"], "float32", tensor_parallel_size=2)


def source(folder: Path, lora: Path | None = None) -> Source:
    return Source(
        f"digest-{folder.name}-{lora is not None}", folder.name, str(folder), None, str(lora) if lora else None
    )


def recipe(method: str, folders: Folders) -> Recipe:
    a, b, base = (source(folders[name]) for name in ("a", "b", "base"))
    match method:
        case "linear":
            return Recipe("linear", ((a, {"weight": 0.7}), (b, {"weight": 0.3})), None, {}, "float32")
        case "slerp":
            return Recipe("slerp", ((a, {}), (b, {})), a, {"t": 0.3}, "float32")
        case "sce":
            return Recipe("sce", ((a, {}), (b, {})), base, {"select_topk": 0.5}, "float32")
    seed = 7 if method.startswith("dare") else None
    return Recipe(method, ((a, BOTH[0]), (b, BOTH[1])), base, {}, "float32", seed)


def work(engine: VllmEngine) -> list[tuple[int, int]]:
    """Of each rank at the last merge: elements, and bytes of the parents."""
    return list(engine.llm.collective_rpc("work"))


@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "dare_ties", "sce"])
def test_two_ranks_hold_and_answer_what_one_does(
    method: str, folders: Folders, ranks: VllmEngine, vllm: VllmEngine, tmp_path: Path
) -> None:
    ranks.load(Recipe("passthrough", ((source(folders["b"]), {}),), None, {}, "float32"))
    before = ranks.checksums()
    assert len(before) == 2 and before[0] != before[1]
    wanted = recipe(method, folders)
    ranks.load(wanted)
    held = ranks.checksums()
    assert all(held[rank][name] != digest for rank in (0, 1) for name, digest in before[rank].items())
    ranks.load_checkpoint(write_checkpoint(wanted, tmp_path / "checkpoint", tmp_path))
    assert ranks.checksums() == held, "what mergekit makes of it, shard by shard"
    vllm.load(wanted)
    for mine, theirs in zip(ranks.answer(QUESTIONS), vllm.answer(QUESTIONS), strict=True):
        assert mine.text == theirs.text
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)


def test_a_rank_works_out_its_own_shards_alone(folders: Folders, ranks: VllmEngine, vllm: VllmEngine) -> None:
    """Norms are on both ranks, and so is the one key-value head; all else is cut in two."""
    sizes = {name: math.prod(header.shape) for name, header in read_headers("a", folders["a"]).items()}
    repeated = sum(size for name, size in sizes.items() if "norm" in name or "k_proj" in name or "v_proj" in name)
    everything = sum(sizes.values())
    shard = repeated + (everything - repeated) // 2
    vllm.load(recipe("linear", folders))
    assert work(vllm) == [(everything, 2 * ITEM * everything)]
    ranks.load(recipe("linear", folders))
    assert work(ranks) == [(shard, 2 * ITEM * shard)] * 2
    wanted = recipe("slerp", folders)
    turned = Recipe("slerp", wanted.models[::-1], wanted.models[1][0], {"t": 0.4}, "float32")
    for read_for_angles in (everything, 0):  # measured by one rank or the other, and only once
        ranks.load(turned)
        assert [elements for elements, _ in work(ranks)] == [shard] * 2
        angles = [read - 2 * ITEM * shard for _, read in work(ranks)]
        assert sum(angles) == 2 * ITEM * read_for_angles
        assert max(angles) <= UNEVEN * 2 * ITEM * everything


def test_whole_tensors_are_shared_out(folders: Folders, ranks: VllmEngine) -> None:
    everything = sum(math.prod(header.shape) for header in read_headers("a", folders["a"]).values())
    ranks.load(recipe("sce", folders))
    elements, read = zip(*work(ranks), strict=True)
    assert sum(elements) == everything and max(elements) <= UNEVEN * everything
    assert sum(read) == 3 * ITEM * everything and max(read) <= UNEVEN * 3 * ITEM * everything


def test_what_a_density_keeps_is_measured_by_one_rank_for_both_and_only_once(
    folders: Folders, ranks: VllmEngine
) -> None:
    everything = sum(math.prod(header.shape) for header in read_headers("a", folders["a"]).values())
    wanted = recipe("ties", folders)
    denser = tuple((model, {**own, "density": own["density"] + 0.1}) for model, own in wanted.models)
    heavier = tuple((model, {**own, "weight": 0.9}) for model, own in denser)
    ranks.load(dataclasses.replace(wanted, models=denser))
    first = [read for _, read in work(ranks)]
    ranks.load(dataclasses.replace(wanted, models=heavier))
    measured = [before - again for before, (_, again) in zip(first, work(ranks), strict=True)]
    assert sum(measured) == 2 * 3 * ITEM * everything, "each of two densities, of three models' tensors"
    assert max(measured) <= UNEVEN * sum(measured)


def test_an_adapter_is_merged_in_once_for_both(
    folders: Folders, ranks: VllmEngine, vllm: VllmEngine, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(folders["a"]), lora).save_pretrained(tmp_path / "adapter")
    adapted = source(folders["a"], tmp_path / "adapter")
    both = ((adapted, {"weight": 0.5}), (source(folders["b"]), {"weight": 0.5}))
    wanted = Recipe("linear", both, None, {}, "float32")
    shutil.rmtree(ranks.scratch / "lora", ignore_errors=True)
    ranks.load(wanted)
    held = ranks.checksums()
    ranks.load_checkpoint(materialise(wanted, tmp_path / "checkpoint", tmp_path / "stored"))
    assert ranks.checksums() == held
    merged = [file for file in ranks.scratch.rglob("model.safetensors") if not file.is_symlink()]
    assert len(merged) == 1, "one copy for the ranks of a node"


def test_what_one_rank_is_refused_the_other_hears_of(folders: Folders, ranks: VllmEngine, tmp_path: Path) -> None:
    held = recipe("linear", folders)
    ranks.load(held)
    before = ranks.checksums()
    shutil.copytree(folders["b"], tmp_path / "longer")
    tensors = load_file(tmp_path / "longer" / "model.safetensors")
    name = "model.embed_tokens.weight"
    tensors[name] = torch.cat([tensors[name], tensors[name]])
    save_file(tensors, tmp_path / "longer" / "model.safetensors", {"format": "pt"})
    for method in ("slerp", "ties"):
        with pytest.raises(InvalidWeights, match=name):
            ranks.load(recipe(method, {**folders, "b": tmp_path / "longer"}))
    one = {"weight": 0.5, "density": 0.6, "epsilon": [{"filter": "layers.0.mlp.up_proj", "value": 0.5}, {"value": 0.1}]}
    parents = tuple((source(folders[each]), one) for each in ("a", "b"))
    with pytest.raises(InvalidWeights, match=r"layers\.0\.mlp\.up_proj.*Epsilon must be chosen"):
        ranks.load(Recipe("della", parents, source(folders["base"]), {}, "float32", 7))
    ranks.load(held)
    assert ranks.checksums() == before


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), max_size=40), st.integers(1, 8))
def test_work_is_dealt_out_evenly(costs: list[int], size: int) -> None:
    owners = deal(costs, size)
    loads = [sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == rank) for rank in range(size)]
    assert len(owners) == len(costs) and sum(loads) == sum(costs)
    # Graham's bound for the longest first: within 4/3 of the best, which is no less than the mean or the largest.
    assert max(loads, default=0) <= 4 / 3 * max(sum(costs) / size, *costs, 0) + max(costs, default=0) / 3 + 1
