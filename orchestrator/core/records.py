"""The records that are sent between driver and workers, and that are stored.

Every record is frozen, and every field is declared as identity or as provenance. A field that can change an answer is
identity, and is hashed into the id that the ledger's keys are made of; one that only describes where the answer came
from is provenance. A test fails until a new field is declared as one of them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Literal

Halving = Literal["question", "document"]
"""What decides the side of a question where a task is halved into one to search on and one to confirm with: a hash of
the question's text or, in results folders of an early mergefront, of all columns of its document."""


class RecipeStatus(StrEnum):
    """How far the evaluation of a recipe is; the values are the words of tables, messages and stored files."""

    PENDING = "pending"
    """Some of its questions have no answer yet."""
    SCORED = "scored"
    """All questions are answered, and every task has a score."""
    UNSCORED = "unscored"
    """All questions are answered, but a task has no score: a metric of the answers is no number, say."""
    STOPPED_EARLY = "stopped early"
    """A search's candidate that is beaten with near certainty on some of the questions, and is evaluated no further."""
    DEFERRED = "deferred"
    """A search's candidate that is probably beaten on some of the questions; other candidates are evaluated first."""
    INVALID = "invalid"
    """It cannot be merged or loaded, and another attempt cannot help."""
    FAILED = "failed"
    """An error occurred on the way; the next run tries again."""


def identity(default: Any = dataclasses.MISSING) -> Any:
    """Declare a dataclass field that is part of the identity: it is hashed into the record's id."""
    return field(default=default, metadata={"identity": True})


def added(default: Any) -> Any:
    """Declare an identity field that was added when there were ids already: hashed only where it is not the default.

    So the ids of what is as it was before stay.
    """
    return field(default=default, metadata={"identity": True, "since": default})


def provenance(default: Any = dataclasses.MISSING) -> Any:
    """Declare a dataclass field that is stored, but does not affect answers and is not hashed."""
    return field(default=default, metadata={"identity": False})


class Identified:
    """Gives a dataclass its `id`: 20 hex digits of SHA-256 over its identity fields as canonical JSON."""

    @cached_property
    def id(self) -> str:
        """The id of the record; equal for records with equal identity fields."""
        text = json.dumps([type(self).__name__, content(self)], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]


def differing(one: Identified, other: Identified) -> list[str]:
    """List the identity fields in which two records of one class differ."""
    mine, theirs = content(one), content(other)
    return [key for key in mine if mine[key] != theirs[key]]


def content(value: Any) -> Any:
    """Return the identity fields of a record, and of the records in it, as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(f, getattr(value, f.name)) for f in dataclasses.fields(value) if f.metadata["identity"]]
        return {f.name: content(each) for f, each in fields if "since" not in f.metadata or each != f.metadata["since"]}
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
    """The Jinja template; None where the tokenizer has none."""
    stop_token_ids: tuple[int, ...] = identity()
    """Token ids that end a text: the union over the models, because a merge may end its turn as any of them."""
    max_model_len: int = identity()
    """Tokens of prompt and answer together."""
    architecture: str = identity()
    """Digest of the keys of config.json that affect computation; the engine runs every recipe with one config."""
    engine: tuple[tuple[str, Any], ...] = identity()
    """Engine settings that may move the last digits of an answer (batch sizes, eager mode)."""
    parent: str = provenance()
    """Name of the parent that the tokenizer is from."""
    folder: str = provenance()
    """Folder of the tokenizer's files."""
    vocab_size: int | None = provenance(None)
    """Rows of the embedding; no token's id may be as large. None where it is not known."""
    notes: tuple[str, ...] = provenance(())
    """Sentences on stop ids that are left out, and on models that another tokenizer than their own serves."""


@dataclass(frozen=True)
class Profile(Identified):
    """The numeric profile of an engine: answers are only expected to be equal within one profile."""

    engine: str = identity()
    """Name and version, such as `vllm 0.32.0`."""
    dtype: str = identity()
    tensor_parallel_size: int = identity()
    device: str = identity()
    """Ray's accelerator type where the sweep file names one, else `gpu` or `cpu`."""
    pipeline_parallel_size: int = identity(1)


