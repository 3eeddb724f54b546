"""From questions to vLLM's requests, and from its outputs to answers.

vLLM is imported inside the functions: `tasks.serving.boot.prepare` has to come first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

from orchestrator.core.records import Answer, Question, Serving
from tasks.serving.engine import QuestionRefused
from tasks.serving.scoring import SCORED, Scores, Wanted

MAX_FORCED = 64
"""Most tokens that are written one by one; a longer continuation is read in one pass, its context with it."""


class Kind(Enum):
    """How requests are answered; only those of one kind run together."""

    SCORED = "scored"
    """Tokens are scored as they are written (`tasks.serving.scoring`)."""
    READ = "read"
    """A continuation is read as the end of a prompt, and vLLM scores it."""
    GREEDY = "greedy"
    """A text of the most probable tokens, with drafts where the engine has them."""
    SAMPLED = "sampled"
    """A text that is drawn; beside drafts, vLLM draws greedy texts too (0.32 on CPUs)."""


@dataclass(frozen=True)
class Request:
    """One vLLM request that answers one or several questions."""

    kind: Kind
    prompt: list[int]
    """Token ids."""
    sampling: Any
    """vLLM's SamplingParams."""
    read: Callable[[Any, Scores], list[Answer]]
    """Reads the answers from vLLM's RequestOutput, or from the scores."""
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
    return [*groups, *lettered.values()]


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

    def read(output: Any, _: Scores) -> list[Answer]:
        made = output.outputs[0]
        return [Answer(question.id, text=made.text, tokens=len(made.token_ids))]

    kind = Kind.SAMPLED if decoding.temperature else Kind.GREEDY
    return Request(kind, list(question.context), sampling, read, question.id)


def _choices(group: list[Question]) -> Request:
    """The choices are scored in the place of the first token of a text."""
    ids = [question.continuation[0] for question in group]

    def read(_: Any, scores: Scores) -> list[Answer]:
        found = zip(group, scores[group[0].id][0], strict=True)
        return [Answer(question.id, logprob, is_greedy, tokens=1) for question, (logprob, is_greedy) in found]

    return _scored(group[0], Wanted(group[0].id, [ids], []), read)


def _forced(question: Question) -> Request:
    """The continuation is written, token by token, after a context that the prefix cache may have."""
    tokens = list(question.continuation)

    def read(_: Any, scores: Scores) -> list[Answer]:
        found = [place[0] for place in scores[question.id]]
        return [Answer(question.id, sum(logprob for logprob, _ in found), all(is_greedy for _, is_greedy in found))]

    return _scored(question, Wanted(question.id, [[token] for token in tokens], tokens), read)


def _scored(first: Question, wanted: Wanted, read: Callable[[Any, Scores], list[Answer]]) -> Request:
    from vllm import SamplingParams

    sampling = SamplingParams(
        max_tokens=len(wanted.tokens), temperature=0.0, ignore_eos=True, detokenize=False,
        extra_args={SCORED: asdict(wanted)},
    )  # fmt: skip
    return Request(Kind.SCORED, list(first.context), sampling, read, first.id)


def _prompted(question: Question) -> Request:
    """The continuation is read, as the end of a prompt: one pass over all of it, where it is most of the prompt."""
    from vllm import SamplingParams

    start = len(question.context)
    prompt = [*question.context, *question.continuation]
    sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)

    def read(output: Any, _: Scores) -> list[Answer]:
        entries = [place[token] for token, place in zip(prompt[start:], output.prompt_logprobs[start:], strict=True)]
        logprob = sum(entry.logprob for entry in entries)
        return [Answer(question.id, logprob, all(entry.rank == 1 for entry in entries))]

    return Request(Kind.READ, prompt, sampling, read, question.id)
