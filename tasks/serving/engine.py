"""What a worker needs of an engine, whatever its backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.core.records import Answer, Question
from orchestrator.recipes.recipe import Recipe


class InvalidWeights(Exception):
    """The merged checkpoint is not a model: tensors are missing, of another shape, or not finite."""


class QuestionRefused(Exception):
    """The engine refuses a question, whatever the recipe: it is no fault of its weights, and the engine is sound."""

    def __init__(self, question_id: str, why: str) -> None:
        super().__init__(question_id, why)
        self.question_id, self.why = question_id, why

    def __str__(self) -> str:
        return f"the engine refuses question {self.question_id}: {self.why}"


class Engine(Protocol):
    """An engine that answers questions with a recipe's weights; `tasks.serving.backends` opens one."""

    def load(self, recipe: Recipe) -> None:
        """Load the recipe's weights in place of the last one's.

        Raises:
            MergeRefused | InvalidWeights: the recipe is at fault; the engine can load the next one.
        """

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Generate or score with the loaded recipe.

        Returns:
            The answers in the order of the questions.

        Raises:
            QuestionRefused: one of them is not what the engine can answer.
        """
        ...
