"""One vLLM engine for a whole sweep: its weights are replaced in place, recipe after recipe.

`hold(recipe)` merges straight into the running engine (`tasks.merging.live`, `tasks.serving.weights`), or, where
checkpoints are kept, by way of a checkpoint folder; `answer(questions)` asks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.core.records import Answer, Question, Serving
from orchestrator.recipes.recipe import Recipe
from tasks.merging.checkpoint import adapted, materialise
from tasks.serving.boot import Boot, prepare

MAX_LOGPROB_IDS = 128
"""vLLM's limit on `SamplingParams.logprob_token_ids`."""
MAX_FORCED = 64
"""Tokens that are worth a step each; a longer continuation is read in one pass, its context with it."""


class InvalidWeights(Exception):
    """The merged checkpoint is not a model: tensors are missing, misshapen, or not finite."""


class Engine(Protocol):
    """What a worker needs; `tasks.serving.fake.FakeEngine` is the other implementation."""

    def hold(self, recipe: Recipe) -> None: ...

    def answer(self, questions: Sequence[Question]) -> list[Answer]: ...


class VllmEngine:
    """
    Args:
        scratch: folder of this worker alone, for parents with an adapter merged in.
        keep: folder to keep merged checkpoints in, or None to write none. The nodes of an engine's stages share it.
    """

    def __init__(self, boot: Boot, serving: Serving, scratch: Path, keep: Path | None = None) -> None:
        prepare(boot.workers)
        from transformers import AutoConfig
        from vllm import LLM

        self.serving, self.scratch, self.keep = serving, scratch, keep
        self.llm = LLM(**boot.arguments)
        # As the model's config says: vLLM's own copy of it is untied where the first parent's file carries a head.
        tied = bool(AutoConfig.from_pretrained(boot.model).tie_word_embeddings)
        self.llm.collective_rpc("open_parents", args=(str(scratch), tied, boot.place))

    def hold(self, recipe: Recipe) -> None:
        """Merge and load.

        Raises:
            InvalidWeights: mergekit refuses the recipe, or the merged tensors are not those of the model or not finite.
            MergeRefused: mergekit refuses the recipe, where checkpoints are kept.
            Exception: whatever else goes wrong: a full disk, a lack of memory, a parent that cannot be read.
        """
        if self.keep is None:
            # Here, and not in the ranks: see `merged_folder`.
            self._swap("merge", adapted(recipe, self.scratch))
        else:
            from tasks.merging.live import materialise_random  # here: torch takes seconds, and rehearsals need none

            write = materialise if recipe.seed is None else materialise_random
            self.load(write(recipe, self.keep / recipe.id, self.scratch))

    def load(self, folder: Path) -> None:
        """Put a checkpoint's weights into the running engine."""
        self._swap("load_checkpoint", str(folder))

    def checksums(self) -> list[dict[str, str]]:
        """What the engine holds, a dictionary a rank: see `tasks.serving.weights.Weights.checksums`."""
        return list(self.llm.collective_rpc("checksums"))

    def _swap(self, method: str, argument: object) -> None:
        for problems in self.llm.collective_rpc(method, args=(argument,)):
            if problems:
                more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
                raise InvalidWeights("; ".join(problems[:5]) + more)
        self._forget()

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in the order of the questions. They depend on the questions asked together, and on nothing
        that was asked before: the prefix cache starts empty."""
        self._forget()
        requests = [_request(group, self.serving) for group in _by_prompt(questions)]
        # Those that start alike next to each other, for the prefix cache.
        requests.sort(key=lambda request: request.prompt)
        for request in requests:
            request.sampling.skip_clone = True  # each is its own already; vLLM's deep copies take 6 % of a small model
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
    few = 0 < len(first.continuation) <= min(MAX_FORCED, len(first.context))
    return _forced(first) if few else _prompted(first)


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


def _forced(question: Question) -> _Request:
    """The continuation is written, token by token, after a context that the prefix cache may hold."""
    from tasks.serving.forced import forced

    def read(output: Any) -> list[Answer]:
        places = list(zip(question.continuation, output.outputs[0].logprobs, strict=True))
        if any(token not in place for token, place in places):
            return [Answer(question.id, math.nan, False)]  # no token can be forced on logits that are NaN
        return [_sum(question, [place[token] for token, place in places])]

    return _Request(list(question.context), forced(question.continuation), read)


def _prompted(question: Question) -> _Request:
    """The continuation is read, as the end of a prompt: one pass over all of it, where it is most of the prompt."""
    from vllm import SamplingParams

    start = len(question.context)
    prompt = [*question.context, *question.continuation]
    sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)

    def read(output: Any) -> list[Answer]:
        entries = [place[token] for token, place in zip(prompt[start:], output.prompt_logprobs[start:], strict=True)]
        return [_sum(question, entries)]

    return _Request(prompt, sampling, read)


def _sum(question: Question, entries: list[Any]) -> Answer:
    return Answer(question.id, sum(entry.logprob for entry in entries), all(entry.rank == 1 for entry in entries))
