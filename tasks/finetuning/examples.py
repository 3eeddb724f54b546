"""Labelled examples as tokens: the prompt as it is served, the response, and an end.

Subsets are nested and the same on every machine: per seed, examples stand in the order of a hash of their id. Prompts
are cut here, at their input, as serving cuts them; no example is ever dropped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.objectives import Objective
from orchestrator.core.errors import UserError, hint
from tasks.evaluation.chat import Chat, Refused, open_chat
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.prompts import build, chat_of
from tasks.evaluation.task_index import building
from tasks.generation.sources import Example
from tasks.generation.task import GenerationTask

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
        found.append(Labelled(tuple(kept), response, len(tokens) - len(kept)))
    return found


def _response(lm: LedgerLM, context: str, text: str) -> tuple[int, ...]:
    space = "" if context[-1:].isspace() else " "
    return (*lm.tok_encode(space + text, add_special_tokens=False), lm.eot_token_id)


ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
    "system": "system",
}
"""A turn's side as published instruction sets spell it → the chat template's role."""


def conversations(path: Path, lm: LedgerLM, max_length: int, where: str) -> list[Labelled]:
    """Read an instruction set, in ShareGPT's form (as UltraMedical) or in that of trl's `messages`.

    The last answer of each is what is learned; what comes after it is left out, and what comes before it is the prompt,
    which loses its beginning where both are too long.

    Raises:
        UserError: no such file, a line that is no conversation or that the chat template refuses, or a tokenizer
            without a chat template.
    """
    chat = open_chat(lm.tokenizer, lm.serving.parent, {}, where)
    found = []
    for line, value in _lines(path, where):
        try:
            turns = to_last_answer(value)
            context = _prompt(chat, turns[:-1])
        except ValueError as error:
            raise UserError(f"{line} {error}") from None
        response = _response(lm, context, turns[-1]["content"])
        tokens, room = lm.tok_encode(context), max_length - len(response)
        if room < 1:
            raise UserError(f"{line} has an answer of {len(response)} tokens; raise max_length")
        found.append(Labelled(tuple(tokens[-room:]), response, max(0, len(tokens) - room)))
    if not found:
        raise UserError(f"{where}: {path} is empty; write a conversation a line")
    return found


def _lines(path: Path, where: str) -> Iterator[tuple[str, Any]]:
    """Yield each line as JSON, with its place for messages."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{where}: {path} cannot be read as UTF-8 text; correct the path") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            place = f"{where}: {path}, line {number}"
            try:
                yield place, json.loads(line)
            except ValueError as error:
                raise UserError(f"{place} is no JSON ({error}); write a conversation a line") from None


def to_last_answer(value: Any) -> list[dict[str, str]]:
    """Return a conversation's turns of `role` and `content`, up to its last answer.

    Args:
        value: `{"conversations": [{"from": …, "value": …}, …]}` or `{"messages": [{"role": …, "content": …}, …]}`.

    Raises:
        ValueError: it has another form, a turn without text, a role that is not known, or no answer; the message says
            which, and continues a sentence.
    """
    row = value if isinstance(value, dict) else {}
    given = row.get("conversations", row.get("messages"))
    if not isinstance(given, list):
        raise ValueError(
            'is no conversation; write {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}'
        )
    turns = [_turn(f"turn {number} of its conversation", each) for number, each in enumerate(given, start=1)]
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    if len(turns) < 2:
        raise ValueError("has no answer to learn; take the line out")
    return turns


def _turn(what: str, value: Any) -> dict[str, str]:
    row = value if isinstance(value, dict) else {}
    side, text = row.get("from", row.get("role")), row.get("value", row.get("content"))
    if not isinstance(side, str) or side not in ROLES:
        raise ValueError(f"has {side!r} as the side of {what}{hint(str(side), ROLES)} (known: {', '.join(ROLES)})")
    if not isinstance(text, str):
        raise ValueError(f"has {text!r:.100} as {what}, which is no text; correct it or take the line out")
    if not text.strip() and ROLES[side] != "system":
        raise ValueError(f"has an empty text as {what}; correct it or take the line out")
    return {"role": ROLES[side], "content": text}


def _prompt(chat: Chat, turns: Sequence[dict[str, str]]) -> str:
    """The turns as the text before the answer, nothing left out of it.

    Raises:
        ValueError: the template refuses the turns, or leaves the system turn out.
    """
    way_out = "take the turn out, or set tokenizer to a parent whose template allows it"
    try:
        text = chat.render(turns)
    except Refused as error:
        raise ValueError(f"is refused by the chat template of {chat.parent} ({error}); {way_out}") from None
    if any(turn["role"] == "system" and turn["content"].strip() not in text for turn in turns):
        raise ValueError(f"has a system turn, which the chat template of {chat.parent} leaves out; {way_out}")
    return text
