"""One vLLM engine for a whole sweep: its weights are replaced in place, recipe after recipe.

`hold(recipe)` merges into a checkpoint folder and loads that into the running engine; `answer(questions)` asks.
vLLM only warns about a tensor that it did not get and keeps the old one, so what arrives is counted here
against the tensors that the engine was started with.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.config import Workers
from orchestrator.recipe import Recipe
from orchestrator.records import Answer, Question, Serving
from tasks.merge import headers, materialise

MAX_LOGPROB_IDS = 128
"""vLLM's limit on `SamplingParams.logprob_token_ids`."""


class InvalidWeights(Exception):
    """The merged checkpoint is not a model: tensors are missing, misshapen, or not finite."""


@dataclass(frozen=True)
class Held:
    """What it took, in seconds, until the engine held a recipe."""

    merge_s: float
    load_s: float


class Engine(Protocol):
    """What a worker needs; `tasks.fake.FakeEngine` is the other implementation."""

    def hold(self, recipe: Recipe) -> Held: ...

    def answer(self, questions: Sequence[Question]) -> list[Answer]: ...


class WeightLoader:
    """vLLM worker extension (`worker_extension_cls`); runs where the weights are."""

    def load_checkpoint(self, folder: str) -> tuple[int, list[str]]:
        """Replace the engine's weights by those in `folder`.

        Returns:
            How many tensors vLLM took from the checkpoint, and the names of those that hold NaN or Inf.
        """
        from safetensors import safe_open

        taken, broken = 0, []

        def tensors() -> Any:
            nonlocal taken
            for name, (file, _) in headers(Path(folder)).items():
                with safe_open(file, framework="pt") as opened:
                    tensor = opened.get_tensor(name)
                if not tensor.isfinite().all():
                    broken.append(name)
                yield name, tensor
                taken += 1

        self.reload_weights(weights_iterator=tensors(), is_checkpoint_format=True)  # type: ignore[attr-defined]
        return taken, broken


class VllmEngine:
    """
    Args:
        boot: folder of the parent that the engine starts with; it gives architecture and tensor names.
        tokenizer: folder of the serving's tokenizer.
        scratch: folder of this worker alone, for merged checkpoints on their way into the engine.
        keep: folder to keep merged checkpoints in, or None to remove each as soon as it is loaded.
    """

    def __init__(
        self,
        boot: Path,
        tokenizer: Path,
        serving: Serving,
        dtype: str,
        workers: Workers,
        scratch: Path,
        keep: Path | None = None,
    ) -> None:
        settings = workers.engine
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(settings.kv_cache_gib))))
        # vLLM would pin the threads of every CPU worker to the same cores.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        if settings.enforce_eager:
            # vLLM compiles small parts of its sampler even then: 20 s at the first answer on a CPU.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        from vllm import LLM

        self.serving, self.scratch, self.keep = serving, scratch, keep
        self.expected = {name: shape for name, (_, shape) in headers(boot).items()}
        extra: dict[str, Any] = {}
        if settings.max_num_batched_tokens is not None:
            extra["max_num_batched_tokens"] = settings.max_num_batched_tokens
        if workers.gpus:
            extra["gpu_memory_utilization"] = settings.gpu_memory_utilization
        self.llm = LLM(
            model=str(boot),
            tokenizer=str(tokenizer),
            dtype=dtype,
            max_model_len=settings.max_model_len,
            max_num_seqs=settings.max_num_seqs,
            tensor_parallel_size=settings.tensor_parallel_size,
            enforce_eager=settings.enforce_eager,
            enable_prefix_caching=True,
            worker_extension_cls="tasks.engine.WeightLoader",
            load_format="safetensors",
            disable_log_stats=True,
            seed=0,
            **extra,
        )

    def hold(self, recipe: Recipe) -> Held:
        """Merge and load.

        Raises:
            MergeRefused: mergekit refuses the recipe.
            InvalidWeights: the merged tensors are not those of the model, or not finite.
            OSError: the disk is full.
        """
        start = time.perf_counter()
        folder = materialise(recipe, (self.keep or self.scratch) / recipe.id, self.scratch)
        merged = time.perf_counter()
        try:
            self.load(folder)
        finally:
            if self.keep is None:
                shutil.rmtree(folder, ignore_errors=True)
        return Held(merged - start, time.perf_counter() - merged)

    def load(self, folder: Path) -> None:
        """Put a checkpoint's weights into the running engine and forget what the old ones computed."""
        found = {name: shape for name, (_, shape) in headers(folder).items()}
        # A tied head may stand in the file or not; either way the engine reads the embedding.
        optional = {"lm_head.weight"} if self.llm.model_config.hf_config.tie_word_embeddings else set()
        problems = [f"{name} is missing" for name in self.expected if name not in found and name not in optional]
        problems += [
            f"{name} is not a tensor of the model" for name in found if name not in {*self.expected, *optional}
        ]
        problems += [
            f"{name} has shape {list(shape)} instead of {list(self.expected[name])}"
            for name, shape in found.items()
            if name in self.expected and shape != self.expected[name]
        ]
        if problems:
            raise InvalidWeights(f"{len(problems)} tensors do not fit the engine: {'; '.join(problems[:5])}")
        for taken, broken in self.llm.collective_rpc("load_checkpoint", args=(str(folder),)):
            if taken != len(found):
                raise InvalidWeights(f"vLLM took {taken} of {len(found)} tensors")
            if broken:
                raise InvalidWeights(f"{len(broken)} tensors hold NaN or Inf: {', '.join(broken[:5])}")
        self._forget()

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions. They depend on the questions asked together, and on nothing
        that was asked before: the prefix cache starts empty."""
        self._forget()
        requests = [_request(group, self.serving) for group in _by_prompt(questions)]
        outputs = self.llm.generate(
            [{"prompt_token_ids": request.prompt} for request in requests],
            [request.sampling for request in requests],
            use_tqdm=False,
        )
        found: dict[str, Answer] = {}
        for request, output in zip(requests, outputs, strict=True):
            found.update({answer.question_id: answer for answer in request.read(output)})
        return [found[question.id] for question in questions]

    def _forget(self) -> None:
        """Empty the prefix cache; it knows nothing of weights and would mix the answers of two recipes."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache: requests are still running in this engine")


