"""Faults planted one at a time, each of which would make a number wrong without a word: all are refused or named.

Each row of `FAULTS` takes the sound sweep of `Home` and spoils one thing of it; then `plan`, which starts nothing, has to
refuse it, or to name it in what it prints. A fault that is not found is an open defect.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from orchestrator.config.load import load_config
from orchestrator.core.errors import UserError
from orchestrator.planning.plan import describe, make_plan
from orchestrator.results.layout import Layout
from orchestrator.stages.open import open_sweep, reopen_sweep
from tasks.serving.engine import InvalidWeights
from tasks.serving.vllm_engine import VllmEngine
from tests.helpers.merges import QUESTIONS
from tests.helpers.models import Models
from tests.helpers.paths import CLINICAL, INSTRUCT

WEIGHTS = "model.safetensors"
CHOICES = ["aspirin", "codeine", "warfarin", "heparin"]


@dataclass
class Home:
    """A sweep file and everything that it names, in a folder of its own: two parents, a quiz, a few notes."""

    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)
    """Top-level keys of the sweep file, in place of the usual ones."""

    def __post_init__(self) -> None:
        for name, parent in {"clinical": CLINICAL, "instruct": INSTRUCT}.items():
            shutil.copytree(parent, self.folder / name)
        self.quiz([{"question": f"Which drug treats case {i}?", "choices": CHOICES, "label": i % 4} for i in range(48)])
        self.notes([{"note": f"Patient {i} coughs.", "summary": f"Cough {i}."} for i in range(12)])
        self.examples([{"note": f"Case {i} has a fever.", "summary": f"Fever {i}."} for i in range(12)])

    def quiz(self, rows: list[dict[str, Any]], **settings: Any) -> None:
        """Write the multiple-choice task over these documents."""
        (self.folder / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = {
            "task": "quiz", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice",
            "dataset_kwargs": {"data_files": {"test": str(self.folder / "quiz.jsonl")}},
            "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_choice": "choices", "doc_to_target": "label",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }  # fmt: skip
        (self.folder / "tasks").mkdir(exist_ok=True)
        (self.folder / "tasks" / "quiz.yaml").write_text(yaml.safe_dump({**task, **settings}))

    def notes(self, rows: list[dict[str, Any]]) -> None:
        """Write the documents of the generation task."""
        (self.folder / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def examples(self, rows: list[dict[str, Any]]) -> None:
        """Write its training examples."""
        (self.folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def edit(self, file: str, **keys: Any) -> None:
        """Set keys of a JSON file; None takes one out."""
        path = self.folder / file
        content = {**(json.loads(path.read_text()) if path.exists() else {}), **keys}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    def tensors(self, parent: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
        """Write a parent's weights again after a change."""
        file = self.folder / parent / WEIGHTS
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    def objective(self, **keys: Any) -> None:
        """Set keys of the quiz's objective."""
        self.changes["objectives"] = {"clinical": {"tasks": ["quiz"], **keys}}

    def writing(self, **keys: Any) -> None:
        """Take the notes for the only objective, with these keys."""
        writing = {"tasks": ["notes"], "metric": "composite_without_bertscore", "gen_kwargs": {"max_gen_toks": 16}}
        self.changes["objectives"] = {"writing": {**writing, **keys}}

    def finetune(self, **keys: Any) -> None:
        """Fine-tune the instruct parent on the notes."""
        learned = {"tasks": ["notes"], "metric": "composite_without_bertscore", "gen_kwargs": {"max_gen_toks": 16}}
        self.changes["finetune"] = {
            "starts": ["instruct"], "tasks": {"cards": learned}, "examples": [4], "min_steps": 2, "epochs": 1, "max_length": 128, **keys,
        }  # fmt: skip

    def write(self) -> Path:
        """Write the sweep file."""
        content = {
            "parents": {name: {"model": f"./{name}"} for name in ("clinical", "instruct")},
            "recipes": [{"method": "linear", "alpha": [0.5]}],
            "objectives": {"clinical": {"tasks": ["quiz"]}},
            "generation": {"own": {"notes": {
                "file": "./notes.jsonl", "train": "./train.jsonl", "input": "note", "reference": "summary",
                "prompt": "Summarize.\n\n{{input}}\n\nSummary:",
            }}},
            "include_path": ["./tasks"],
            "dtype": "float32",
            "workers": {"backend": "fake", "engine": {"max_model_len": 256, "enforce_eager": True}},
            **self.changes,
        }  # fmt: skip
        path = self.folder / "sweep.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def said(self) -> str:
        """What `plan` prints, or why it refuses."""
        try:
            return describe(make_plan(load_config(self.write())))
        except UserError as error:
            return f"refused: {error}"


