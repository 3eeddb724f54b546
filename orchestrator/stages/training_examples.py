"""The examples that fine-tuning learns from, as tokens.

They are read when the sweep is opened, so that what is wrong with them shows before anything is evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestrator.config.finetune import REPLAYING, Finetune
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.text import count, listed
from orchestrator.recipes.tuning import feasible_budgets
from tasks.benchmarks.overlaps import Screen
from tasks.benchmarks.questions import Asked
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.suites import SuiteTask
from tasks.finetuning.examples import Labelled, conversations, labelled, subset
from tasks.generation.sources import Example
from tasks.generation.task import GenerationTask


@dataclass(frozen=True)
class TrainingExamples:
    """Tokenised training examples of a sweep.

    Each tuple is as long as the largest feasible budget and in the order of its seed; smaller budgets are its
    beginning.
    """

    by_task: dict[tuple[str, int], tuple[Labelled, ...]] = field(default_factory=dict)
    """(fine-tuning task, seed) → examples."""
    search: tuple[Labelled, ...] = ()
    """What the candidates of a joint search learn from."""
    general: tuple[Labelled, ...] = ()
    """The general instructions of the methods `icft` and `lora_replay`."""
    baseline: tuple[Labelled, ...] = ()
    """What the instruction-tuned baseline learns from."""
    available: dict[str, int] = field(default_factory=dict)
    """Fine-tuning task → number of its labelled examples."""
    known: tuple[str, ...] = ()
    """Sentences about the examples that contain a question which the sweep is evaluated on."""
    skipped: tuple[str, ...] = ()
    """Sentences about the budgets that are beyond a task's training examples."""

    def notes(self) -> list[str]:
        """Say which budgets are left out, what is truncated, and what contains a question of the sweep."""
        return [*self.skipped, *self.truncated(), *self.known]

    def truncated(self) -> list[str]:
        """Say of how many examples the prompt is cut to fit `max_length`; of a task, those of its first seed."""
        sets = {"finetune.icft.general": self.general, "finetune.baseline.file": self.baseline}
        for (task, _), examples in self.by_task.items():
            sets.setdefault(f"finetune.tasks.{task}", examples)
        return [
            f"{where}: the prompts of {cut} of {len(examples)} examples are cut to fit max_length"
            for where, examples in sets.items()
            if (cut := sum(each.truncated > 0 for each in examples))
        ]


def open_training_examples(
    config: SweepConfig, lm: LedgerLM, learning: Sequence[SuiteTask], suites: Sequence[SuiteTask]
) -> TrainingExamples:
    """Read and tokenise every training example of a sweep.

    Args:
        learning: the suites of `finetune.tasks`.
        suites: everything that the sweep is evaluated on.

    Raises:
        UserError: there are too few examples, one does not fit into `max_length`, or a file cannot be read.
    """
    finetune = config.finetune
    if finetune is None:
        return TrainingExamples()
    screen = Screen(_asked(suites), finetune.leave_out_test_questions)
    pools = {suite.objective: _pool(suite, screen) for suite in learning}
    by_task: dict[tuple[str, int], tuple[Labelled, ...]] = {}
    search: tuple[Labelled, ...] = ()
    skipped: list[str] = []
    for suite in learning:
        name, pool = suite.objective, pools[suite.objective]
        budgets = finetune.budgets(name)
        feasible = dict(feasible_budgets(budgets, name, suite.name, len(pool)))
        if beyond := [str(budget) for budget in budgets if budget not in feasible]:
            there = count(len(pool), "training example")
            skipped.append(
                f"finetune.tasks.{name}: {suite.name} has {there}, so that no run learns from {listed(beyond)}"
            )
        most = max(feasible.values())
        by_task |= {(name, seed): chosen for seed, chosen in _by_seed(lm, finetune, suite, pool, most).items()}
        if config.joint and config.joint[0].task == name:
            search = _examples(lm, finetune, suite, _searched(config, suite, pool, most))
    general = _conversations(
        finetune.icft.general if finetune.icft else None, lm, finetune.max_length, "icft.general", screen
    )
    baseline: tuple[Labelled, ...] = ()
    if finetune.baseline:
        length = finetune.baseline.max_length
        baseline = _conversations(finetune.baseline.file, lm, length, "baseline.file", screen)
    available = {name: len(pool) for name, pool in pools.items()}
    return TrainingExamples(by_task, search, general, baseline, available, tuple(screen.describe()), tuple(skipped))


def _asked(suites: Sequence[SuiteTask]) -> dict[str, list[Asked]]:
    """The questions that a sweep is evaluated on, by task."""
    found: dict[str, list[Asked]] = {}
    for suite in suites:
        found.setdefault(suite.name, []).extend(suite.asked.values())
    return found


def _pool(suite: SuiteTask, screen: Screen) -> list[Example]:
    """The labelled examples of a fine-tuning task that may be learned from."""
    where = f"finetune.tasks.{suite.objective}"
    if not isinstance(suite.task, GenerationTask):
        raise UserError(
            f"{where}: {suite.name} is no generation task; take one of these, or write your own (docs/generation.md)"
        )
    training = suite.task.examples.training()
    return [each for each in training if screen.keeps(where, [each.input], each.reference, suite.name)]


def _by_seed(
    lm: LedgerLM, finetune: Finetune, suite: SuiteTask, pool: list[Example], most: int
) -> dict[int, tuple[Labelled, ...]]:
    """Draw each seed's examples; one that several seeds draw is encoded, and in memory, once."""
    subsets = {seed: subset(pool, most, seed) for seed in finetune.seeds}
    wanted = {id(each): each for chosen in subsets.values() for each in chosen}
    encoded = dict(zip(wanted, _examples(lm, finetune, suite, [*wanted.values()]), strict=True))
    return {seed: tuple(encoded[id(each)] for each in chosen) for seed, chosen in subsets.items()}


def _examples(lm: LedgerLM, finetune: Finetune, suite: SuiteTask, chosen: list[Example]) -> tuple[Labelled, ...]:
    where, objective = f"finetune.tasks.{suite.objective}", finetune.tasks[suite.objective]
    plain = [method for method in finetune.method if method not in REPLAYING]
    if plain and any(each.weight < 1 for each in chosen):
        raise UserError(
            f"{where}: {suite.name} has training examples that weigh less than 1, but {plain[0]} counts every example "
            "the same; take the methods icft and lora_replay, or leave generation.own.<task>.weight out"
        )
    return tuple(labelled(suite.task, chosen, lm, objective, max_length=finetune.max_length, where=where))


def _searched(config: SweepConfig, suite: SuiteTask, pool: list[Example], most: int) -> list[Example]:
    """The training examples of a joint search: as many as the most that a candidate may learn from.

    Args:
        most: the default, the largest feasible budget of the task.
    """
    assert config.search is not None and config.search.finetune is not None, "the caller checks"
    size = max(config.search.finetune.examples, default=most)
    if size > len(pool):
        raise UserError(
            f"search.finetune.examples: {size} are requested, but {suite.name} has {len(pool)} training examples; "
            "lower it"
        )
    return subset(pool, size, config.search.seed)


def _conversations(path: str | None, lm: LedgerLM, max_length: int, key: str, screen: Screen) -> tuple[Labelled, ...]:
    """The conversations of a file that may be learned from; none where there is no file."""
    where = f"finetune.{key}"
    return tuple(conversations(Path(path), lm, max_length, where, partial(screen.keeps, where))) if path else ()
