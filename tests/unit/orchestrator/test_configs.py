"""Parents' configs: which of them compute alike, by family and by key, and which are no configs.

A pair is two config.json files; no weights are needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import UserError
from orchestrator.models.alike import check_alike, check_served, check_window, differing
from orchestrator.models.configs import ModelConfig, read_model_config
from orchestrator.models.formats import read_plain_config
from orchestrator.models.meaning import HARMLESS

Read = Callable[..., ModelConfig]
Config = dict[str, Any]

FAMILIES = (
    "llama", "mistral", "ministral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "mixtral", "gemma", "gemma2", "gemma3_text",
    "phi", "phi3", "phimoe", "olmo", "olmo2", "olmo3", "granite", "granitemoe", "smollm3", "starcoder2", "cohere", "cohere2",
    "stablelm", "gpt2", "gpt_neox", "gptj", "opt", "falcon", "bloom", "mpt", "persimmon", "nemotron", "helium", "exaone4",
    "glm", "glm4", "gpt_oss", "deepseek_v3", "arcee", "seed_oss", "ernie4_5", "hunyuan_v1_dense", "jamba", "lfm2",
)  # fmt: skip
VOID = {
    "max_window_layers": "layer_types, which the class writes, says which layers have a window",
    "use_sliding_window": "with layer_types or without a window it switches nothing",
    "sliding_window": "the class's default is that the window is switched off",
    "no_rope_layer_interval": "no_rope_layers, which the class writes, says which layers have RoPE",
    "original_max_position_embeddings": "the class's RoPE is not scaled",
    "max_position_embeddings": "the class's RoPE does not read it",
    "sliding_window_pattern": "layer_types, which the class writes, says which layers have a window",
    "partial_rotary_factor": "it is an entry of rope_parameters, too, which is read",
    "vocab_size": "rows of the embedding are compared by the tokens that they stand for (test_vocabulary.py)",
    "architectures": "a class that has no head is replaced by the one that has (orchestrator/models/plain.py)",
    "model_type": "of a nested config, the class that the outer one names is taken",
    "_sliding_window_pattern": "layer_types, which the class writes, says which layers have a window",
}
"""Keys that some classes do not read beside their own defaults."""
WITH_LENGTHS = {"gpt2", "gptj", "opt", "mpt", "bloom"}


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Writes a config.json and reads it as `plan` does."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")  # each config is read once

    def write_and_read(config: Config, **changes: Any) -> ModelConfig:
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**config, **changes}))
        return read_model_config("parents.b.model", read_plain_config("parents.b.model", path))

    return write_and_read


def difference(first: ModelConfig, second: ModelConfig) -> str:
    """What the refusal says; empty for two that compute alike."""
    try:
        check_alike("parents.b.model", second, "parents.a", first)
    except UserError as error:
        assert len(str(error)) < 450, "long lists are not written out"
        return str(error)
    return ""


def other(value: Any) -> list[Any]:
    """Values that differ from one; the class may refuse some by their type."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value * 2 if value else 2, value + 1]
    if isinstance(value, float):
        return [value * 2 + 0.5]
    if isinstance(value, str):
        return [f"{value}x", "relu"]
    if isinstance(value, list):
        rotated = value[1:] + value[:1]
        return [rotated, [*value[:-1], "full_attention"], [*value[:-1], "sliding_attention"], [*value, 1]]
    return [7, 0.5, True, "x", [1], ["x"]]


def changed(config: Config) -> Iterator[tuple[str, list[Config]]]:
    """Each key of a config, entries of dicts too, with configs in which it alone has another value."""
    for key, value in config.items():
        if isinstance(value, dict) and key not in HARMLESS:
            yield from ((name, [{**config, key: new} for new in news]) for name, news in changed(value))
        else:
            yield key, [{**config, key: new} for new in other(value) if new != value]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_of_a_family_counts_unless_it_is_named_as_harmless(family: str, read: Read) -> None:
    from transformers import CONFIG_MAPPING

    config = json.loads(json.dumps(CONFIG_MAPPING[family]().to_dict(), default=str))
    first = read(config)
    assert difference(first, read(config)) == ""
    unnoticed = set()
    for key, others in changed(config):
        for each in others:
            with suppress(UserError):  # a value that the class refuses: so is a parent with it
                if not difference(first, read(each)):
                    unnoticed.add(key)
                break
    assert unnoticed - HARMLESS.keys() <= VOID.keys()
    if family in WITH_LENGTHS:
        assert not unnoticed & {"max_position_embeddings", "n_positions", "max_seq_len"}