Fault = Callable[[Home], object]
FAULTS: dict[str, tuple[Fault, str]] = {}
"""Fault → what spoils the sweep, and words by which it is refused (`refused: ` is checked too) or named (`named: `)."""


def fault(name: str, words: str) -> Callable[[Fault], Fault]:
    def add(plant: Fault) -> Fault:
        FAULTS[name] = (plant, words)
        return plant

    return add


def without(*parts: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Leave out the tensors with one of these parts in their names."""
    return lambda tensors: {name: each for name, each in tensors.items() if not any(part in name for part in parts)}


def keys(file: str, **values: Any) -> Fault:
    return lambda home: home.edit(file, **values)


def recipe(**values: Any) -> Fault:
    return lambda home: home.changes.update(recipes=[values])


def labels(*values: Any, choices: list[str] = CHOICES, count: int = 48) -> Fault:
    """Give the quiz these labels, in turn."""
    rows = [{"question": f"Case {i}?", "choices": choices, "label": values[i % len(values)]} for i in range(count)]
    return lambda home: home.quiz(rows)


# -------------------------------------------------------------------- weights
@fault("a tensor is missing", "refused: model.layers.1.self_attn.k_proj.weight")
def _(home: Home) -> None:
    home.tensors("instruct", without("layers.1.self_attn.k_proj"))


@fault("a tensor has another shape", "refused: model.layers.0.mlp.up_proj.weight")
def _(home: Home) -> None:
    home.tensors(
        "instruct",
        lambda t: {
            **t,
            "model.layers.0.mlp.up_proj.weight": t["model.layers.0.mlp.up_proj.weight"][:, :-1].contiguous(),
        },
    )


@fault("a tensor that nothing uses", "named: v_head.summary.weight")
def _(home: Home) -> None:
    home.tensors("clinical", lambda t: {**t, "v_head.summary.weight": torch.zeros(1, 8)})


@fault("names of a compiled model", "named: _orig_mod")
def _(home: Home) -> None:
    home.tensors("instruct", lambda t: {f"_orig_mod.{name}": each for name, each in t.items()})


@fault("a file of weights is cut off", "refused: damaged or cut off")
def _(home: Home) -> None:
    file = home.folder / "instruct" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-64])


@fault("one shard of two", "refused: model-00002-of-00002.safetensors")
def _(home: Home) -> None:
    folder = home.folder / "instruct"
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")


@fault("an index that names a file that is not there", "refused: gone.safetensors")
def _(home: Home) -> None:
    home.edit("instruct/model.safetensors.index.json", weight_map={"model.norm.weight": "gone.safetensors"})


@fault("weights in int8 without a word", "refused: stored as I8")
def _(home: Home) -> None:
    home.tensors(
        "instruct", lambda t: {name: each.to(torch.int8) if "proj" in name else each for name, each in t.items()}
    )


@fault("weights in FP8 whose scales were dropped", "refused: stored as F8_E4M3")
def _(home: Home) -> None:
    home.tensors(
        "instruct",
        lambda t: {name: each.to(torch.float8_e4m3fn) if "proj" in name else each for name, each in t.items()},
    )


@fault("quantised weights", "refused: gptq")
def _(home: Home) -> None:
    home.edit("instruct/config.json", quantization_config={"quant_method": "gptq", "bits": 4})


@fault("one parent given twice", "named: the same weights")
def _(home: Home) -> None:
    shutil.copy(home.folder / "clinical" / WEIGHTS, home.folder / "instruct" / WEIGHTS)
    shutil.copy(home.folder / "clinical" / "config.json", home.folder / "instruct" / "config.json")


# -------------------------------------------------------------------- configs
FAULTS["another RoPE"] = (
    keys("instruct/config.json", rope_parameters={"rope_type": "default", "rope_theta": 12345.0}),
    "refused: rope_theta",
)
FAULTS["another activation"] = (keys("instruct/config.json", hidden_act="gelu"), "refused: hidden_act")
FAULTS["another norm epsilon"] = (keys("instruct/config.json", rms_norm_eps=0.01), "refused: rms_norm_eps")
FAULTS["a key that the class does not know"] = (keys("instruct/config.json", logit_scale=0.5), "refused: logit_scale")


@fault("a window beyond the positions", "refused: max_model_len")
def _(home: Home) -> None:
    home.edit("instruct/config.json", max_position_embeddings=128)


# -------------------------------------------------------------------- tokenizers and templates
@fault("another tokenizer's merges", "refused: merges")
def _(home: Home) -> None:
    file = home.folder / "instruct" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][::-1]
    file.write_text(json.dumps(tokenizer))


@fault("two tokens have changed places", "refused: vocabulary")
def _(home: Home) -> None:
    file = home.folder / "instruct" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = [token for token in vocabulary if token.isalpha()][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(tokenizer))


@fault("a stop id beyond the vocabulary", "named: is left out of the stop ids")
def _(home: Home) -> None:
    home.edit("instruct/generation_config.json", eos_token_id=[0, 128009])


@fault("a template argument that the template ignores", "refused: enable_thinking")
def _(home: Home) -> None:
    home.objective(apply_chat_template=True, chat_template_kwargs={"enable_thinking": False})


@fault("a description that the template leaves out", "named: takes no system turn")
def _(home: Home) -> None:
    template = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{{ m['content'] }}\n{% endfor %}"
    (home.folder / "instruct" / "chat_template.jinja").write_text(template)
    home.quiz(
        [{"question": f"Case {i}?", "choices": CHOICES, "label": i % 4} for i in range(8)], description="Answer well.\n"
    )
    home.objective(apply_chat_template=True)


@fault("a tokenizer without an end of text, in fine-tuning", "refused: eos_token")
def _(home: Home) -> None:
    for parent in ("clinical", "instruct"):
        home.edit(f"{parent}/tokenizer_config.json", eos_token=None)
        (home.folder / parent / "special_tokens_map.json").unlink(missing_ok=True)
    home.finetune()


# -------------------------------------------------------------------- questions
FAULTS["labels from 1"] = (labels(1, 2, 3, 4), "refused: label")
FAULTS["labels from 1, and a choice more"] = (
    labels(1, 2, 3, 4, choices=[*CHOICES, "insulin"]),
    "named: labels count from 1",
)
FAULTS["a label of -1 for unknown"] = (labels(0, 1, -1), "refused: label")
FAULTS["a label that is no choice"] = (labels("aspirin", "paracetamol"), "refused: paracetamol")
FAULTS["choices that are equal"] = (labels(0, 1, choices=["yes", "yes"]), "named: have the same choice twice")


@fault("a test question among the few-shot examples", "named: among their own few-shot examples")
def _(home: Home) -> None:
    rows = [{"question": f"Case {i}?", "choices": CHOICES, "label": i % 4} for i in range(16)]
    home.quiz(
        rows,
        fewshot_split="train",
        dataset_kwargs={
            "data_files": {"test": str(home.folder / "quiz.jsonl"), "train": str(home.folder / "quiz.jsonl")}
        },
    )
    home.objective(num_fewshot=2)


@fault("a document that is there twice", "named: the same question as an earlier one")
def _(home: Home) -> None:
    home.quiz([{"question": f"Case {i % 12}?", "choices": CHOICES, "label": i % 4} for i in range(24)])


@fault("a test note among the training examples", "named: 1 of the 12 examples are also in the training split")
def _(home: Home) -> None:
    home.examples(
        [{"note": f"{'Patient' if i == 3 else 'Case'} {i} coughs.", "summary": f"Cough {i}."} for i in range(12)]
    )
    home.finetune()


@fault("a reference that is no text", "refused: summary")
def _(home: Home) -> None:
    home.notes([{"note": "a cough", "summary": {"text": "cough"}}])
    home.writing()


@fault("a reference that is null", "refused: summary")
def _(home: Home) -> None:
    home.notes([{"note": "a cough", "summary": None}])
    home.writing()


@fault("half an emoji", "refused: line 1")
def _(home: Home) -> None:
    (home.folder / "notes.jsonl").write_bytes(b'{"note": "half \\ud83d", "summary": "ok"}\n')
    home.writing()


@fault("texts that are not UTF-8", "refused: line 1")
def _(home: Home) -> None:
    (home.folder / "notes.jsonl").write_bytes('{"note": "fièvre", "summary": "ok"}\n'.encode("latin-1"))
    home.writing()


@fault("a limit on new tokens under two names", "refused: max_gen_toks")
def _(home: Home) -> None:
    home.writing(gen_kwargs={"max_gen_toks": 16, "max_new_tokens": 4})


@fault("a probability beyond 1", "refused: top_p")
def _(home: Home) -> None:
    home.writing(gen_kwargs={"max_gen_toks": 16, "do_sample": True, "temperature": 0.5, "top_p": 1.5})


# -------------------------------------------------------------------- recipes
PAIR: dict[str, Any] = {"clinical": {}, "instruct": {}}
FAULTS["a weight that is missing"] = (recipe(method="linear", models=PAIR), "refused: weight")
FAULTS["a gradient beyond 1"] = (
    recipe(method="slerp", base_model="clinical", models=PAIR, parameters={"t": [0, 0.5, 2]}),
    "refused: t",
)
FAULTS["a weight that is a word"] = (
    recipe(method="linear", models={"clinical": {"weight": "half"}, "instruct": {"weight": 0.5}}),
    "refused: half",
)
FAULTS["a model too few"] = (
    recipe(method="model_stock", base_model="clinical", models={"instruct": {}}),
    "refused: model_stock",
)


@fault("examples that are not there", "refused: gone.jsonl")
def _(home: Home) -> None:
    home.finetune(method=["icft"], icft={"general": "./gone.jsonl"})


@pytest.fixture(autouse=True)
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quiz is a task file of one's own."""
    monkeypatch.setenv("MERGEFRONT_TRUST", str(tmp_path))


def test_the_sound_sweep_is_planned_without_a_word(tmp_path: Path) -> None:
    said = Home(tmp_path / "home").said()
    assert not said.startswith("refused") and "warning" not in said.lower()


def test_there_are_at_least_thirty() -> None:
    assert len(FAULTS) >= 30


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, tmp_path: Path) -> None:
    plant, words = FAULTS[name]
    home = Home(tmp_path / "home")
    plant(home)
    said = home.said()
    how, word = words.split(": ", 1)
    assert said.startswith("refused") == (how == "refused"), said
    assert word.lower() in said.lower(), said