@dataclass(frozen=True)
class Decoding:
    """How a text is generated; fields have the names and meanings of `vllm.SamplingParams`."""

    max_tokens: int = identity()
    stop: tuple[str, ...] = identity()
    temperature: float = identity(0.0)
    top_p: float = identity(1.0)
    top_k: int = identity(0)
    repetition_penalty: float = identity(1.0)
    seed: int | None = identity(None)
    skip_special_tokens: bool = added(True)


@dataclass(frozen=True)
class Question(Identified):
    """One lm-eval request as token ids: a continuation to score, or a prompt to generate from.

    Without `decoding` the answer is the log-probability of `continuation` after `context`; with it, the text generated
    after `context`. A rolling log-likelihood is one question per window.
    """

    context: tuple[int, ...] = identity()
    continuation: tuple[int, ...] = identity(())
    decoding: Decoding | None = identity(None)
    truncated: int = provenance(0)
    """Tokens that were cut from the context to fit `max_model_len`."""

    @property
    def tokens(self) -> int:
        """Tokens that the engine reads or, at most, writes."""
        return len(self.context) + len(self.continuation) + (self.decoding.max_tokens if self.decoding else 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine returned for one question: a log-probability, or a generated text."""

    question_id: str
    logprob: float | None = None
    """Natural logarithm, summed over the continuation; None for generated text."""
    is_greedy: bool | None = None
    """Whether greedy decoding would produce the continuation; None for generated text."""
    text: str | None = None
    """The generated text; None for a log-probability."""
    tokens: int = 0
    """Number of generated tokens."""


@dataclass(frozen=True)
class Block:
    """Some questions for one recipe: the unit that is evaluated, stored, resumed and retried."""

    recipe_id: str
    questions: tuple[Question, ...]

    @cached_property
    def id(self) -> str:
        """20 hex digits of SHA-256 over the questions' ids, in order; the recipe is not part of it."""
        return hashlib.sha256("".join(q.id for q in self.questions).encode()).hexdigest()[:20]

    @cached_property
    def writes(self) -> int:
        """Most tokens that are written; 0 where no text is generated."""
        return sum(question.decoding.max_tokens for question in self.questions if question.decoding)


@dataclass(frozen=True)
class Failure:
    """Why a recipe has no score.

    An `invalid` recipe cannot be merged or loaded (mergekit refuses it, a weight is NaN), and another attempt cannot
    help. A `failed` one met an error on the way, and the next run tries it again. An `unscored` one has all answers,
    and is scored anew from them by each command; that is why this alone is never stored.
    """

    recipe_id: str
    status: Literal["invalid", "failed", "unscored"]
    stage: Literal["merge", "answer", "worker", "train", "score"]
    """Loading the recipe, answering its questions, the worker itself, its fine-tuning, or scoring its answers."""
    message: str
    detail: str = ""
    """The traceback, for debugging."""
    context: str = ""
    """Serving, profile and mergekit's version for which the recipe is `invalid`; with others it is tried again."""


@dataclass(frozen=True)
class Drafted:
    """What speculative decoding did for a block's texts."""

    tokens: int
    """Number of tokens that were written …"""
    steps: int
    """… in this many steps of single requests, where drafts were on."""
    off_above: int | None = None
    """The largest batch for which the engine writes with drafts; None where they were nowhere found to be slower."""


@dataclass(frozen=True)
class Answered:
    """A block with its answers, and the seconds of the worker's time that they took."""

    block: Block
    answers: tuple[Answer, ...]
    swap_s: float
    """Seconds until the recipe's weights were loaded; 0 where they were loaded already."""
    answer_s: float
    """Seconds from then until the block was answered."""
    worker: str
    """host:pid"""
    device: str = ""
    """Name of the worker's device."""
    drafted: Drafted | None = None
    """What drafts did; None where the engine writes without them."""
