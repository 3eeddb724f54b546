"""What travels between driver and workers, and what is stored.

Every record is frozen, and every field says whether it is part of the record's identity: the hash that the
ledger's keys are made of. What changes an answer is identity; what only says where it came from is not. A
test fails until a new field is classed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal


class RecipeStatus(StrEnum):
    """How far the evaluation of a recipe has come; the values are what tables, messages and stored files say."""

    PENDING = "pending"
    """Some of its questions have no answer yet."""
    SCORED = "scored"
    """All questions are answered."""
    STOPPED_EARLY = "stopped early"
    """Of a search: beaten with near certainty on a part of the questions, and evaluated no further."""
    DEFERRED = "deferred"
    """Of a search: probably beaten on a part of the questions; the others are evaluated first."""
    INVALID = "invalid"
    """It cannot be merged or loaded, and another attempt cannot help."""
    FAILED = "failed"
    """Something broke; the next run tries it again."""


def identity(default: Any = dataclasses.MISSING) -> Any:
    """A field that is hashed."""
    return field(default=default, metadata={"identity": True})


def provenance(default: Any = dataclasses.MISSING) -> Any:
    """A field that is kept, but makes no difference to what is answered."""
    return field(default=default, metadata={"identity": False})


class Identified:
    """Gives a dataclass its `id`: 20 hex digits of SHA-256 over its identity fields as canonical JSON."""

    @cached_property
    def id(self) -> str:
        text = json.dumps([type(self).__name__, content(self)], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def content(value: Any) -> Any:
    """The identity fields of a record, all the way down, as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {f.name: content(getattr(value, f.name)) for f in fields if f.metadata["identity"]}
    if isinstance(value, dict):
        return {str(key): content(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [content(item) for item in value]
    # YAML's 1 and 1.0 are the same weight.
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Serving(Identified):
    """How every recipe of a sweep is served: one tokenizer, one template, one set of stop ids."""

    tokenizer: str = identity()
    """Digest of the tokenizer's files."""
    chat_template: str | None = identity()
    stop_token_ids: tuple[int, ...] = identity()
    """The union over the parents: a merge may end its turn the way either of them does."""
    max_model_len: int = identity()
    architecture: str = identity()
    """Digest of what the model's config says about computing: the engine runs every recipe with it."""
    engine: tuple[tuple[str, Any], ...] = identity()
    """Engine settings that may move the last digits of an answer (batch sizes, eager mode)."""
    parent: str = provenance()
    """Whose tokenizer it is."""
    folder: str = provenance()
    """Where the tokenizer's files are."""


@dataclass(frozen=True)
class Profile(Identified):
    """The numeric profile: answers are only expected to be equal within one."""

    engine: str = identity()
    """Name and version, such as `vllm 0.32.0`."""
    dtype: str = identity()
    tensor_parallel_size: int = identity()
    device: str = identity()
    pipeline_parallel_size: int = identity(1)


@dataclass(frozen=True)
class Decoding:
    """How an answer's text is made; vLLM's names (`vllm.SamplingParams`)."""

    max_tokens: int = identity()
    stop: tuple[str, ...] = identity()
    temperature: float = identity(0.0)
    top_p: float = identity(1.0)
    top_k: int = identity(0)
    repetition_penalty: float = identity(1.0)
    seed: int | None = identity(None)


@dataclass(frozen=True)
class Question(Identified):
    """One lm-eval request, in tokens: the log-probability of `continuation` after `context`, or, where there is
    a `decoding`, the text that follows `context`. (A rolling log-likelihood is one question per window.)
    """

    context: tuple[int, ...] = identity()
    continuation: tuple[int, ...] = identity(())
    decoding: Decoding | None = identity(None)
    truncated: int = provenance(0)
    """Tokens that were cut from the context's left side to fit the engine's length."""

    @property
    def tokens(self) -> int:
        """Tokens that the engine reads or, at most, writes."""
        return len(self.context) + len(self.continuation) + (self.decoding.max_tokens if self.decoding else 0)


@dataclass(frozen=True, slots=True)
class Answer:
    question_id: str
    logprob: float | None = None
    """Natural logarithm, summed over the continuation; None for generated text."""
    is_greedy: bool | None = None
    text: str | None = None
    tokens: int = 0
    """Tokens generated."""


@dataclass(frozen=True)
class Block:
    """Some questions for one recipe: the unit that is evaluated, stored, resumed and retried."""

    recipe_id: str
    questions: tuple[Question, ...]

    @cached_property
    def id(self) -> str:
        return hashlib.sha256("".join(q.id for q in self.questions).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Failure:
    """Why a recipe has no score. `invalid` recipes cannot be (the merge is refused, a weight is NaN) and
    trying again cannot help; `failed` ones broke on the way and are tried again by the next run."""

    recipe_id: str
    status: Literal["invalid", "failed"]
    stage: Literal["merge", "answer", "worker", "train"]
    """Loading the recipe, answering its questions, the worker itself, or its fine-tuning."""
    message: str
    detail: str = ""
    """The traceback, for the person who looks into it."""
    context: str = ""
    """Serving, profile and mergekit's version, under which `invalid` holds."""


@dataclass(frozen=True)
class Answered:
    """A block with its answers, and what they cost in seconds of the worker's time."""

    block: Block
    answers: tuple[Answer, ...]
    swap_s: float
    """Until the recipe was loaded; 0 where it was loaded already."""
    answer_s: float
    worker: str
