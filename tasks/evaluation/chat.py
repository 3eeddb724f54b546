"""The chat template of the served tokenizer, applied as lm-eval's own models apply it.

transformers renders templates in jinja's sandbox. A template may refuse a conversation (Gemma 2 and Mistral know no
system role) and may ignore an argument: both change what a model reads, so the first is handled as in lm-eval or
refused with the template's own words, and the second is refused or noted.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError

from orchestrator.core.errors import UserError, hint
from orchestrator.core.text import one_line

PROMPT_DATE = date(2024, 7, 26)
"""Today's date for chat templates that print one (the fallback in Llama 3's own), so that a question stays the same."""
THINKING = re.compile(r"</?think(ing)?>|\[/?THINK\]|enable_thinking")
"""What a chat template of a model that may reason before it replies contains."""
CLOSED = re.compile(r"(</think(ing)?>|\[/THINK\])\s*$")
"""How a prompt ends that leaves no room for reasoning."""
Turns = Sequence[Mapping[str, str]]
"""A conversation: turns of `role` and `content`."""


class Refused(Exception):
    """The template cannot render a conversation; the message is its own."""


@dataclass
class Chat:
    """A tokenizer's chat template with the arguments of an objective.

    Args:
        parent: name of the parent that the tokenizer is from, for messages.
        settings: the template's further arguments (`chat_template_kwargs`).
    """

    tokenizer: Any
    parent: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    left_out: bool = False
    """Whether a system turn was left out of a prompt so far."""
    _first: tuple[Turns, bool, str] | None = None
    """The first prompt: its conversation, whether a reply begins after it, and its text."""

    def __call__(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a conversation as the text that the model reads; without its system turn where none is allowed.

        lm-eval's models do so, too.

        Raises:
            UserError: the template refuses the conversation all the same.
        """
        turns, rest = chat_history, [turn for turn in chat_history if turn["role"] != "system"]
        try:
            try:
                text = self.render(turns, add_generation_prompt)
            except Refused as error:
                if rest == turns or not isinstance(error.__cause__, TemplateError):
                    raise
                turns, text = rest, self.render(rest, add_generation_prompt)
        except Refused as error:
            raise UserError(
                f"the chat template of {self.parent} refuses a prompt ({error}); set tokenizer to a parent whose "
                "template allows it, or apply_chat_template: false"
            ) from None
        if any(turn["content"].strip() not in text for turn in chat_history if turn["role"] == "system"):
            self.left_out |= self._gives(text, rest, add_generation_prompt)
        self._first = self._first or (turns, add_generation_prompt, text)
        return text

    def render(self, turns: Turns, add_generation_prompt: bool = True) -> str:
        """Return a conversation as text; without `add_generation_prompt` its last turn stays open.

        Raises:
            Refused: the template raises an error.
        """
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [dict(turn) for turn in turns],
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                    strftime_now=lambda pattern: PROMPT_DATE.strftime(pattern),
                    **self.settings,
                )
            )
        except Exception as error:  # a template may run into any error, as Python does
            raise Refused(one_line(error) or type(error).__name__) from error

    def notes(self) -> list[str]:
        """Write the sentences that a reader of the scores must know, once the prompts are made."""
        found = []
        if self.left_out:
            found.append(
                f"the chat template of {self.parent} takes no system turn: the description and the system prompt are "
                "left out of the prompts, as in lm-eval"
            )
        for name, value in self.settings.items():
            if self._is_idle(name):
                found.append(f"chat_template_kwargs.{name}: {value!r} is what the template does anyway")
        return found

    @property
    def thinks(self) -> bool:
        """Whether replies may begin with reasoning: the template knows it, and the prompts do not end it."""
        source = self.tokenizer.get_chat_template(tools=self.settings.get("tools"))
        return self._first is not None and bool(THINKING.search(source)) and not CLOSED.search(self._first[2])

    def _is_idle(self, name: str) -> bool:
        """Whether an argument changes nothing in the first prompt."""
        if self._first is None:
            return False
        turns, opened, text = self._first
        others = {key: value for key, value in self.settings.items() if key != name}
        return Chat(self.tokenizer, self.parent, others)._gives(text, turns, opened)

    def _gives(self, text: str, turns: Turns, add_generation_prompt: bool) -> bool:
        """Whether a conversation becomes this text."""
        try:
            return self.render(turns, add_generation_prompt) == text
        except Refused:
            return False


def open_chat(tokenizer: Any, parent: str, settings: Mapping[str, Any], where: str) -> Chat:
    """Check that a tokenizer has a chat template, and that it knows the arguments that an objective gives it.

    Args:
        where: the sweep file's key that needs the template, for messages.

    Raises:
        UserError: there is no template, or none is the default one; it is no Jinja; it has no such argument.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"{where}: the tokenizer of {parent} has no chat template; set tokenizer to the parent that has one"
        )
    try:
        source = tokenizer.get_chat_template(tools=settings.get("tools"))
    except ValueError:
        names = ", ".join(sorted(tokenizer.chat_template))
        raise UserError(
            f"{where}: the tokenizer of {parent} has several chat templates ({names}), and none is called default; "
            "name the one to use default in its tokenizer_config.json, or set tokenizer to another parent"
        ) from None
    try:
        from transformers.utils.chat_template_utils import _get_template_variables  # here: it takes seconds

        known = _get_template_variables(source)
    except TemplateSyntaxError as error:
        raise UserError(
            f"{where}: the chat template of {parent} is no Jinja ({one_line(error)}); correct it, or set tokenizer to "
            "another parent"
        ) from None
    # The conversation and the form of the result are set here.
    fixed = {"messages", *inspect.signature(tokenizer.apply_chat_template).parameters} - {"tools", "documents"}
    for name in settings:
        if name in fixed or name not in known:
            others = sorted(known - fixed)
            raise UserError(
                f"{where.rpartition('.')[0]}.chat_template_kwargs.{name}: the chat template of {parent} has no such "
                f"argument{hint(name, others)}; correct it or take it out"
            )
    return Chat(tokenizer, parent, settings)


def think_end_text(tokenizer: Any, token: str | int) -> str:
    """Return the text that ends the reasoning: a token's where its id is given, as lm-eval takes it.

    Raises:
        UserError: no token has this id.
    """
    if isinstance(token, str) and not token.isdigit():
        return token
    text = str(tokenizer.convert_ids_to_tokens(int(token))) if int(token) in range(len(tokenizer)) else ""
    if not text:
        raise UserError(f"think_end_token {token} is no token's id; write the text, such as </think>")
    return str(tokenizer.decode([int(token)]))
