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

from orchestrator.core.errors import UserError
from tasks.evaluation.ledger_lm import LedgerLM
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
    task: GenerationTask, chosen: list[Example], lm: LedgerLM, chat: bool, max_length: int, where: str
) -> list[Labelled]:
    """Encode each of the chosen examples, in their order.

    Args:
        task: as it is evaluated; its prompt is the one that is trained on.
        chat: whether the prompt is written as a user's turn of the chat template.
        max_length: tokens of prompt and response together.

    Raises:
        UserError: a response leaves no room for its prompt.
    """
    prompts = task.over(chosen)
    prompts.build_all_requests(
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=lm.apply_chat_template if chat else None,
        tokenizer_name=lm.tokenizer_name,
    )
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


def conversations(path: Path, lm: LedgerLM, max_length: int, where: str) -> list[Labelled]:
    """Read an instruction set in UltraMedical's format: `conversations`, turns of `{from: human | gpt, value: …}`.

    What comes before the last answer is the prompt, and loses its beginning where both are too long.

    Raises:
        UserError: no such file, a line of another form, or a tokenizer without a chat template.
    """
    if not lm.tokenizer.chat_template:
        raise UserError(f"{where}: conversations need a chat template; set tokenizer to the parent that has one")
    found = []
    for number, turns in _turns(path, where):
        context = lm.apply_chat_template(turns[:-1])
        response = _response(lm, context, turns[-1]["content"])
        tokens, room = lm.tok_encode(context), max_length - len(response)
        if room < 1:
            raise UserError(f"{where}: {path}, line {number}: its answer has {len(response)} tokens; raise max_length")
        found.append(Labelled(tuple(tokens[-room:]), response, max(0, len(tokens) - room)))
    if not found:
        raise UserError(f"{where}: {path} is empty; write a conversation a line")
    return found


def _turns(path: Path, where: str) -> Iterator[tuple[int, list[dict[str, str]]]]:
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{where}: {path} cannot be read as UTF-8 text; correct the path") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row: Any = json.loads(line)["conversations"]
                turns = [{"role": roles[turn["from"]], "content": str(turn["value"])} for turn in row]
            except (ValueError, KeyError, TypeError):
                turns = []
            if len(turns) < 2 or turns[-1]["role"] != "assistant":
                raise UserError(
                    f"{where}: {path}, line {number} is no conversation; write "
                    '{"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}'
                )
            yield number, turns
