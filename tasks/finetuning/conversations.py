"""Conversations as instruction sets have them: `conversations` (ShareGPT, UltraMedical) or `messages` (OpenAI, trl)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.row import Row
from orchestrator.core.rows import read_rows
from orchestrator.core.user_file import UserFile

Turn = dict[str, str]
"""`role` (user, assistant or system) and `content`."""
FORMS = {"conversations": ("from", "value"), "messages": ("role", "content")}
"""Key of the turns → the keys of each one's side and text."""
ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
    "system": "system",
}
"""A turn's side as published instruction sets spell it → the chat template's role."""
NOT_READ = ("system", "tools", "images", "chat_template_kwargs")
"""Keys of a row by which some programs change its prompt."""
FORM = 'write {"conversations": [{"from": "human", "value": …}, {"from": "gpt", "value": …}]}'


def read_conversations(path: Path, where: str) -> Iterator[tuple[Row, list[Turn]]]:
    """Yield the rows of an instruction set, each with its turns up to its last answer.

    Args:
        where: the sweep file's key that names the file, for messages.

    Raises:
        UserError: no such file, no rows, or a row that is no conversation or has no answer.
    """
    file, row = UserFile(path, where), None
    for row in read_rows(file):
        yield row, to_last_answer(row)
    if row is None:
        raise file.wrong("is empty; write a conversation per line")


def to_last_answer(row: Row) -> list[Turn]:
    """Return a row's turns up to its last answer.

    Raises:
        UserError: it has none, or one has another role or no text.
    """
    keys = [key for key in FORMS if row.values.get(key) is not None]
    if len(keys) > 1:
        raise row.wrong(f"has both {' and '.join(keys)}; keep one")
    given = row.values[keys[0]] if keys else None
    if not isinstance(given, list):
        raise row.wrong(f"is no conversation; {FORM}")
    if extra := [key for key in NOT_READ if row.values.get(key)]:
        raise row.wrong(f"has {extra[0]!r} beside its turns, which is not read; write it as a turn, or take it out")
    turns = [_turn(row, f"{keys[0]}[{number}]", each, *FORMS[keys[0]]) for number, each in enumerate(given)]
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    if len(turns) < 2:
        raise row.wrong("has no answer to learn; take it out")
    if given[len(turns) - 1].get("weight") == 0 or given[len(turns) - 1].get("train") is False:
        raise row.wrong("marks its last answer (weight, train) as none to learn; take the row out")
    return turns


def _turn(row: Row, name: str, value: object, side: str, text: str) -> Turn:
    if not isinstance(value, dict) or side not in value or text not in value:
        raise row.wrong(f"is no conversation: {name} has no {side!r} and {text!r}; {FORM}")
    role = ROLES.get(row.as_text(value[side], f"{name}.{side}"))
    if role is None:
        raise row.wrong(f"{name}.{side} is none of {', '.join(ROLES)}; correct it, or take the row out")
    content = row.as_text(value[text], f"{name}.{text}")
    if not content.strip() and role != "system":
        raise row.wrong(f"{name}.{text} is empty; correct it, or take the row out")
    return {"role": role, "content": content}
