"""What a model's own tokenizer would make of a sweep's questions, where another one serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.core.records import Question
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.suites import SuiteTask


def read_otherwise(
    lm: LedgerLM, suites: Sequence[SuiteTask], tokenizer: Any, served: Mapping[int, int]
) -> tuple[int, int]:
    """Count the questions that would be other tokens with another tokenizer.

    Args:
        lm: with the served tokenizer.
        tokenizer: transformers' own one of a model.
        served: its ids → those of the served tokenizer, of the tokens that both have.

    Returns:
        How many differ, and how many there are; a question that several tasks share counts once.
    """
    own = LedgerLM(lm.serving, tokenizer, lm.seed)
    seen: dict[str, bool] = {}
    for suite in suites:
        for request in suite.task.instances:
            asked = lm.questions(request)
            try:
                alone = own.questions(request)
            except UserError:  # longer, it does not fit
                alone = ()
            same = len(alone) == len(asked)
            for number, question in enumerate(asked):
                seen[question.id] = not (same and _tokens(question) == _served(alone[number], served))
    return sum(seen.values()), len(seen)


def _tokens(question: Question) -> list[int | None]:
    return [*question.context, *question.continuation]


def _served(question: Question, served: Mapping[int, int]) -> list[int | None]:
    return [served.get(token) for token in (*question.context, *question.continuation)]
