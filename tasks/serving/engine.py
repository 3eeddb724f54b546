"""What a worker needs of an engine, whatever its backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from orchestrator.core.records import Answer, Drafted, Question
from orchestrator.recipes.recipe import Recipe

Expected = Mapping[str, Sequence[str]]
"""Question id → texts that its answer is expected to be like: what the parents wrote."""


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

    def answer(self, questions: Sequence[Question], expected: Expected = MappingProxyType({})) -> list[Answer]:
        """Generate or score with the loaded recipe.

        Args:
            expected: question id → texts that its answer is expected to be like; it changes no answer.

        Returns:
            The answers in the order of the questions.

        Raises:
            QuestionRefused: one of them is not what the engine can answer.
        """
        ...

    def drafted(self) -> Drafted | None:
        """Return what speculative decoding did for the last `answer`; None for an engine without it."""
