"""What the parents wrote to each prompt, which drafts of the other recipes' texts are taken from.

Only the parents' texts are, and a block of another recipe waits for theirs (`cluster.queue`). So the drafts of a text
are the same in every run, whatever was interrupted and in whatever order the recipes come, and with them the text to
the last near tie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.core.records import Answer, Answered, Block
from tasks.serving.engine import Expected


class ParentTexts:
    """The parents' texts, by question.

    Args:
        stored: parent's recipe id → question id → answer, in the order of the sweep file; empty where nothing is to be
            drafted.
    """

    def __init__(self, stored: Mapping[str, Mapping[str, Answer]]) -> None:
        self.texts: dict[str, dict[str, str]] = {parent: _texts(answers.values()) for parent, answers in stored.items()}

    def add(self, answered: Answered) -> None:
        """Add what a parent wrote; the answers of other recipes are passed over."""
        if answered.block.recipe_id in self.texts:
            self.texts[answered.block.recipe_id] |= _texts(answered.answers)

    def expected(self, block: Block) -> Expected:
        """Return question id → what the parents wrote, for a block of another recipe."""
        if block.recipe_id in self.texts:
            return {}
        ids = [question.id for question in block.questions if question.decoding]
        found = {key: [texts[key] for texts in self.texts.values() if key in texts] for key in ids}
        return {key: texts for key, texts in found.items() if texts}


def _texts(answers: Iterable[Answer]) -> dict[str, str]:
    return {answer.question_id: answer.text for answer in answers if answer.text is not None}
