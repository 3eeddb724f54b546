"""lm-eval's prompts of a task as an objective wants them: chat template, system prompt, and what ends reasoning."""

from __future__ import annotations

from typing import Any

from orchestrator.config.objectives import Objective
from orchestrator.core.errors import UserError
from tasks.evaluation.chat import Chat, open_chat, think_end_text
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.requests import end_thinking


def chat_of(lm: LedgerLM, objective: Objective, key: str) -> Chat | None:
    """Return the chat template with the objective's arguments; None where its prompts are plain text.

    Args:
        key: the sweep file's key of the objective, for messages.

    Raises:
        UserError: as `open_chat`.
    """
    if not objective.apply_chat_template:
        return None
    return open_chat(lm.tokenizer, lm.serving.parent, objective.chat_template_kwargs, f"{key}.apply_chat_template")


def build(task: Any, lm: LedgerLM, chat: Chat | None, system_prompt: str | None, **which: Any) -> None:
    """Let lm-eval build a task's requests.

    Args:
        which: lm-eval's `limit` and `samples`.

    Raises:
        UserError: the chat template refuses a prompt.
        Exception: whatever the task's own programs raise.
    """
    task.build_all_requests(
        system_instruction=system_prompt,
        apply_chat_template=chat is not None,
        fewshot_as_multiturn=chat is not None,
        chat_template=chat,
        tokenizer_name=lm.tokenizer_name,
        **which,
    )


def settle_thinking(task: Any, lm: LedgerLM, objective: Objective) -> None:
    """Let a task's requests cut the reasoning off their replies where the objective names its end.

    Raises:
        UserError: choices are to be scored where reasoning would begin, which lm-eval's models refuse, too; or
            `think_end_token` is no token's id.
    """
    if objective.chat_template_kwargs.get("enable_thinking") and any(
        instance.request_type != "generate_until" for instance in task.instances
    ):
        raise UserError(
            "given choices are scored, which leaves no place for reasoning; write chat_template_kwargs: "
            "{enable_thinking: false} in an objective of its own"
        )
    if objective.think_end_token is not None:
        end_thinking(task.instances, think_end_text(lm.tokenizer, objective.think_end_token))


def notes(task: Any, objective: Objective, chat: Chat | None) -> list[str]:
    """Write what a reader of a task's scores must know of its prompts, once they are made."""
    generates = task.OUTPUT_TYPE == "generate_until"
    found = chat.notes() if chat else []
    if objective.think_end_token is not None and not generates:
        found.append("think_end_token has no effect, because given choices are scored")
    if (
        chat
        and chat.thinks
        and objective.think_end_token is None
        and "enable_thinking" not in objective.chat_template_kwargs
    ):
        what = "which is scored as part of it" if generates else "in whose place the choices are scored"
        found.append(
            f"the chat template of {chat.parent} lets a reply begin with reasoning, {what}; if the models reason, set "
            + ("think_end_token, or " if generates else "")
            + "chat_template_kwargs: {enable_thinking: false}"
        )
    return found
