"""Three swaps in a row in one engine, each beside what lm-eval's own model makes of mergekit's checkpoint."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from orchestrator.config.workers import EngineSettings, Workers
from orchestrator.core.records import Serving
from orchestrator.recipes.recipe import Source
from tasks.merging.checkpoint import materialise
from tasks.merging.plain import plain_folder
from tasks.serving.boot import Boot
from tasks.serving.vllm_engine import VllmEngine
from tests.helpers.merges import QUESTIONS, recipe


def open_engine(folder: Path, dtype: str, scratch: Path, **settings: object) -> VllmEngine:
    """Start a real engine on a model; it serves 256 tokens and stops at id 0."""
    values = {"max_model_len": 256, "enforce_eager": True, "max_num_seqs": 16, "kv_cache_gib": 1 / 16, **settings}
    # A tenth of a GPU where there is one (`python -m benchmarks.gpu`): the engines of a session live side by side.
    workers = Workers(gpus=0.1 if torch.cuda.is_available() else 0.0, engine=EngineSettings.model_validate(values))
    serving = Serving("t", None, (0,), 256, "x", (), "a", str(folder))
    boot = plain_folder(Source("boot", "a", str(folder)), scratch)
    return VllmEngine(Boot(boot, boot, dtype, workers, 3, workers.engine.drafts is True), serving, scratch)


def scores(folder: Path, tokenizer: Path) -> list[tuple[float, bool]]:
    """The questions with a continuation, by lm-eval's own Hugging Face model in float32: log-likelihood and greedy."""
    from lm_eval.models.huggingface import HFLM

    # Eager, for the other attention of transformers leaves out what Gemma 2 does to its logits.
    settings = {"dtype": "float32", "device": "cpu", "batch_size": 1, "attn_implementation": "eager"}
    lm = HFLM(pretrained=str(folder), tokenizer=str(tokenizer), **settings)
    asked = [question for question in QUESTIONS if question.decoding is None]
    # With texts that differ: lm-eval answers requests of one text once.
    requests = [
        ((str(index), ""), list(question.context), list(question.continuation)) for index, question in enumerate(asked)
    ]
    return list(lm._loglikelihood_tokens(requests, disable_tqdm=True))


def three_swaps(folders: dict[str, Path], scratch: Path, start: Callable[..., VllmEngine] | None = None) -> float:
    """Load a recipe, another, and the first again, and check the answers and weights after each.

    Args:
        start: makes the engine; None for one in this process.

    Returns:
        The largest difference to lm-eval's log-likelihoods, in nats.
    """
    engine = start(folders["a"], "float32") if start else open_engine(folders["a"], "float32", scratch)
    first, second = recipe("linear", folders, "float32"), recipe("slerp", {**folders, "a": folders["base"]}, "float32")
    answers, loaded, differences = [], [], []
    checkpoints = {wanted.id: materialise(wanted, scratch / wanted.id, scratch) for wanted in (first, second)}
    # vLLM changes classes of transformers in its own process.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        theirs = {key: process.submit(scores, folder, folders["a"]).result() for key, folder in checkpoints.items()}
    for wanted in (first, second, first):
        engine.load(wanted)
        answers.append(engine.answer(QUESTIONS))
        loaded.append(engine.checksums())
        expected = theirs[wanted.id]
        scored = [(each.logprob, each.is_greedy) for each in answers[-1] if each.logprob is not None]
        differences += [abs(mine[0] - other[0]) for mine, other in zip(scored, expected, strict=True)]
        assert [greedy for _, greedy in scored] == [greedy for _, greedy in expected]
    assert answers[0] == answers[2] != answers[1]
    assert loaded[0] == loaded[2]
    assert all(loaded[1][0][name] != digest for name, digest in loaded[0][0].items()), "every part was replaced"
    engine.load_checkpoint(scratch / first.id)
    assert engine.checksums() == loaded[0]
    assert engine.answer(QUESTIONS) == answers[0]
    return max(differences)