TINY = {
    "vocab_size": 384, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 6, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 512,
}  # fmt: skip
ROPE5 = {"rope_type": "default", "rope_theta": 1e6}
LONG = {"long_factor": [2.0] * 16, "short_factor": [1.0] * 16}
YARN = {"factor": 4.0, "original_max_position_embeddings": 128}
FULL, SLIDING = "full_attention", "sliding_attention"
GEMMA3_5 = {"full_attention": ROPE5, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
GEMMA3_LINEAR = {**GEMMA3_5, "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}
VISION = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
MEDGEMMA: Config = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "text_config": {**TINY, "model_type": "gemma3_text", "head_dim": 32},
    "vision_config": VISION,
}
ALIKE: dict[str, tuple[str, Config, Config]] = {
    "theta at the top": ("llama", {"rope_theta": 1000000}, {"rope_parameters": ROPE5}),
    "llama3 by both names": (
        "llama",
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0, "original_max_position_embeddings": 128}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8, "low_freq_factor": 1,
         "high_freq_factor": 4, "original_max_position_embeddings": 128}},
    ),
    "yarn's defaults written": (
        "qwen2",
        {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", **YARN}},
        {"rope_parameters": {**ROPE5, "rope_type": "yarn", **YARN, "beta_fast": 32.0, "beta_slow": 1.0}},
    ),
    "yarn's positions beside it": (
        "llama",
        {"rope_theta": 1e6, "rope_scaling": {"type": "yarn", "factor": 4.0}, "original_max_position_embeddings": 128},
        {"rope_parameters": {**ROPE5, "rope_type": "yarn", **YARN}},
    ),
    "head_dim written": ("qwen2", {}, {"head_dim": 32}),
    "head_dim null": ("mistral", {"head_dim": None}, {"head_dim": 32}),
    "biases that are none": ("mistral", {}, {"attention_bias": False, "mlp_bias": False}),
    "windows switched off": ("qwen2", {"sliding_window": 131072, "use_sliding_window": False}, {"sliding_window": 32768}),
    "a window switched off, and none": (
        "qwen3", {"sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 3}, {"sliding_window": None},
    ),
    "a window of no layer": (
        "smollm3", {"use_sliding_window": False, "sliding_window": 64}, {"layer_types": [FULL] * 6, "sliding_window": None}
    ),
    "layers without RoPE": ("smollm3", {"no_rope_layer_interval": 4}, {"no_rope_layers": [1, 1, 1, 0, 1, 1]}),
    "window of layers by a number": ("olmo3", {}, {"layer_types": [SLIDING] * 3 + [FULL] + [SLIDING] * 2}),
    "tied by default": ("gemma2", {}, {"tie_word_embeddings": True}),
    "an activation by its old name": ("gemma2", {"hidden_act": "gelu"}, {"hidden_activation": "gelu_pytorch_tanh"}),
    "gemma 3 flat": (
        "gemma3_text",
        {"rope_theta": 1e6, "rope_local_base_freq": 10000.0, "rope_scaling": None, "sliding_window_pattern": 6},
        {"rope_parameters": GEMMA3_5, "layer_types": [SLIDING] * 5 + [FULL]},
    ),
    "gemma 3 flat and scaled": (
        "gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, {"rope_parameters": GEMMA3_LINEAR}
    ),
    "longrope": (
        "phi3",
        {"rope_theta": 1e4, "rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 128},
        {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 1.0, **LONG,
         "original_max_position_embeddings": 128}, "original_max_position_embeddings": 128},
    ),
    "partly rotated": (
        "phi3", {"partial_rotary_factor": 0.75}, {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.75}}
    ),
    "scales as whole numbers": ("granite", {"logits_scaling": 8, "residual_multiplier": 1}, {"logits_scaling": 8.0}),
    "experts by both names": ("mixtral", {"num_local_experts": 4}, {"num_experts": 4}),
    "a switch that only one of two releases writes": ("qwen2", {"use_mrope": False}, {}),
    "an activation by both names": ("gemma", {"hidden_act": "gelu"}, {"hidden_activation": "gelu_pytorch_tanh"}),
    "positions by a second name": ("llama", {"max_sequence_length": 2048}, {}),
    "positions that only limit": ("cohere", {"max_position_embeddings": 1024, "model_max_length": 1024}, {}),
    "nested text": ("gemma3", MEDGEMMA, {**MEDGEMMA, "text_config": {**MEDGEMMA["text_config"], "rope_theta": 1e6}}),
    "images, which are not served": (
        "gemma3", MEDGEMMA, {**MEDGEMMA, "vision_config": {**VISION, "num_hidden_layers": 2}},
    ),
    "types of weights": ("llama", {"torch_dtype": "float16"}, {"dtype": "bfloat16"}),
    "what training, serving and programs write": (
        "llama",
        {"attention_dropout": 0.1, "eos_token_id": 2, "pad_token_id": 0, "use_cache": False, "pretraining_tp": 2},
        {"eos_token_id": [1, 2], "unsloth_version": "2026.1", "initializer_range": 0.1, "_name_or_path": "x"},
    ),
}  # fmt: skip
DIFFERENT: dict[str, tuple[str, Config, Config, str]] = {
    "theta": ("llama", {"rope_theta": 5e5}, {"rope_parameters": ROPE5}, "rope_parameters.rope_theta is 1000000.0, but 500000.0 in parents.a; one engine"),
    "kind of RoPE": ("llama", {}, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_parameters.rope_type is 'linear', but 'default' in"),
    "yarn's bounds": ("qwen2", {"rope_scaling": {"type": "yarn", **YARN}}, {"rope_scaling": {"type": "yarn", **YARN, "beta_fast": 16}}, "rope_parameters.beta_fast is 16, but 32 in"),
    "positions that dynamic NTK reads": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, {"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 256}, "max_position_embeddings is 256, but 512 in"),
    "positions that longrope reads": ("phi3", {"rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 128}, {"rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 128, "max_position_embeddings": 256}, "max_position_embeddings is 256, but 512 in"),
    "one factor of longrope": ("phi3", {"rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 128}, {"rope_scaling": {"type": "longrope", **LONG, "long_factor": [2.0] * 15 + [3.0]}, "original_max_position_embeddings": 128}, "rope_parameters.long_factor[15] is 3.0, but 2.0 in"),
    "nested theta": ("gemma3_text", {"rope_parameters": GEMMA3_5}, {"rope_parameters": {**GEMMA3_5, "full_attention": {**ROPE5, "rope_theta": 5e5}}}, "rope_parameters.full_attention.rope_theta is 500000.0, but 1000000.0 in"),
    "local theta": ("gemma3_text", {"rope_parameters": GEMMA3_5}, {"rope_local_base_freq": 2e4}, "rope_parameters.sliding_attention.rope_theta is 20000.0, but 10000.0 in"),
    "windows of layers": ("olmo3", {}, {"layer_types": [FULL] * 6}, "layer_types[0] is 'full_attention', but 'sliding_attention' in"),
    "a window switched on": ("qwen2", {"sliding_window": 32}, {"sliding_window": 32, "use_sliding_window": True, "max_window_layers": 0}, "layer_types[0] is 'sliding_attention', but 'full_attention' in"),
    "a window switched on without layer_types": ("qwen3_moe", {"sliding_window": 32}, {"sliding_window": 32, "use_sliding_window": True}, "sliding_window is 32, but absent in"),
    "windows": ("mistral", {"sliding_window": None}, {"sliding_window": 64}, "sliding_window is 64, but absent in"),
    "a head of its own": ("gemma2", {}, {"tie_word_embeddings": False}, "tie_word_embeddings is False, but True in"),
    "bias of a family that has none": ("mistral", {}, {"attention_bias": True}, "attention_bias is True, but False in"),
    "architectures": ("llama", {"architectures": ["LlamaForCausalLM"]}, {"architectures": ["MistralForCausalLM"]}, "architectures is ['MistralForCausalLM'], but ['LlamaForCausalLM'] in parents.a; merging needs"),
    "a key that nobody knows": ("llama", {}, {"attention_temperature": 2.0}, "attention_temperature is 2.0, but absent in parents.a; transformers does not know this key"),
    "a key that vLLM alone knows": ("llama", {}, {"is_causal": False}, "is_causal is False, but absent in"),
    "theta of nested text": ("gemma3", MEDGEMMA, {**MEDGEMMA, "text_config": {**MEDGEMMA["text_config"], "rope_theta": 5e5}}, "rope_parameters.full_attention.rope_theta is 500000.0, but 1000000.0 in"),
    "learned positions": ("gpt2", {"n_positions": 512}, {"n_positions": 1024}, "n_positions is 1024, but 512 in"),
}  # fmt: skip


def of(family: str, config: Config) -> Config:
    return {**({} if family in ("gemma3", "gpt2") else TINY), "model_type": family, **config}


@pytest.mark.parametrize("name", ALIKE)
def test_configs_that_compute_alike(name: str, read: Read) -> None:
    family, first, second = ALIKE[name]
    assert difference(read(of(family, first)), read(of(family, second))) == ""
    assert difference(read(of(family, second)), read(of(family, first))) == ""


@pytest.mark.parametrize("name", DIFFERENT)
def test_configs_that_compute_differently(name: str, read: Read) -> None:
    family, first, second, expected = DIFFERENT[name]
    found = difference(read(of(family, first)), read(of(family, second)))
    assert found.startswith(f"parents.b.model: {expected}"), found
    assert difference(read(of(family, second)), read(of(family, first))) != ""


def test_other_families_are_named_before_their_sizes(read: Read) -> None:
    found = difference(read(of("llama", {})), read(of("gemma2", {"hidden_size": 128})))
    assert found.startswith("parents.b.model: model_type is 'gemma2', but 'llama' in parents.a; merging needs")


def test_the_harmless_keys_in_which_parents_differ_are_listed(read: Read) -> None:
    first = read(of("llama", {"attention_dropout": 0.1}))
    assert differing(read(of("llama", {"eos_token_id": 7, "max_position_embeddings": 600})), first) == [
        "attention_dropout",
        "eos_token_id",
        "max_position_embeddings",
    ]


WRONG: dict[str, tuple[Config, str]] = {
    "no model_type": ({"model_type": None}, "has no model_type, by which transformers and vLLM choose the architecture; add"),
    "an unknown model_type": ({"model_type": "llama9"}, "model_type is 'llama9', unknown to transformers"),
    "a model_type of another type": ({"model_type": ["llama"]}, "has no model_type"),
    "text for a number": ({"hidden_size": "64"}, "is none of a llama model (Validation error for field 'hidden_size'"),
    "no number": ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan, with which nothing can be computed; correct it"),
    "infinity": ({"rope_theta": float("inf")}, "rope_parameters.rope_theta is inf, with which nothing"),
    "no theta": ({"rope_theta": None}, "rope_parameters.rope_theta is null; write its number"),
    "RoPE as a list": ({"rope_parameters": [1]}, "is none of a llama model"),
    "RoPE as text": ({"rope_scaling": "linear"}, "is none of a llama model"),
    "no heads": ({"num_attention_heads": 0}, "is none of a llama model"),
    "layers without an end": ({"num_hidden_layers": 1e400}, "is none of a llama model"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_configs_that_are_none(name: str, read: Read) -> None:
    change, expected = WRONG[name]
    with pytest.raises(UserError) as caught:
        read(of("llama", {}), **change)
    assert expected in str(caught.value)


POSITIONS: dict[str, tuple[str, Config, float]] = {
    "as written": ("llama", {}, 512),
    "linear RoPE": ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, 1024),
    "dynamic RoPE": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 4.0}}, 2048),
    "yarn, whose positions are stretched": ("qwen2", {"rope_scaling": {"type": "yarn", **YARN}}, 512),
    "longrope, too": ("phi3", {"rope_scaling": {"type": "longrope", **LONG}, "original_max_position_embeddings": 128}, 512),
    "gemma 3, too": ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 512),
    "nested text": ("gemma3", MEDGEMMA, 512),
    "learned positions": ("gpt2", {"n_positions": 256}, 256),
    "a length of its own": ("cohere", {"model_max_length": 4096}, 4096),
}  # fmt: skip


WINDOW = {"num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 64}
SERVED: dict[str, tuple[str, Config, str | None]] = {
    "the usual activation": ("qwen2", {}, None),
    "another activation": ("qwen2", {"hidden_act": "gelu"}, "hidden_act is 'gelu'.*qwen2 with 'silu' alone"),
    "silu by another name": ("llama", {"hidden_act": "swish"}, "hidden_act is 'swish'"),
    "gemma 2's activation": ("gemma2", {}, None),
    "another one of gemma 2": ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation is 'gelu'"),
    "a window in the later layers": ("qwen2", {**WINDOW, "max_window_layers": 2}, "for some of the 4 layers"),
    "of qwen3, too": ("qwen3", {**WINDOW, "max_window_layers": 2}, "for some of the 4 layers"),
    "a window in all layers": ("qwen2", {**WINDOW, "max_window_layers": 0}, None),
    "a window in no layer": ("qwen2", {**WINDOW, "max_window_layers": 4}, None),
    "a window that is switched off": ("qwen2", {**WINDOW, "use_sliding_window": False, "max_window_layers": 2}, None),
    "gemma 2's windows": ("gemma2", {"sliding_window": 64}, None),
}


@pytest.mark.parametrize("name", SERVED)
def test_what_vllm_does_not_serve_is_refused(name: str, read: Read) -> None:
    family, config, why = SERVED[name]
    settings = of(family, config)
    with pytest.raises(UserError, match=why) if why else nullcontext():
        check_served("parents.b", settings, read(settings))


@pytest.mark.parametrize("name", POSITIONS)
def test_a_window_beyond_the_positions(name: str, read: Read) -> None:
    family, config, positions = POSITIONS[name]
    found = read(of(family, config))
    assert found.positions == positions
    check_window("parents.b", found, int(positions))
    with pytest.raises(
        UserError, match=rf"max_model_len is {positions + 1:g}, but parents.b has {positions:g} positions; lower"
    ):
        check_window("parents.b", found, int(positions) + 1)
