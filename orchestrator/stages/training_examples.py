"""The examples that fine-tuning learns from, as tokens.

They are read when the sweep is opened, so that what is wrong with them shows before anything is evaluated.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config.finetune import ExampleBudget, Finetune
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.recipes.tuning import largest_budget
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.suites import SuiteTask
from tasks.finetuning.examples import Labelled, conversations, labelled, subset
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
    """ICFT's general instructions."""
    baseline: tuple[Labelled, ...] = ()
    """What the instruction-tuned baseline learns from."""

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


def open_training_examples(config: SweepConfig, lm: LedgerLM, learning: Sequence[SuiteTask]) -> TrainingExamples:
    """Read and tokenise every training example of a sweep.

    Args:
        learning: the suites of `finetune.tasks`.

    Raises:
        UserError: there are too few examples, one does not fit into `max_length`, or a file cannot be read.
    """
    finetune = config.finetune
    if finetune is None:
        return TrainingExamples()
    by_task = {
        (suite.objective, seed): _examples(lm, finetune, suite, finetune.examples, seed)
        for suite, seed in itertools.product(learning, finetune.seeds)
    }
    search: tuple[Labelled, ...] = ()
    if config.joint and config.search:
        searched, _ = config.joint
        suite = next(suite for suite in learning if suite.objective == searched.task)
        search = _examples(lm, finetune, suite, searched.examples or finetune.examples, config.search.seed)
    return TrainingExamples(by_task, search, _general(lm, finetune), _baseline(lm, finetune))


def _examples(
    lm: LedgerLM, finetune: Finetune, suite: SuiteTask, budgets: Sequence[ExampleBudget], seed: int
) -> tuple[Labelled, ...]:
    where = f"finetune.tasks.{suite.objective}"
    if not isinstance(suite.task, GenerationTask):
        raise UserError(
            f"{where}: {suite.name} is no generation task; take one of these, or write your own (docs/generation.md)"
        )
    training = suite.task.examples.training()
    count = largest_budget(budgets, suite.objective, suite.name, len(training))
    objective, chosen = finetune.tasks[suite.objective], subset(training, count, seed)
    return tuple(labelled(suite.task, chosen, lm, objective, max_length=finetune.max_length, where=where))


def _general(lm: LedgerLM, finetune: Finetune) -> tuple[Labelled, ...]:
    if finetune.icft is None:
        return ()
    return tuple(conversations(Path(finetune.icft.general), lm, finetune.max_length, "finetune.icft.general"))


def _baseline(lm: LedgerLM, finetune: Finetune) -> tuple[Labelled, ...]:
    baseline = finetune.baseline
    if baseline is None:
        return ()
    return tuple(conversations(Path(baseline.file), lm, baseline.max_length, "finetune.baseline.file"))
