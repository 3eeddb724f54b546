"""What ICFT shows a model, and when: stages by difficulty, two memories, and the rows of every batch.

All of it is fixed before the first step, as a function of the examples' difficulties, the settings and the seed. So a
resumed run goes on with the memories that it had: they are in the schedule, which is written down once.

Nothing here sees a text: examples are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Generic, Literal, NamedTuple, TypeVar

from orchestrator.config import UserError

T = TypeVar("T")

Term = Literal["task", "fine_tune", "consistency"]
TERMS: tuple[Term, ...] = ("task", "fine_tune", "consistency")


@dataclass(frozen=True)
class Example:
    """One thing to learn."""

    prompt: str
    completion: str
    weight: float = 1.0
    """How much its loss counts, in [0, 1]: 1 for a person's label, the confidence for a weak one."""


@dataclass(frozen=True)
class IcftSettings:
    """How ICFT trains."""

    steps: int
    """Optimiser steps, shared evenly by the stages; what does not divide goes to the last ones."""
    stages: int = 3
    task_rows: int = 2
    """Rows of a batch from the present stage …"""
    recent_rows: int = 1
    """… from the short-term memory …"""
    earlier_rows: int = 1
    """… and from the long-term memory. Rows that an empty memory cannot give come from the present stage."""
    accumulate: int = 4
    """Batches to an optimiser step: with the rows above, 16 examples."""
    long_memory: int = 512
    """Places in the long-term memory."""
    task: float = 1.0
    """The weight of each term in the loss."""
    fine_tune: float = 1.0
    consistency: float = 1.0
    learning_rate: float = 2e-4
    """Of AdamW; falls linearly to 0."""
    rank: int = 16
    """Of LoRA, on every linear layer but the head; its alpha is twice that."""
    save_steps: int = 50
    """Optimiser steps between checkpoints."""

    @property
    def rows(self) -> int:
        """Rows in a batch."""
        return self.task_rows + self.recent_rows + self.earlier_rows


class Row(NamedTuple):
    """One example in one batch, and the term of the loss that it is there for."""

    term: Term
    example: int
    """Its number among the general instructions for `consistency`, among the examples otherwise."""


@dataclass(frozen=True)
class Stage:
    """A part of the curriculum, with the memories as they are while it lasts."""

    examples: tuple[int, ...]
    """Easiest first."""
    recent: tuple[int, ...]
    """The short-term memory: the whole stage before."""
    earlier: tuple[int, ...]
    """The long-term memory: examples of the stages before that one …"""
    general: tuple[int, ...]
    """… and general instructions."""
    batches: tuple[tuple[Row, ...], ...]


class Reservoir(Generic[T]):
    """A uniform sample of a stream of unknown length: Vitter (1985), Algorithm R."""

    def __init__(self, places: int, rng: Random) -> None:
        self.items: list[T] = []
        self._places, self._rng, self._seen = places, rng, 0

    def add(self, item: T) -> None:
        self._seen += 1
        if len(self.items) < self._places:
            self.items.append(item)
        elif (place := self._rng.randrange(self._seen)) < self._places:
            self.items[place] = item


def make_schedule(difficulty: Sequence[float], general: int, settings: IcftSettings, seed: int) -> list[Stage]:
    """The whole training, batch by batch.

    What leaves the short-term memory enters the long-term one, which held the general instructions from the start:
    while stage s lasts, stage s-1 is in the former, and a sample of stages 0 to s-2 in the latter.

    Args:
        difficulty: of each example: the starting model's mean loss a token, in nats.
        general: how many general instructions there are.

    Raises:
        UserError: there are no examples, or no general instructions, or an example would never be shown.
    """
    if not difficulty or not general:
        raise UserError(f"ICFT needs examples and general instructions: there are {len(difficulty)} and {general}")
    rng = Random(seed)
    parts = cut(sorted(range(len(difficulty)), key=lambda index: (difficulty[index], index)), settings.stages)
    steps = share(settings.steps, len(parts))
    most, fewest = max(map(len, parts)), steps[0] * settings.accumulate * settings.task_rows
    if fewest < most:
        needed = -(-most // (settings.accumulate * settings.task_rows)) * len(parts)
        raise UserError(
            f"ICFT: {settings.steps} steps in {len(parts)} stages show {fewest} examples a stage, but one has {most}; "
            f"raise the steps to {needed}"
        )
    memory: Reservoir[Row] = Reservoir(settings.long_memory, rng)
    for index in range(general):
        memory.add(Row("consistency", index))
    stages = []
    for number, part in enumerate(parts):
        for index in parts[number - 2] if number >= 2 else ():
            memory.add(Row("fine_tune", index))
        recent = parts[number - 1] if number else ()
        batches = tuple(_batches(part, recent, memory.items, settings, rng, steps[number]))
        earlier, kept = (
            tuple(row.example for row in memory.items if row.term == t) for t in ("fine_tune", "consistency")
        )
        stages.append(Stage(part, recent, earlier, kept, batches))
    return stages


def cut(ordered: Sequence[T], parts: int) -> list[tuple[T, ...]]:
    """Into so many parts of equal length (or as many as there are items), the longer ones last."""
    sizes = share(len(ordered), min(parts, len(ordered)))
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [tuple(ordered[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def share(whole: int, parts: int) -> list[int]:
    """A number as a sum of nearly equal ones, the larger ones last."""
    return [(whole + number) // parts for number in range(parts)]


def _batches(
    stage: Sequence[int], recent: Sequence[int], memory: Sequence[Row], settings: IcftSettings, rng: Random, steps: int
) -> Iterator[tuple[Row, ...]]:
    present = _passes([Row("task", index) for index in stage], rng)
    short = _passes([Row("fine_tune", index) for index in recent], rng) if recent else present
    long = _passes(memory, rng) if memory else present
    for _ in range(steps * settings.accumulate):
        asked = ((present, settings.task_rows), (short, settings.recent_rows), (long, settings.earlier_rows))
        yield tuple(chain.from_iterable((next(source) for _ in range(count)) for source, count in asked))


def _passes(items: Sequence[T], rng: Random) -> Iterator[T]:
    """All items in random order, again and again."""
    while True:
        yield from rng.sample(items, len(items))
