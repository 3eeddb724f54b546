"""Which layout serves a model on a cluster, as tables that a person can check, and the laws that every layout obeys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.config.sweep import SweepConfig
from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.core.errors import UserError
from orchestrator.models.configs import read_model_config
from orchestrator.models.formats import read_plain_config
from orchestrator.planning.plan import make_plan
from orchestrator.results.layout import Layout
from orchestrator.sizing.layouts import best_fit, check_host_cache, check_layout, check_split, engine_count, node_kinds
from orchestrator.sizing.nodes import ACCELERATORS, Node, gpu_node, parse_cluster
from orchestrator.sizing.placement import WORKING_BYTES, EngineLayout, Fit, Shape, layers_of_stages, shape_of
from orchestrator.stages.open import open_sweep
from tests.helpers.paths import CLINICAL, INSTRUCT, SHAPES

PARAMETERS = {"llama-3.1-8b": 8_030_261_248, "llama-3.3-70b": 70_553_706_496, "llama-3.1-405b": 405_853_388_800}
ENGINE = EngineSettings(max_model_len=8192)


def shape(name: str) -> Shape:
    config = read_model_config("parents", read_plain_config("parents", SHAPES / f"{name}.json"))
    return shape_of(config.sizes, PARAMETERS[name], "bfloat16")


def cluster(kind: str, gpus: int) -> list[Node]:
    """Nodes of eight, with 2 TB of memory each; fewer GPUs are one node with its part of that."""
    return [gpu_node(min(gpus, 8), kind, min(gpus, 8) / 8 * 2e12)] * max(1, gpus // 8)


# Two parents in bfloat16, 8192 tokens at most. Columns: GPUs; engines; TP and PP of each; on the fullest GPU, in GB: the
# weights, the KV cache; tokens in an engine's KV cache (thousands); where the parents are. On every GPU 4.3 GB more are
# to compute with, and the parents where they are on the GPU; 0.9 of the data sheet's memory is taken in all.
#
# To check a row by hand, 70B on four H100: 70.55e9 x 2 / 4 = 35.3; 0.9 x 80 - 35.3 - 4.3 = 32.4; a token takes 2 x 80
# layers x (8 / 4) heads x 128 x 2 bytes = 81,920 bytes of each GPU, so 32.4e9 / 81,920 = 396 thousand tokens.
TABLES = {
    ("llama-3.1-8b", "H100-80GB A100-80GB"): """
         1    1  1 1  16.1 19.5  148 gpu
         2    2  1 1  16.1 19.5  148 gpu
         4    4  1 1  16.1 19.5  148 gpu
         8    8  1 1  16.1 19.5  148 gpu
        16   16  1 1  16.1 19.5  148 gpu
        64   64  1 1  16.1 19.5  148 gpu
    """,
    ("llama-3.1-8b", "A100-40GB"): """
         1    1  1 1  16.1 15.6  119 pinned
         8    8  1 1  16.1 15.6  119 pinned
        64   64  1 1  16.1 15.6  119 pinned
    """,
    ("llama-3.3-70b", "H100-80GB A100-80GB"): """
         1    -
         2    -
         4    1  4 1  35.3 32.4  395 pinned
         8    2  4 1  35.3 32.4  395 pinned
        16    4  4 1  35.3 32.4  395 pinned
        32    8  4 1  35.3 32.4  395 pinned
        64   16  4 1  35.3 32.4  395 pinned
    """,
    ("llama-3.3-70b", "A100-40GB"): """
         4    -
         8    1  8 1  17.6 14.1  343 pinned
        64    8  8 1  17.6 14.1  343 pinned
    """,
    ("llama-3.1-405b", "H100-80GB A100-80GB"): """
         8    -
        16    1  8 2  50.7 17.0  526 pinned
        32    2  8 2  50.7 17.0  526 pinned
        64    4  8 2  50.7 17.0  526 pinned
    """,
    ("llama-3.1-405b", "A100-40GB"): """
         8    -
        16    -
        32    1  8 4  25.5  6.2  378 pinned
        64    2  8 4  25.5  6.2  378 pinned
    """,
    # Half of the memory is the most that parents are pinned in: with 16 GB a GPU it is too little for two of 8B.
}  # fmt: skip


@pytest.mark.parametrize(("model", "kinds"), TABLES)
def test_the_table_of(model: str, kinds: str) -> None:
    for kind in kinds.split():
        for line in TABLES[model, kinds].split("\n"):
            if cells := line.split():
                assert row(model, kind, int(cells[0])) == " ".join(cells), kind


def row(model: str, kind: str, gpus: int) -> str:
    nodes = cluster(kind, gpus)
    fit = best_fit(shape(model), 2, ENGINE, nodes)
    if fit is None:
        return f"{gpus} -"
    layout = fit.layout
    cells = (gpus, engine_count(layout, nodes), layout.tensor_parallel, layout.pipeline_parallel, f"{fit.weight_bytes / 1e9:.1f}",
             f"{fit.cache_bytes / 1e9:.1f}", fit.cache_tokens // 1000, fit.place)  # fmt: skip
    return " ".join(map(str, cells))


def test_a_tiny_model_takes_a_share_of_a_gpu() -> None:
    """SmolLM2-135M: 64 sequences of 2048 tokens are 3.0 GB of KV cache, the parents 0.5, and 4.3 to compute with."""
    tiny = Shape(134_515_008, 30, 9, 3, 64, 576, 1536, 49152, True, 2)
    fit = best_fit(tiny, 2, EngineSettings(max_model_len=2048, max_num_seqs=64), cluster("H100-80GB", 2))
    assert fit is not None
    assert (fit.layout, engine_count(fit.layout, cluster("H100-80GB", 2)), fit.place) == (
        EngineLayout(gpu_share=1 / 8),
        16,
        "gpu",
    )
    assert fit.sequences == 64


def test_parents_are_as_near_as_they_fit() -> None:
    def place(kind: str, host: float, models: int = 2) -> str:
        return Fit(shape("llama-3.1-8b"), models, ENGINE, EngineLayout(), gpu_node(1, kind, host)).place

    assert place("H100-80GB", 0) == "gpu"
    assert place("H100-80GB", 128e9, models=3) == "pinned", "a third parent would take the KV cache's room"
    assert place("A100-40GB", 65e9) == "pinned"
    assert place("A100-40GB", 64e9) == "mapped", "2 x 16.06 GB are more than half of it"
    assert place("A100-40GB", 0) == "mapped", "nothing is known of the host"


# -------------------------------------------------------------------- laws
def sizes(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    kv_heads = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 16]))
    heads, head_dim = kv_heads * draw(sizes(1, 8)), draw(st.sampled_from([32, 64, 128]))
    layers, width = draw(sizes(1, 128)), 64 * draw(sizes(1, 1000))
    hidden, vocabulary, tied = heads * head_dim, draw(sizes(256, 260_000)), draw(st.booleans())
    layer = 2 * hidden * hidden + 2 * hidden * kv_heads * head_dim + 3 * hidden * width
    parameters = layers * layer + vocabulary * hidden * (1 if tied else 2)
    itemsize = draw(st.sampled_from([2, 4]))
    return Shape(parameters, layers, heads, kv_heads, head_dim, hidden, width, vocabulary, tied, itemsize)


engine_settings = st.builds(EngineSettings, max_model_len=sizes(16, 131_072), max_num_seqs=sizes(1, 512))
hosts = st.floats(0, 4e12)
gpu_nodes = st.builds(gpu_node, sizes(1, 8), st.just("A100-40GB"), hosts)
clusters = st.lists(gpu_nodes, min_size=1, max_size=8)


@settings(deadline=None)
@given(shapes(), sizes(1, 4), engine_settings, clusters)
def test_what_is_proposed_fits(model: Shape, models: int, given_engine: EngineSettings, nodes: list[Node]) -> None:
    fit = best_fit(model, models, given_engine, nodes)
    if fit is None:
        return
    layout, there = fit.layout, engine_count(fit.layout, nodes)
    assert there >= 1 and there * layout.gpus <= sum(node.gpus for node in nodes) + 1e-9
    held = fit.weight_bytes + WORKING_BYTES + fit.cache_bytes + (fit.parent_bytes if fit.place == "gpu" else 0)
    assert held <= fit.node.gpu_bytes * layout.gpu_share
    assert fit.cache_tokens >= given_engine.max_model_len
    assert model.heads % layout.tensor_parallel == 0
    assert model.kv_heads % layout.tensor_parallel == 0 or layout.tensor_parallel % model.kv_heads == 0
    assert fit.weight_bytes * layout.ranks >= model.weight_bytes - 1, "the ranks hold all of the model together"
    assert sum(layers_of_stages(model.layers, layout.pipeline_parallel)) == model.layers
    assert min(layers_of_stages(model.layers, layout.pipeline_parallel)) >= 1
    if fit.place == "pinned":
        assert fit.parent_bytes * layout.ranks <= layout.gpus * max(node.host_bytes / node.gpus for node in nodes) / 2


@settings(deadline=None)
@given(shapes(), sizes(1, 4), engine_settings, clusters, st.lists(gpu_nodes, max_size=3), sizes(0, 8))
def test_more_gpus_never_make_it_unfit(
    model: Shape, models: int, given_engine: EngineSettings, nodes: list[Node], more: list[Node], larger: int
) -> None:
    if best_fit(model, models, given_engine, nodes) is not None:
        grown = [gpu_node(nodes[0].gpus + larger, "A100-40GB", nodes[0].host_bytes), *nodes[1:], *more]
        assert best_fit(model, models, given_engine, grown) is not None


# -------------------------------------------------------------------- what is said
def config(**workers: object) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            "parents": {"a": {"model": "x"}, "b": {"model": "y"}},
            "objectives": {"o": {"tasks": ["t"]}},
            "workers": {"gpus": 1.0, "engine": {"max_model_len": 8192, **workers}},
        }
    )


def refused(name: str, nodes: str, **workers: object) -> str:
    with pytest.raises(UserError) as told:
        check_layout(config(**workers), shape(name), parse_cluster(nodes))
    return str(told.value)


def test_what_cannot_fit_is_refused_with_the_arithmetic_and_the_way_out() -> None:
    told = refused("llama-3.3-70b", "8x H100-80GB")
    assert "an engine with tensor_parallel_size: 1 has no room. On 8x H100-80GB: it needs 141.1 GB of weights" in told
    assert "+ 4.3 GB to compute with + 2.7 GB of KV cache (one sequence of 8,192 tokens) = 148.1 GB" in told
    assert "a GPU of 0.9 x 80.0 GB = 72.0 GB. What fits: tensor_parallel_size: 4." in told
    assert "No layout fits: more GPUs, or larger ones" in refused("llama-3.1-405b", "8x H100")
    told = refused("llama-3.1-405b", "2 nodes of 8x H100", tensor_parallel_size=16)
    assert "16 of them on one node. What fits: tensor_parallel_size: 8, pipeline_parallel_size: 2." in told


def test_a_split_that_no_cluster_could_serve_is_refused() -> None:
    for engine, why in (
        ({"tensor_parallel_size": 3}, "3 ranks do not divide the model (32 heads, 8 key-value heads, an MLP of 14336"),
        ({"tensor_parallel_size": 6}, "what divides it: 1, 2, 4, 8, 16, 32"),
        ({"pipeline_parallel_size": 33}, "33 stages, but the model has 32 layers"),
    ):
        for gpus in (0, 1):
            with pytest.raises(UserError, match=re.escape(why)):
                check_split(Workers(gpus=gpus, engine=EngineSettings.model_validate(engine)), shape("llama-3.1-8b"))
    check_split(Workers(backend="fake", engine=EngineSettings(tensor_parallel_size=3)), shape("llama-3.1-8b"))


def test_the_cpus_cache_needs_room_for_one_text_and_an_empty_block() -> None:
    """Of 8192 tokens, 32 layers x 8 heads x 128 x 2 x 2 bytes a token: 257 blocks of 4 MiB."""
    model = shape("llama-3.1-8b")

    def workers(gib: float, **engine: int) -> Workers:
        values = {"max_model_len": 8192, "kv_cache_gib": gib, **engine}
        return Workers(gpus=0, engine=EngineSettings.model_validate(values))

    check_host_cache(workers(257 * 4 / 1024), model)
    check_host_cache(workers(257 * 2 / 1024, tensor_parallel_size=2), model)
    check_host_cache(workers(257 * 2 / 1024, pipeline_parallel_size=2), model)
    check_host_cache(workers(0.1).model_copy(update={"gpus": 1.0}), model)
    with pytest.raises(UserError, match=r"takes 1,028\.00 MiB of KV cache; raise it to 1\.004, or lower .* to 8160"):
        check_host_cache(workers(1), model)
    with pytest.raises(UserError, match=r"raise it to 1\.004$"):
        check_host_cache(workers(0.001), model)


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        ({"tensor_parallel_size": 5}, r"workers\.engine\.tensor_parallel_size: 5 ranks do not divide"),
        ({"kv_cache_gib": 1e-5}, r"workers\.engine\.kv_cache_gib is 1e-05, but a text of max_model_len \(256 tokens\)"),
    ],
)
def test_plan_and_run_refuse_an_engine_alike(engine: dict[str, object], why: str, tmp_path: Path) -> None:
    content = {
        "parents": {"a": {"model": str(CLINICAL)}, "b": {"model": str(INSTRUCT)}},
        "recipes": [{"method": "linear", "alpha": [0.5]}],
        "objectives": {"o": {"tasks": ["t"]}},
        "workers": {"gpus": 0, "engine": {"max_model_len": 256, **engine}},
    }
    found = SweepConfig.model_validate(content)
    for command in (make_plan, lambda sweep: open_sweep(sweep, Layout(tmp_path))):
        with pytest.raises(UserError, match=why):
            command(found)


@pytest.mark.parametrize(
    ("own", "caches_all"),
    [
        ({"model_type": "llama"}, True),
        ({"model_type": "gemma2"}, True),
        ({"model_type": "mistral", "sliding_window": 64}, True),
        ({"model_type": "deepseek_v2"}, False),
        ({"model_type": "gemma3n_text"}, False),
        ({"model_type": "lfm2", "num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]}, False),
    ],
)
def test_models_that_keep_less_of_a_token_are_known(own: dict[str, object], caches_all: bool) -> None:
    assert read_model_config("parents", own).caches_all_layers == caches_all


def test_one_kind_with_room_is_enough() -> None:
    check_layout(config(tensor_parallel_size=4), shape("llama-3.3-70b"), parse_cluster("4x L4, 4x H100"))
    told = refused("llama-3.3-70b", "4x L4, 4x A100-40GB", tensor_parallel_size=4)
    assert told.count("On 4x") == 2


def test_a_sweep_is_served_by_the_kind_that_it_is_pinned_to() -> None:
    pinned = config()
    pinned = pinned.model_copy(update={"workers": pinned.workers.model_copy(update={"accelerator_type": "L4"})})
    nodes = parse_cluster("2x L40S, 2x L4, 8x H100")
    assert [kind.own.node.kind for kind in node_kinds(pinned, shape("llama-3.1-8b"), nodes)] == ["L4-24GB"]
    assert len(node_kinds(config(), shape("llama-3.1-8b"), nodes)) == 3
    with pytest.raises(UserError, match=r"workers.accelerator_type: the cluster has no L4 \(8x H100-80GB\)"):
        check_layout(pinned, shape("llama-3.1-8b"), parse_cluster("8x H100"))
    with pytest.raises(UserError, match=r"workers.gpus: the cluster has no GPU \(64 cores\)"):
        check_layout(config(), shape("llama-3.1-8b"), [Node(cpus=64)])
    check_layout(config(), shape("llama-3.1-8b"), [Node(8, "B300", 0)])


def test_clusters_are_read_as_they_are_written() -> None:
    nodes = parse_cluster("2 nodes of 8x H100-80GB + 2000GB,  1 node of 4 x A100, 2xL4+64 GB")
    assert [(n.gpus, n.kind, n.host_bytes) for n in nodes] == [
        (8, "H100-80GB", 2e12),
        (8, "H100-80GB", 2e12),
        (4, "A100-40GB", 0),
        (2, "L4-24GB", 64e9),
    ]
    assert all(node.gpu_bytes == ACCELERATORS[node.kind].memory_bytes for node in nodes)
    for wrong, message in {
        "eight H100": "'eight H100' is not of the form",
        "8x H100-8OGB": "did you mean 'H100-80GB'?",
        "0x H100": "has no GPU",
        "": "is not of the form",
    }.items():
        with pytest.raises(UserError, match="--cluster") as told:
            parse_cluster(wrong)
        assert message in str(told.value)
