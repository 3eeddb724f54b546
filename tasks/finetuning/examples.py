"""Labelled examples as tokens: the prompt as it is served, the response, and an end.

Subsets are nested and the same on every machine: per seed, examples stand in the order of a hash of their id. Prompts
are cut here, at their input, as serving cuts them; no example is ever dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config.objectives import Objective
from orchestrator.core.errors import UserError
from orchestrator.core.row import Row
from tasks.evaluation.chat import Chat, Refused, open_chat
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.prompts import build, chat_of
from tasks.evaluation.task_index import building
from tasks.finetuning.conversations import Turn, read_conversations
from tasks.generation.sources import Example
from tasks.generation.task import GenerationTask

Keeps = Callable[[Sequence[str], str], bool]
IGNORED = -100
"""torch's label of a token without a loss."""


@dataclass(frozen=True)
class Labelled:
    """One example to train on, as tokens."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    """With the token that ends it."""
    truncated: int = 0
    """Tokens that were cut from the prompt."""
    weight: float = 1.0
    """How much its loss counts, in [0, 1]: 1 for a person's label, the confidence for a weak one."""


def subset(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Take the first `count` in the order of this seed; smaller subsets are the beginnings of larger ones."""
    return sorted(examples, key=lambda each: hashlib.sha256(f"{seed}/{each.id}".encode()).digest())[:count]


def digest(examples: Sequence[Labelled]) -> str:
    """Hash the tokens, in order, and weights below 1; 20 hex digits."""
    hashed = hashlib.sha256()
    for each in examples:
        weight = [each.weight] if each.weight < 1 else []
        hashed.update(json.dumps([each.prompt, each.response, *weight]).encode())
    return hashed.hexdigest()[:20]


def labelled(
    task: GenerationTask, chosen: list[Example], lm: LedgerLM, objective: Objective, *, max_length: int, where: str
) -> list[Labelled]:
    """Encode each of the chosen examples, in their order.

    Args:
        task: as it is evaluated; its prompt is the one that is trained on.
        objective: as which it is evaluated; its chat template and system prompt are trained on, too.
        max_length: tokens of prompt and response together.
        where: the sweep file's key of the objective, for messages.

    Raises:
        UserError: a response leaves no room for its prompt, or the chat template refuses one.
    """
    prompts = task.over(chosen)
    with building(where, task.config.task):
        build(prompts, lm, chat_of(lm, objective, where), objective.system_prompt)
    found = []
    for example, instance in zip(chosen, prompts.instances, strict=True):
        context, _ = instance.args
        response = _response(lm, context, example.reference)
        room, tokens = max_length - len(response), lm.tok_encode(context)
        kept = lm.shorten(context, instance.cut, room) if len(tokens) > room > 0 else tokens
        if len(kept) > room:
            raise UserError(
                f"{where}: max_length is {max_length}, but a training example has {len(response)} tokens of response "
                "and more of prompt, its input left out, than fit beside it; raise max_length"
            )
        found.append(Labelled(tuple(kept), response, len(tokens) - len(kept), example.weight))
    return found


def _response(lm: LedgerLM, context: str, text: str) -> tuple[int, ...]:
    space = "" if context[-1:].isspace() else " "
    return (*lm.tok_encode(space + text, add_special_tokens=False), lm.eot_token_id)


def conversations(path: Path, lm: LedgerLM, max_length: int, where: str, keeps: Keeps) -> list[Labelled]:
    """Read an instruction set, in ShareGPT's form (as UltraMedical) or in that of trl's `messages`.

    The last answer of each is what is learned; what comes after it is left out, and what comes before it is the prompt,
    which loses its beginning where both are too long.

    Args:
        keeps: of the texts of the turns before the answer, and the answer: whether the conversation is learned.

    Raises:
        UserError: no such file, a row that is no conversation or that the chat template refuses, a tokenizer
            without a chat template, or no conversation is learned.
    """
    chat = open_chat(lm.tokenizer, lm.serving.parent, {}, where)
    found = []
    for row, turns in read_conversations(path, where):
        if not keeps([turn["content"] for turn in turns[:-1]], turns[-1]["content"]):
            continue
        context = _prompt(chat, row, turns[:-1])
        response = _response(lm, context, turns[-1]["content"])
        tokens, room = lm.tok_encode(context), max_length - len(response)
        if room < 1:
            raise row.wrong(f"its answer has {len(response)} tokens; raise max_length")
        found.append(Labelled(tuple(tokens[-room:]), response, max(0, len(tokens) - room)))
    if not found:
        raise UserError(
            f"{where} {path}: every conversation has a question that the sweep is evaluated on; take another file, or "
            "write leave_out_test_questions: false"
        )
    return found


def _prompt(chat: Chat, row: Row, turns: Sequence[Turn]) -> str:
    """The turns as the text before the answer, nothing left out of it.

    Raises:
        UserError: the template refuses the turns, or leaves the system turn out.
    """
    way_out = "take the turn out, or set tokenizer to a parent whose template allows it"
    try:
        text = chat.render(turns)
    except Refused as error:
        raise row.wrong(f"the chat template of {chat.parent} refuses it ({error}); {way_out}") from None
    if any(turn["role"] == "system" and turn["content"].strip() not in text for turn in turns):
        raise row.wrong(f"the chat template of {chat.parent} leaves its system turn out; {way_out}")
    return text
