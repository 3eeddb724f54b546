"""How much of what a recipe generates is reasoning, which is cut before a reply is scored."""

from __future__ import annotations

from collections.abc import Sequence

from lm_eval.api.instance import Instance

from orchestrator.core.records import Answer
from orchestrator.stats.scores import Reasoning
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.requests import think_end_of


def reasoning_in(request: Instance, answer: Answer) -> str | None:
    """Return the part of an answer's text that is cut as its reasoning; None where it never ends."""
    end = think_end_of(request)
    assert end is not None, "the objective has a think_end_token"
    before, found, _ = (answer.text or "").rpartition(end)
    return before + found if found else None


def measure_reasoning(requests: Sequence[Instance], lm: LedgerLM) -> Reasoning | None:
    """Count the reasoning in a recipe's answers; None where no reply is cut.

    Args:
        requests: of a task, each as often as it is repeated.

    Raises:
        tasks.evaluation.ledger_lm.Unanswered: the ledger lacks some of the answers.
    """
    cut = [request for request in requests if request.request_type == "generate_until" and think_end_of(request)]
    answers = [answer for (answer,) in lm.answers(cut)]
    thoughts = [reasoning_in(request, answer) for request, answer in zip(cut, answers, strict=True)]
    if not cut:
        return None
    return Reasoning(
        tokens=sum(len(lm.tok_encode(thought, add_special_tokens=False)) for thought in thoughts if thought),
        generated=sum(answer.tokens for answer in answers),
        replies=len(answers),
        unfinished=sum(thought is None for thought in thoughts),
    )
