"""The fake backend: answers from a hash, to rehearse a sweep's scheduling, storage and report without a model.

It is chosen by name in the sweep file (`workers: {backend: fake}`), its numeric profile says `fake`, so that its
answers never mix with measured ones, and the report carries a warning on every page.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from types import MappingProxyType

from orchestrator.core.records import Answer, Question
from orchestrator.recipes.recipe import Recipe
from tasks.serving.engine import Expected


class FakeEngine:
    """An engine without a model.

    Args:
        seconds: time that each question takes.
        gib: memory in GiB that each question takes while its block is answered.
    """

    def __init__(self, seconds: float = 0.0, gib: float = 0.0) -> None:
        self.seconds, self.gib = seconds, gib
        self.recipe_id = ""

    def load(self, recipe: Recipe) -> None:
        """Remember the recipe, whose id goes into the hashes."""
        self.recipe_id = recipe.id

    def answer(self, questions: Sequence[Question], expected: Expected = MappingProxyType({})) -> list[Answer]:
        """Return an answer for each question, in their order, after the time that they take."""
        memory = bytearray(int(self.gib * 2**30 * len(questions)))
        time.sleep(self.seconds * len(questions))
        del memory
        return [self._one(question) for question in questions]

    def drafted(self) -> None:
        """Return None: nothing is written token by token."""

    def _one(self, question: Question) -> Answer:
        digest = hashlib.sha256(f"{self.recipe_id}{question.id}".encode()).digest()
        if question.decoding is None:
            return Answer(question.id, -digest[0] / 16 - digest[1] / 4096, digest[2] % 2 == 0, tokens=1)
        return Answer(question.id, text=f"fake answer {digest.hex()[:8]}", tokens=8)
