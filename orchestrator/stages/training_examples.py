"""The examples that fine-tuning learns from, as tokens.

They are read when the sweep is opened, so that what is wrong with them shows before anything is evaluated.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from orchestrator.config.finetune import REPLAYING, ExampleBudget, Finetune
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.recipes.tuning import largest_budget
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

    Each tuple is as long as the largest budget and in the order of its seed; smaller budgets are its beginning.
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
    by_task = {
        (suite.objective, seed): _examples(lm, finetune, suite, pools[suite.objective], finetune.examples, seed)
        for suite, seed in itertools.product(learning, finetune.seeds)
    }
    search: tuple[Labelled, ...] = ()
    if config.joint and config.search:
        searched, _ = config.joint
        suite = next(suite for suite in learning if suite.objective == searched.task)
        budgets = searched.examples or finetune.examples
        search = _examples(lm, finetune, suite, pools[suite.objective], budgets, config.search.seed)
    general = _conversations(
        finetune.icft.general if finetune.icft else None, lm, finetune.max_length, "icft.general", screen
    )
    baseline: tuple[Labelled, ...] = ()
    if finetune.baseline:
        length = finetune.baseline.max_length
        baseline = _conversations(finetune.baseline.file, lm, length, "baseline.file", screen)
    available = {name: len(pool) for name, pool in pools.items()}
    return TrainingExamples(by_task, search, general, baseline, available, tuple(screen.describe()))


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


def _examples(
    lm: LedgerLM,
    finetune: Finetune,
    suite: SuiteTask,
    pool: Sequence[Example],
    budgets: Sequence[ExampleBudget],
    seed: int,
) -> tuple[Labelled, ...]:
    where = f"finetune.tasks.{suite.objective}"
    count = largest_budget(budgets, suite.objective, suite.name, len(pool))
    objective, chosen = finetune.tasks[suite.objective], subset(pool, count, seed)
    plain = [method for method in finetune.method if method not in REPLAYING]
    if plain and any(each.weight < 1 for each in pool):
        raise UserError(
            f"{where}: {suite.name} has training examples that weigh less than 1, but {plain[0]} counts every example "
            "the same; take the methods icft and lora_replay, or leave generation.own.<task>.weight out"
        )
    return tuple(labelled(suite.task, chosen, lm, objective, max_length=finetune.max_length, where=where))


def _conversations(path: str | None, lm: LedgerLM, max_length: int, key: str, screen: Screen) -> tuple[Labelled, ...]:
    """The conversations of a file that may be learned from; none where there is no file."""
    where = f"finetune.{key}"
    return tuple(conversations(Path(path), lm, max_length, where, partial(screen.keeps, where))) if path else ()
