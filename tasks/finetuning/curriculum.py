"""What ICFT shows a model, and when: stages by difficulty, two memories, and the rows of every batch.

Its control, `lora_replay`, has the same batches with another order of the examples (`without_curriculum`).

All of it is fixed before the first step, as a function of the examples' difficulties, the settings and the seed. So a
resumed run continues with the memories that it had: they are in the schedule.

Nothing here sees a text: examples are numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any, Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")

Term = Literal["task", "fine_tune", "consistency"]
TERMS: tuple[Term, ...] = ("task", "fine_tune", "consistency")


@dataclass(frozen=True)
class IcftSettings:
    """What the schedule is made of; `orchestrator.config.finetune.Icft` has the ranges."""

    steps: int
    """Optimiser steps, shared evenly by the stages; what does not divide goes to the last ones."""
    accumulation: int
    """Batches to an optimiser step."""
    stages: int
    task_rows: int
    """Rows of a batch from the present stage …"""
    recent_rows: int
    """… from the short-term memory …"""
    earlier_rows: int
    """… and from the long-term memory. Rows that an empty memory cannot give come from the present stage."""
    long_memory: int
    """Places in the long-term memory."""

    @classmethod
    def of(cls, settings: dict[str, Any]) -> IcftSettings:
        """Take them from a run's settings (`Tuning.settings`)."""
        own = {key: settings["icft"][key] for key in ("stages", "recent_rows", "earlier_rows", "long_memory")}
        present = settings["batch_size"] - own["recent_rows"] - own["earlier_rows"]
        return cls(steps=settings["steps"], accumulation=settings["accumulation"], task_rows=present, **own)


class BatchRow(NamedTuple):
    """One example in one batch, and the term of the loss that it is there for."""

    term: Term
    example: int
    """Its number among the general instructions for `consistency`, among the examples otherwise."""


@dataclass(frozen=True)
class CurriculumStage:
    """A part of the curriculum, with the memories as they are while it lasts."""

    examples: tuple[int, ...]
    """Easiest first."""
    recent: tuple[int, ...]
    """The short-term memory: the whole stage before."""
    earlier: tuple[int, ...]
    """The long-term memory: examples of the stages before that one …"""
    general: tuple[int, ...]
    """… and general instructions."""
    batches: tuple[tuple[BatchRow, ...], ...]


class Reservoir(Generic[T]):
    """A uniform sample of a stream of unknown length: Vitter (1985), Algorithm R."""

    def __init__(self, places: int, rng: Random) -> None:
        self.items: list[T] = []
        self._places, self._rng, self._seen = places, rng, 0

    def add(self, item: T) -> None:
        """Add an item of the stream; it may take the place of an earlier one."""
        self._seen += 1
        if len(self.items) < self._places:
            self.items.append(item)
        elif (place := self._rng.randrange(self._seen)) < self._places:
            self.items[place] = item


def make_schedule(
    difficulty: Sequence[float], general: int, settings: IcftSettings, seed: int
) -> list[CurriculumStage]:
    """Plan the whole training, batch by batch.

    What leaves the short-term memory enters the long-term one, where the general instructions were from the start:
    while stage s lasts, stage s-1 is in the former, and a sample of stages 0 to s-2 in the latter.

    Args:
        difficulty: of each example; more is harder.
        general: how many general instructions there are.
    """
    assert difficulty and general, "there are examples and general instructions"
    rng = Random(seed)
    parts = cut(sorted(range(len(difficulty)), key=lambda index: (difficulty[index], index)), settings.stages)
    steps = share(settings.steps, len(parts))
    shown = steps[0] * settings.accumulation * settings.task_rows
    assert shown >= max(map(len, parts)), "the steps show every example: orchestrator.config.finetune.Icft.least_steps"
    memory: Reservoir[BatchRow] = Reservoir(settings.long_memory, rng)
    for index in range(general):
        memory.add(BatchRow("consistency", index))
    stages = []
    for number, part in enumerate(parts):
        for index in parts[number - 2] if number >= 2 else ():
            memory.add(BatchRow("fine_tune", index))
        recent = parts[number - 1] if number else ()
        batches = tuple(_batches(part, recent, memory.items, settings, rng, steps[number]))
        earlier, kept = (
            tuple(row.example for row in memory.items if row.term == t) for t in ("fine_tune", "consistency")
        )
        stages.append(CurriculumStage(part, recent, earlier, kept, batches))
    return stages


def without_curriculum(stages: Sequence[CurriculumStage], seed: int) -> list[CurriculumStage]:
    """Take the curriculum out of a schedule: all examples in random order, pass by pass, in one stage.

    Everything else stays, batch by batch: how many rows each term has, and which general instructions stand where. So
    what differs between the two comes from the order of the examples alone.
    """
    examples = sorted(index for stage in stages for index in stage.examples)
    shown = _passes(examples, Random(seed))
    batches = tuple(
        tuple(row if row.term == "consistency" else row._replace(example=next(shown)) for row in batch)
        for stage in stages
        for batch in stage.batches
    )
    general = sorted({row.example for batch in batches for row in batch if row.term == "consistency"})
    return [CurriculumStage(tuple(examples), (), (), tuple(general), batches)]


def cut(ordered: Sequence[T], parts: int) -> list[tuple[T, ...]]:
    """Cut items into so many parts of equal length (or as many as there are items), the longer ones last."""
    sizes = share(len(ordered), min(parts, len(ordered)))
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [tuple(ordered[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def share(whole: int, parts: int) -> list[int]:
    """Split a number into a sum of nearly equal ones, the larger ones last."""
    return [(whole + number) // parts for number in range(parts)]


def _batches(
    stage: Sequence[int],
    recent: Sequence[int],
    memory: Sequence[BatchRow],
    settings: IcftSettings,
    rng: Random,
    steps: int,
) -> Iterator[tuple[BatchRow, ...]]:
    present = _passes([BatchRow("task", index) for index in stage], rng)
    short = _passes([BatchRow("fine_tune", index) for index in recent], rng) if recent else present
    long = _passes(memory, rng) if memory else present
    for _ in range(steps * settings.accumulation):
        wanted = ((present, settings.task_rows), (short, settings.recent_rows), (long, settings.earlier_rows))
        yield tuple(chain.from_iterable((next(source) for _ in range(count)) for source, count in wanted))


def _passes(items: Sequence[T], rng: Random) -> Iterator[T]:
    """All items in random order, again and again."""
    while True:
        yield from rng.sample(items, len(items))
