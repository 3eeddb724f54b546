"""Rungs: the nested, stratified parts of the questions, and a recipe's values on them as the race needs them."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from orchestrator.config.objectives import Objective
from orchestrator.config.search import Search
from orchestrator.core.records import Question
from orchestrator.stats.estimates import Floats
from orchestrator.stats.scores import Score, combine, task_weights
from tasks.evaluation.judge import score_task
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.suites import SuiteTask
from tune.racing import Answers, race_order


@dataclass(frozen=True)
class Rung:
    """The first documents of every task of the front's objectives, in the race's order."""

    suites: tuple[SuiteTask, ...]

    @property
    def questions(self) -> list[list[Question]]:
        """All questions of the rung, task by task."""
        return [suite.questions for suite in self.suites]

    @cached_property
    def size(self) -> int:
        """Number of different questions of the rung."""
        return len({question.id for suite in self.suites for question in suite.questions})


@dataclass(frozen=True)
class Rungs:
    """All rungs of a search, the smallest first."""

    axes: Mapping[str, Objective]
    """The front's objectives."""
    rungs: tuple[Rung, ...]
    """The last one has all questions."""

    @property
    def objectives(self) -> list[str]:
        """The names of the front's objectives."""
        return list(self.axes)

    def documents(self, index: int) -> tuple[int, ...]:
        """Count the documents of each objective on a rung."""
        return tuple(
            sum(suite.documents for suite in self.rungs[index].suites if suite.objective == name)
            for name in self.objectives
        )

    def read(self, lm: LedgerLM, index: int) -> tuple[Answers, dict[str, Score]]:
        """Compute a recipe's values on a rung, and its scores there.

        Args:
            lm: has the recipe's answers to all of the rung's questions.
        """
        tasks = [score_task(suite, lm) for suite in self.rungs[index].suites]
        scores = {
            name: combine(self.axes[name], [task for task in tasks if task.objective == name])
            for name in self.objectives
        }
        return tuple(self._values(name, scores[name]) for name in self.objectives), scores

    def _values(self, name: str, score: Score) -> Floats:
        """The values of one objective's documents, in the race's order; shape (documents,).

        A document's value is its part of the objective, so that the mean of all values is the score (of a mean of
        verdicts, the verdict); the tasks are interleaved as on the rungs.
        """
        objective = self.axes[name]
        places = [place for place, suite in enumerate(self.rungs[-1].suites) if suite.objective == name]
        whole = [self.rungs[-1].suites[place] for place in places]
        numbers = [suite.documents for suite in whole]
        weights = task_weights(objective, [suite.share for suite in whole], numbers)
        values, turns = [], []
        for place, task, weight, number in zip(places, score.tasks, weights, numbers, strict=True):
            values.append(objective.sign * weight * sum(numbers) / number * (task.value + task.influence))
            turns += [(self._first_rung(place, i), (i + 0.5) / number) for i in range(len(task.influence))]
        order = sorted(range(len(turns)), key=turns.__getitem__)
        return np.asarray(np.concatenate(values)[order])

    def _first_rung(self, place: int, document: int) -> int:
        return next(i for i, rung in enumerate(self.rungs) if document < rung.suites[place].documents)


def cut(objectives: Mapping[str, Objective], search: Search, suites: Sequence[SuiteTask], lm: LedgerLM) -> Rungs:
    """Cut the rungs of the front's objectives at the shares of `search.racing.rungs`.

    Args:
        suites: the tasks of all these objectives.
    """
    axes = {name: objective for name, objective in objectives.items() if objective.front}
    ordered = [_ordered(suite, lm, search.seed) for suite in suites if suite.objective in axes]
    rungs = [
        Rung(tuple(_first(suite, math.ceil(share * suite.documents), lm) for suite in ordered))
        for share in search.racing.rungs
    ]
    return Rungs(axes, tuple(rungs))


def _by_document(suite: SuiteTask) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for instance in suite.task.instances:
        found[instance.doc_id].append(instance)
    return found


def _questions(instances: Sequence[Any], lm: LedgerLM) -> list[Question]:
    return [q for each in instances for repeat in range(each.repeats or 1) for q in lm.questions(each, repeat)]


def _ordered(suite: SuiteTask, lm: LedgerLM, seed: int) -> SuiteTask:
    """The same task with its documents in the race's order."""
    documents = list(_by_document(suite).values())
    keys = ["".join(question.id for question in _questions(group, lm)) for group in documents]
    return _with(suite, [documents[index] for index in race_order(keys, seed)], lm)


def _first(suite: SuiteTask, number: int, lm: LedgerLM) -> SuiteTask:
    return _with(suite, list(_by_document(suite).values())[:number], lm)


def _with(suite: SuiteTask, documents: Sequence[list[Any]], lm: LedgerLM) -> SuiteTask:
    task = copy.copy(suite.task)
    task._instances = [instance for group in documents for instance in group]
    return replace(suite, task=task, documents=len(documents), questions=_questions(task.instances, lm))
