"""Replies with their reasoning cut are those of lm-eval's own model on mergekit's checkpoint: `make prove`.

A random model writes no `</think>`. So the token that a merge of the pair writes in about half of its replies is given
that name: its rows change places with those of the new token in both parents.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.common import DATA
from orchestrator.config.load import load_config
from orchestrator.core.records import Serving
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_serving
from orchestrator.recipes.expand import expand
from tasks.evaluation.judge import score_task
from tasks.evaluation.suites import SuiteTask, load_suites, open_lm
from tasks.serving.boot import Boot
from tasks.serving.vllm_engine import VllmEngine
from tests.helpers.models import make_model
from tests.helpers.templates import QWEN3

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the data sets in MERGEFRONT_DATA"),
]
QUESTIONS = int(os.environ.get("QUESTIONS", "100"))
WRITTEN, WINDOW = 48, 512
END = "</think>"


def merged(parents: dict[str, Path], folder: Path) -> Path:
    """mergekit's checkpoint of the pair."""
    models = [{"model": str(path), "parameters": {"weight": 0.5}} for path in parents.values()]
    recipe = {"merge_method": "linear", "models": models, "dtype": "float32", "tokenizer_source": str(parents["b"])}
    folder.mkdir()
    (folder / "merge.yaml").write_text(yaml.safe_dump(recipe))
    command = [str(Path(sys.executable).with_name("mergekit-yaml")), str(folder / "merge.yaml"), str(folder / "merged")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "merged"


def make_pair(folder: Path) -> dict[str, Path]:
    """Two random Qwen 3 models with Qwen 3's template, whose merge reasons in about half of its replies."""
    parents = {name: make_model(folder / name, seed, architecture="qwen3") for name, seed in (("a", 11), ("b", 12))}
    for path in parents.values():
        tokenizer = AutoTokenizer.from_pretrained(path)
        tokenizer.add_tokens(["<think>", END], special_tokens=False)
        tokenizer.chat_template = QWEN3
        tokenizer.save_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        # A character that is cut at the end of a reply is a replacement character in transformers, and left out in vLLM.
        parts = [token for token in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([token])]
        with torch.no_grad():
            model.get_output_embeddings().weight[parts] = 0
        model.save_pretrained(path)
    written = lm_eval_replies(merged(parents, folder / "before"), {}, 24)
    often = Counter(token for text in written for token in set(tokenizer.encode(text)[2:-2]))
    chosen = min(often, key=lambda token: abs(often[token] - len(written) / 2))
    rows = torch.tensor([chosen, tokenizer.convert_tokens_to_ids(END)])
    for path in parents.values():
        model = AutoModelForCausalLM.from_pretrained(path)
        with torch.no_grad():
            for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
                weight[rows] = weight[rows.flip(0)]
        model.save_pretrained(path)
    return parents


def lm_eval_replies(
    model: Path, settings: dict[str, Any], limit: int, results: dict[str, Any] | None = None
) -> list[str]:
    """`lm_eval --model hf` on IFEval; its results go to `results`."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    # One place of vLLM's window stays free for the token that it writes at least.
    theirs = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=8, max_length=WINDOW, **settings)
    with contextlib.chdir(DATA):
        found = simple_evaluate(
            model=theirs, tasks=["ifeval"], limit=limit, apply_chat_template=True, system_instruction="Think first.",
            gen_kwargs=f"max_gen_toks={WRITTEN}", bootstrap_iters=0,
        )  # fmt: skip
    if results is not None:
        results.update(found["results"]["ifeval"])
    return [sample["resps"][0][0] for sample in sorted(found["samples"]["ifeval"], key=lambda each: each["doc_id"])]


def ours(parents: dict[str, Path], folder: Path) -> tuple[SuiteTask, Any]:
    """The same by a live merge: IFEval's task with the replies in its requests, and its score."""
    objective = {
        "tasks": ["ifeval"], "limit": QUESTIONS, "apply_chat_template": True, "system_prompt": "Think first.",
        "gen_kwargs": {"max_gen_toks": WRITTEN}, "think_end_token": END,
        "chat_template_kwargs": {"enable_thinking": True},
    }  # fmt: skip
    sweep = {
        "parents": {name: {"model": str(path)} for name, path in parents.items()},
        "recipes": [{"method": "linear", "alpha": [0.5]}],
        "objectives": {"instruction": objective},
        "data_root": str(DATA),
        "dtype": "float32",
        "workers": {"gpus": 0, "engine": {"max_model_len": WINDOW, "enforce_eager": True, "kv_cache_gib": 0.25}},
    }
    (folder / "sweep.yaml").write_text(json.dumps(sweep))  # JSON is YAML
    config = load_config(folder / "sweep.yaml")
    files = resolve(config)
    serving: Serving = make_serving(config, files, folder / "serving")
    lm = open_lm(config, serving)
    (suite,) = load_suites(config.objectives, config, lm)
    boot = Boot(parents["a"], Path(serving.folder), "float32", config.workers, 2)
    engine = VllmEngine(boot, serving, folder / "scratch")
    (recipe,) = [r for r in expand(config, {name: f.source for name, f in files.items()}) if r.method == "linear"]
    engine.load(recipe)
    lm.answer = engine.answer
    return suite, score_task(suite, lm)


@pytest.mark.timeout(3600)
def test_replies_and_scores_are_those_of_lm_eval(tmp_path: Path) -> None:
    parents = make_pair(tmp_path)
    theirs: dict[str, Any] = {}
    settings = {"think_end_token": END, "enable_thinking": True}
    expected = lm_eval_replies(merged(parents, tmp_path / "after"), settings, QUESTIONS, theirs)
    suite, found = ours(parents, tmp_path)
    replies = [instance.resps[0] for instance in sorted(suite.task.instances, key=lambda each: each.doc_id)]
    reasoned = found.reasoning
    print(f"{len(replies)} replies, equal: {replies == expected}; {reasoned}; {found.metrics}")
    assert replies == expected
    assert reasoned.tokens > 0 and 0 < reasoned.unfinished < reasoned.replies, "some replies are cut, some are not"
    for (metric, filter_), value in zip(suite.metrics, found.metrics.values(), strict=True):
        assert value == pytest.approx(theirs[f"{metric},{filter_}"], abs=1e-12)