# -------------------------------------------------------------------- what each family calls it
OF_FAMILIES: list[tuple[str, str, Any]] = [
    ("llama", "attention_bias", True),
    ("mistral-whole", "sliding_window", 16),
    ("qwen2", "hidden_act", "gelu"),
    ("qwen3", "rope_parameters.rope_theta", 7.0),
    ("gemma2", "query_pre_attn_scalar", 256),
    ("gemma2", "final_logit_softcapping", 5.0),
    ("gemma2", "attn_logit_softcapping", None),
    ("gemma3", "rope_parameters.full_attention.rope_theta", 7.0),
    ("gemma3", "layer_types", ["full_attention", "full_attention"]),
    ("gemma3-images", "text_config.query_pre_attn_scalar", 256),
    ("phi3", "rope_parameters.partial_rotary_factor", 0.5),
    ("olmo2", "rms_norm_eps", 0.1),
    ("olmo3", "layer_types", ["full_attention", "full_attention"]),
    ("granite", "logits_scaling", 16.0),
    ("granite", "residual_multiplier", 1.0),
    ("smollm3", "no_rope_layers", [0, 0]),
    ("starcoder2", "norm_epsilon", 0.1),
    ("qwen3-moe", "num_experts_per_tok", 1),
    ("qwen3-moe", "norm_topk_prob", True),
    ("mixtral", "num_experts_per_tok", 1),
]
"""Architecture, key of config.json, and a value that it does not have in the other parent."""


