"""The progress of a running sweep: a bar on a terminal, plain lines elsewhere (Slurm logs, CI)."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from orchestrator.core.records import Answered, Block, Failure
from orchestrator.core.text import duration

EVERY_S = 10.0
"""Seconds between plain lines."""


class Progress:
    """Counts the answered questions of a run, and shows them on a bar or in lines.

    Args:
        blocks: all that will be evaluated.
    """

    def __init__(self, blocks: list[Block]) -> None:
        self.left: Counter[str] = Counter()
        """Recipe → number of its questions that have no answer yet."""
        for block in blocks:
            self.left[block.recipe_id] += len(block.questions)
        self.open = len(self.left)
        self.recipes = len(self.left)
        self.total = sum(len(block.questions) for block in blocks)
        self.done = self.failed = 0
        self.started = self.first = time.monotonic()
        self.said = 0.0
        self.bar: Bar | None = None
        self.begins = "starting engines" if blocks else "measuring stored texts and models"

    def __enter__(self) -> Progress:
        console = Console(stderr=True)
        if console.is_terminal:
            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                console=console,
            )
            self.task = self.bar.add_task(self.begins, total=self.total)
            self.bar.start()
        else:
            self._say(f"{self.total} questions for {self.recipes} recipes; {self.begins}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
        elif kind is None:
            self._say(self.line())

    def update(self, result: Answered | Failure | None) -> None:
        """Count what the pool yields: a block's answers, a recipe's failure, or None where nothing is finished yet."""
        if isinstance(result, Answered):
            if not self.done:
                self.first = time.monotonic() - result.answer_s
            self.done += len(result.block.questions)
            self._less(result.block.recipe_id, len(result.block.questions))
        elif isinstance(result, Failure):
            self.failed += 1
            self._less(result.recipe_id, self.left[result.recipe_id])
            self.note(f"recipe {result.recipe_id} {result.status} at {result.stage}: {result.message}")
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done, description=self.line())
        elif time.monotonic() - self.said >= EVERY_S:
            self._say(self.line())

    def line(self) -> str:
        """Describe the progress in one line: recipes done, questions per second, time left."""
        finished, waited = self.recipes - self.open, duration(time.monotonic() - self.started)
        if not self.total:
            return f"{self.begins} ({waited})"
        if not self.done:
            return f"{finished}/{self.recipes} recipes, starting engines and evaluating the first block ({waited})"
        rate = self.done / max(time.monotonic() - self.first, 1e-9)
        left = duration((self.total - self.done) / rate)
        broken = f", {self.failed} without a score" if self.failed else ""
        return f"{finished}/{self.recipes} recipes{broken}, {rate:.1f} questions/s, {left} left"

    def _less(self, recipe_id: str, questions: int) -> None:
        if self.left[recipe_id] > 0:
            self.left[recipe_id] -= questions
            self.open -= self.left[recipe_id] <= 0

    def note(self, text: str) -> None:
        """Print a line of its own, beside the bar."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            self._say(text)

    def _say(self, text: str) -> None:
        self.said = time.monotonic()
        say(text)


def say(text: str) -> None:
    """Print a line to stderr; stdout is for the result of the command."""
    print(f"mergefront: {text}", file=sys.stderr, flush=True)
