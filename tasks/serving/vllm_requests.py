"""From questions to vLLM's requests, and from its outputs to answers.

vLLM is imported inside the functions: `tasks.serving.boot.prepare` has to come first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.records import Answer, Question, Serving
from tasks.serving.engine import QuestionRefused

MAX_LOGPROB_IDS = 128
"""vLLM's limit on `SamplingParams.logprob_token_ids`."""
MAX_FORCED = 64
"""Most tokens that are written one by one; a longer continuation is read in one pass, its context with it."""
FORCED = "forced_token_ids"
"""The key in a request's `extra_args` of the tokens that it has to write: see `tasks.serving.forced`."""


@dataclass(frozen=True)
class Request:
    """One vLLM request that answers one or several questions."""

    prompt: list[int]
    """Token ids."""
    sampling: Any
    """vLLM's SamplingParams."""
    read: Callable[[Any], list[Answer]]
    """Reads the answers from vLLM's RequestOutput."""
    question_id: str
    """The first of its questions."""


def to_requests(questions: Sequence[Question], serving: Serving) -> list[Request]:
    """Make the requests that answer all questions.

    Those that start alike are next to each other, for the prefix cache.

    Raises:
        QuestionRefused: vLLM has no such decoding.
    """
    requests = []
    for group in _by_prompt(questions):
        try:
            requests.append(_request(group, serving))
        except refusal() as error:
            raise QuestionRefused(group[0].id, str(error)) from error
    requests.sort(key=lambda request: request.prompt)
    for request in requests:
        # Each has its own already; vLLM's deep copies take 6 % of the time with a small model.
        request.sampling.skip_clone = True
    return requests


def refusal() -> type[Exception]:
    """Return the class of what vLLM raises for a request that it refuses; until 0.26 that was a plain ValueError."""
    from vllm import exceptions

    found: type[Exception] = getattr(exceptions, "VLLMClientError", ValueError)
    return found


def _by_prompt(questions: Sequence[Question]) -> list[list[Question]]:
    """Group the questions that one request answers.

    The lettered choices of one question share their prompt: single-token continuations of one context are read from
    one request. Everything else is a request of its own.
    """
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


def _request(group: list[Question], serving: Serving) -> Request:
    first = group[0]
    if first.decoding is not None:
        return _generation(first, serving)
    if len(first.continuation) == 1:
        return _choices(group)
    few = 0 < len(first.continuation) <= min(MAX_FORCED, len(first.context))
    return _forced(first) if few else _prompted(first)


def _generation(question: Question, serving: Serving) -> Request:
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
        skip_special_tokens=decoding.skip_special_tokens,
    )

    def read(output: Any) -> list[Answer]:
        made = output.outputs[0]
        return [Answer(question.id, text=made.text, tokens=len(made.token_ids))]

    return Request(list(question.context), sampling, read, question.id)


def _choices(group: list[Question]) -> Request:
    """One token is sampled greedily; vLLM returns the log-probabilities of the choices beside it."""
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

    return Request(list(group[0].context), sampling, read, group[0].id)


def _forced(question: Question) -> Request:
    """The continuation is written, token by token, after a context that the prefix cache may have."""
    from vllm import SamplingParams

    tokens = question.continuation
    sampling = SamplingParams(
        max_tokens=len(tokens), temperature=0.0, logprobs=0, ignore_eos=True, detokenize=False,
        extra_args={FORCED: list(tokens)},
    )  # fmt: skip

    def read(output: Any) -> list[Answer]:
        places = list(zip(tokens, output.outputs[0].logprobs, strict=True))
        if any(token not in place for token, place in places):
            return [Answer(question.id, math.nan, False)]  # no token can be forced on logits that are NaN
        return [_sum(question, [place[token] for token, place in places])]

    return Request(list(question.context), sampling, read, question.id)


def _prompted(question: Question) -> Request:
    """The continuation is read, as the end of a prompt: one pass over all of it, where it is most of the prompt."""
    from vllm import SamplingParams

    start = len(question.context)
    prompt = [*question.context, *question.continuation]
    sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)

    def read(output: Any) -> list[Answer]:
        entries = [place[token] for token, place in zip(prompt[start:], output.prompt_logprobs[start:], strict=True)]
        return [_sum(question, entries)]

    return Request(prompt, sampling, read, question.id)


def _sum(question: Question, entries: list[Any]) -> Answer:
    return Answer(question.id, sum(entry.logprob for entry in entries), all(entry.rank == 1 for entry in entries))