@pytest.mark.parametrize(("architecture", "key", "value"), OF_FAMILIES, ids=lambda each: str(each)[:40])
def test_a_changed_key_of_each_familys_config_is_refused(
    architecture: str, key: str, value: Any, models: Models, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    for name, parent in {"clinical": "a", "instruct": "b"}.items():
        shutil.rmtree(home.folder / name)
        shutil.copytree(models(architecture, "bfloat16")[parent], home.folder / name)
    assert not home.said().startswith("refused"), home.said()
    path = home.folder / "instruct" / "config.json"
    config = json.loads(path.read_text())
    *parts, last = key.split(".")
    inner = config
    for part in parts:
        inner = inner[part]
    assert inner.get(last) != value
    inner[last] = value
    path.write_text(json.dumps(config))
    said = home.said()
    assert said.startswith("refused: parents.instruct") and last in said, said


# -------------------------------------------------------------------- between two commands
def swap_parents(home: Home) -> None:
    for old, new in (("clinical", "other"), ("instruct", "clinical"), ("other", "instruct")):
        (home.folder / old).rename(home.folder / new)


BETWEEN: dict[str, tuple[Fault, str]] = {
    "the parents have changed places": (swap_parents, "clinical has other weights than at the last command"),
    "another chat template": (
        lambda home: (home.folder / "instruct" / "chat_template.jinja").write_text("{{ messages }}"),
        "served otherwise than at the last command (tokenizer, chat_template)",
    ),
    "another stop id": (keys("instruct/generation_config.json", eos_token_id=[2, 5]), "(stop_token_ids)"),
    "another dtype": (lambda home: home.changes.update(dtype="bfloat16"), "(dtype)"),
    "another question": (labels(1, 2, 3, 0), "clinical/0/quiz has other questions than at the last command"),
}  # fmt: skip
"""What changes between two commands over one results folder → what the second says, which uses no answer of before."""


@pytest.mark.parametrize("name", BETWEEN)
def test_what_changed_between_two_commands_is_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = BETWEEN[name]
    home = Home(tmp_path / "home")
    first = open_sweep(load_config(home.write()), Layout(tmp_path / "out"))
    change(home)
    capsys.readouterr()
    second = open_sweep(load_config(home.write()), Layout(tmp_path / "out"))
    assert words in capsys.readouterr().err
    one, other = (
        {(r.id, s.serving.id, s.profile.id, q.id) for r in s.recipes for t in s.tasks.suites for q in t.questions}
        for s in (first, second)
    )
    changed = {key[:3] for key in one ^ other}
    assert changed, "no answer of before belongs to the new sweep"


def test_labels_that_changed_between_two_commands_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, layout = Home(tmp_path / "home"), Layout(tmp_path / "out")
    open_sweep(load_config(home.write()), layout)
    home.quiz([{"question": f"Which drug treats case {i}?", "choices": CHOICES, "label": 3 - i % 4} for i in range(48)])
    reopen_sweep(layout)
    open_sweep(load_config(home.write()), layout)
    said = capsys.readouterr().err
    assert said.count("clinical/0/quiz has other labels or references than at the last command") == 2
    reopen_sweep(layout)
    assert "other labels" not in capsys.readouterr().err


# -------------------------------------------------------------------- on the way into the engine
NORM = "model.layers.1.input_layernorm.weight"
SPOILT: dict[str, tuple[Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], str]] = {
    "a scale is dropped": (without(NORM), f"{NORM} is missing"),
    "a projection is missing": (without("layers.0.self_attn.v_proj"), "model.layers.0.self_attn.v_proj.weight is missing"),
    "a tensor is cut": (lambda t: {**t, NORM: t[NORM][:-1].contiguous()}, f"{NORM} has shape"),
    "a tensor that nobody knows": (lambda t: {**t, "model.extra.weight": torch.ones(2)}, "model.extra.weight"),
    "a weight is NaN": (lambda t: {**t, NORM: t[NORM] * float("nan")}, f"{NORM} has NaN or Inf"),
}  # fmt: skip


def test_what_is_spoilt_on_the_way_into_the_engine_is_named_and_leaves_nothing_behind(
    vllm: VllmEngine, models: Models, tmp_path: Path
) -> None:
    folders = models("llama", "float32")
    vllm.load_checkpoint(folders["b"])
    answers, checksums = vllm.answer(QUESTIONS), vllm.checksums()
    for number, (change, words) in enumerate(SPOILT.values()):
        folder = tmp_path / str(number)
        shutil.copytree(folders["a"], folder)
        save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(InvalidWeights, match=re.escape(words)):
            vllm.load_checkpoint(folder)
        vllm.load_checkpoint(folders["b"])
        assert vllm.checksums() == checksums and vllm.answer(QUESTIONS) == answers
