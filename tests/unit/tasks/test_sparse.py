"""A sparse merge in pieces has the bytes of mergekit's own, whatever the dtype, the shape, the density or the ties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mergekit.architecture import WeightInfo
from mergekit.common import ImmutableMap, ModelReference
from mergekit.io.tasks import GatherTensors
from mergekit.merge_methods.task_adapter import ExecuteMergeMethodTask

from orchestrator.config.methods import DELTAS, METHODS
from tasks.merging.elementwise import FORMS, Measurements
from tasks.merging.lazy import Merged, Tally
from tasks.merging.sparse import PIECE, between_ranks

SPARSE = [name for name, method in METHODS.items() if method.whole == DELTAS]
REFERENCES = [ModelReference.model_validate(f"/models/{name}") for name in ("base", "a", "b", "c", "d")]


def make_task(method: str, each: list[dict[str, float]], whole: dict[str, Any]) -> ExecuteMergeMethodTask:
    """mergekit's task for a tensor: the base, and as many models as there are parameters."""
    models = REFERENCES[: len(each) + 1]
    own = {model: ImmutableMap(data=parameters) for model, parameters in zip(models[1:], each, strict=True)}
    return ExecuteMergeMethodTask(
        method_name=method,
        gather_tensors=GatherTensors(weight_info=ImmutableMap(data={})),
        model_order=tuple(models),
        base_model=models[0],
        output_weight=WeightInfo(name="w"),
        parameters=ImmutableMap(data=whole),
        input_parameters=ImmutableMap(data=own),
    )


def ours(task: ExecuteMergeMethodTask, tensors: dict[Any, torch.Tensor]) -> tuple[torch.Tensor, list[Exception]]:
    form = FORMS[task.method_name]
    torch.manual_seed(5)
    measured = [each.measure(tensors, lambda parts: parts) for each in form.measures(task)]
    shape = tensors[REFERENCES[0]].shape
    tally = Tally()
    inputs = {**tensors, **form.beside(task, measured, shape)}
    merge, dtype = form.merge(task, measured), tensors[REFERENCES[0]].dtype
    merged = Merged(
        "w",
        [*inputs.values()],
        lambda parts: merge(dict(zip(inputs, parts, strict=True))),
        lambda _, tensor: tensor,
        dtype,
        tally,
    )
    result = torch.empty(shape, dtype=dtype)
    middle = shape[-1] // 2  # two shards, as two ranks take them
    for start, length in ((0, middle), (middle, shape[-1] - middle)):
        result.narrow(-1, start, length).copy_(merged.narrow(-1, start, length))
    return result, tally.failures


def theirs(task: ExecuteMergeMethodTask, tensors: dict[Any, torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(5)
    result = task.execute(tensors=tensors)
    assert result is not None
    return result


SHARE = st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.77, 0.99, 1.0])


@st.composite
def settings_of(draw: st.DrawFn) -> tuple[str, list[dict[str, float]], dict[str, Any]]:
    method = draw(st.sampled_from(SPARSE))
    each = [
        {
            "weight": draw(st.sampled_from([0.7, -0.4, 0.0, 1.0])),
            # DELLA refuses a density within epsilon of 0 or 1.
            "density": draw(SHARE.filter(lambda share: not method.startswith("della") or share not in (0.01, 0.99))),
            **({"gamma": draw(SHARE)} if method.startswith("breadcrumbs") else {}),
            **({"epsilon": draw(st.sampled_from([0.0, 0.1]))} if method.startswith("della") else {}),
        }
        for _ in range(draw(st.integers(1, 4)))
    ]
    whole = {name: draw(st.booleans()) for name in ("int8_mask", "normalize", "rescale")}
    return method, each, {**whole, "lambda": draw(st.sampled_from([1.0, 0.9, -0.5]))}


@given(
    how=settings_of(),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    shape=st.sampled_from([(1, 2), (257,), (40, 33), (3, 20, 17)]),
    levels=st.sampled_from([1, 3, 40, None]),
    seed=st.integers(0, 1 << 20),
)
@settings(max_examples=80, deadline=None)
def test_the_bytes_are_mergekits(
    how: tuple[str, list[dict[str, float]], dict[str, Any]],
    dtype: torch.dtype,
    shape: tuple[int, ...],
    levels: int | None,
    seed: int,
) -> None:
    check_bytes(how, dtype, shape, levels, seed)


LARGE = {
    "ties": torch.bfloat16, "breadcrumbs_ties": torch.float32, "dare_linear": torch.float16, "della": torch.bfloat16,
}  # fmt: skip


@pytest.mark.parametrize("method", LARGE)
def test_of_several_pieces(method: str) -> None:
    each = {"weight": 0.7, "density": 0.5, "gamma": 0.1, "epsilon": 0.1}
    whole = {"int8_mask": method == "ties", "normalize": True, "rescale": True, "lambda": 0.9}
    shape = (PIECE // 1000 + 100, 1000)
    check_bytes((method, [each], whole), LARGE[method], shape, None, 1)


def check_bytes(
    how: tuple[str, list[dict[str, float]], dict[str, Any]],
    dtype: torch.dtype,
    shape: tuple[int, ...],
    levels: int | None,
    seed: int,
) -> None:
    """`levels`: how many sizes a difference may have, besides zero; None for any."""
    method, each, whole = how
    task = make_task(method, each, whole)
    generator = torch.Generator().manual_seed(seed)

    def noise() -> torch.Tensor:
        drawn = torch.randn(shape, generator=generator)
        return (drawn if levels is None else (drawn * levels / 2).round().clamp(-levels, levels) / levels).to(dtype)

    base = noise()
    base[base.abs() < 0.1] = -0.0
    tensors = {REFERENCES[0]: base, **{model: base + noise() for model in task.model_order[1:]}}
    expected, (found, failures) = theirs(task, tensors), ours(task, tensors)
    assert found.dtype == expected.dtype == dtype
    assert bool(failures) != bool(expected.isfinite().all()), "a sum of float16 may be too large for it"
    # Bytes, and not values: zeros have a sign.
    assert failures or torch.equal(found.view(torch.uint8), expected.view(torch.uint8))


def test_a_tie_is_cut_where_torchs_sort_cuts_it() -> None:
    magnitudes = torch.randn(5000, generator=torch.Generator().manual_seed(0)).abs().bfloat16().float()
    for descending in (True, False):
        order = torch.argsort(magnitudes, descending=descending)
        for start, stop in ((0, 1), (0, 2500), (1000, 1001), (4999, 5000), (0, 5000), (20, 20), (3000, 6000)):
            wanted = torch.zeros(5000, dtype=torch.bool)
            wanted[order[start:stop]] = True
            assert torch.equal(between_ranks(magnitudes.clone(), start, stop, descending=descending), wanted)


def test_what_mergekit_refuses_is_refused_in_its_words() -> None:
    task = make_task("della", [{"weight": 1.0, "density": 0.95, "epsilon": 0.15}], {"int8_mask": False, "normalize": True, "rescale": True, "lambda": 1.0})  # fmt: skip
    tensors = {model: torch.randn(4, 4) for model in task.model_order}
    for merge in (theirs, ours):
        with pytest.raises(ValueError, match=r"density \+/- epsilon is in \(0, 1\)"):
            merge(task, tensors)


def test_what_was_not_used_for_longest_is_dropped_first() -> None:
    kept = Measurements()
    bits = torch.zeros(1000, dtype=torch.uint8)
    for density in range(4):
        kept.get(("w", 0))
        kept.keep(("w", density), bits, size=16_000)
    assert list(kept.found) == [("w", 0), ("w", 3)]