@dataclass(frozen=True)
class _Request:
    """One vLLM request that answers one or several questions."""

    prompt: list[int]
    sampling: Any
    read: Callable[[Any], list[Answer]]


def _by_prompt(questions: Sequence[Question]) -> list[list[Question]]:
    """The lettered choices of one question share their prompt: single-token continuations of one context are
    read from one request. Everything else is a request of its own."""
    lettered: dict[tuple[int, ...], list[Question]] = defaultdict(list)
    groups = []
    for question in questions:
        if question.decoding is None and len(question.continuation) == 1:
            lettered[question.context].append(question)
        else:
            groups.append([question])
    for same in lettered.values():
        groups += [same[start : start + MAX_LOGPROB_IDS] for start in range(0, len(same), MAX_LOGPROB_IDS)]
    return groups


def _request(group: list[Question], serving: Serving) -> _Request:
    first = group[0]
    if first.decoding is not None:
        return _generation(first, serving)
    if len(first.continuation) == 1:
        return _choices(group)
    return _continuation(first)


def _generation(question: Question, serving: Serving) -> _Request:
    from vllm import SamplingParams

    decoding = question.decoding
    assert decoding is not None
    sampling = SamplingParams(
        max_tokens=decoding.max_tokens,
        stop=list(decoding.stop),
        stop_token_ids=list(serving.stop_token_ids),
        temperature=decoding.temperature,
        top_p=decoding.top_p,
        top_k=decoding.top_k,
        repetition_penalty=decoding.repetition_penalty,
        seed=decoding.seed,
    )

    def read(output: Any) -> list[Answer]:
        made = output.outputs[0]
        return [Answer(question.id, text=made.text, tokens=len(made.token_ids))]

    return _Request(list(question.context), sampling, read)


def _choices(group: list[Question]) -> _Request:
    """One token is sampled greedily; vLLM returns the log-probabilities of the asked ids beside it."""
    from vllm import SamplingParams

    ids = [question.continuation[0] for question in group]
    sampling = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=ids, detokenize=False)

    def read(output: Any) -> list[Answer]:
        made = output.outputs[0]
        logprobs = made.logprobs[0]
        return [
            Answer(question.id, logprobs[token].logprob, made.token_ids[0] == token, tokens=1)
            for question, token in zip(group, ids, strict=True)
        ]

    return _Request(list(group[0].context), sampling, read)


def _continuation(question: Question) -> _Request:
    from vllm import SamplingParams

    start = len(question.context)
    prompt = [*question.context, *question.continuation]
    sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)

    def read(output: Any) -> list[Answer]:
        entries = [place[token] for token, place in zip(prompt[start:], output.prompt_logprobs[start:], strict=True)]
        greedy = all(entry.rank == 1 for entry in entries)
        return [Answer(question.id, sum(entry.logprob for entry in entries), greedy)]

    return _Request(prompt, sampling, read)
