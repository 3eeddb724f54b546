"""Rungs: the nested parts of the questions, and a recipe's values on them as the race needs them."""

from __future__ import annotations

import copy
import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from orchestrator.config.objectives import Objective
from orchestrator.config.search import Search
from orchestrator.core.records import Question
from orchestrator.stats.scores import Score, combine, task_weights
from tasks.evaluation.judge import score_task
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.ranges import known_ranges
from tasks.evaluation.suites import SuiteTask
from tune.arrangement import Arrangement, TaskPart, arrange
from tune.racing import Answers


@dataclass(frozen=True)
class Rung:
    """The first documents of every task of the front's objectives, in the race's order, then those of the guards."""

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
    order: Arrangement
    """Its tasks are in the order of each rung's suites; guards are not in it."""
    guards: Mapping[str, Objective] = field(default_factory=dict)
    """Objectives with a constraint that are no axes."""

    @property
    def scored(self) -> dict[str, Objective]:
        """The front's objectives, then the guards."""
        return {**self.axes, **self.guards}

    @property
    def objectives(self) -> list[str]:
        """The names of the front's objectives."""
        return list(self.axes)

    @property
    def unbounded(self) -> dict[str, str]:
        """Objective → which metric nothing bounds, and why, so that the race guarantees nothing."""
        found: dict[str, str] = {}
        for task in self.order.tasks:
            if why := task.unbounded:
                found.setdefault(task.objective, why)
        return found

    def read(self, lm: LedgerLM, index: int) -> tuple[Answers, dict[str, Score], frozenset[str]]:
        """Compute a recipe's values on a rung, and its scores there.

        Args:
            lm: has the recipe's answers to all of the rung's questions.

        Returns:
            The values, the scores, and the objectives with values that are not as they were known to be.
        """
        scores = [score_task(suite, lm) for suite in self.rungs[index].suites]
        answers = [np.zeros(len(draws.weights)) for draws in self.order.draws]
        seen, strays = [0 for _ in answers], set()
        for task, score in zip(self.order.tasks, scores[: len(self.order.tasks)], strict=True):
            metrics = np.array([*score.metrics.values()][: len(score.values)])
            values, is_as_known = task.values(score.values, metrics, score.value + score.influence)
            k, draws = self.objectives.index(task.objective), task.draws[: len(values)]
            np.add.at(answers[k], draws, values)
            seen[k] = max(seen[k], int(draws.max()) + 1)
            strays |= set() if is_as_known else {task.objective}
        combined = {
            name: combine(objective, [score for score in scores if score.objective == name])
            for name, objective in self.scored.items()
        }
        return tuple(own[:n] for own, n in zip(answers, seen, strict=True)), combined, frozenset(strays)


def cut(objectives: Mapping[str, Objective], search: Search, suites: Sequence[SuiteTask], lm: LedgerLM) -> Rungs:
    """Draw the race's order over all documents of the front's objectives, and cut it at `search.racing.rungs`.

    Args:
        suites: the tasks of all these objectives.
    """
    axes = {name: objective for name, objective in objectives.items() if objective.front}
    guards = {name: objectives[name] for name in search.constraints if name not in axes}
    guarding = [suite for suite in suites if suite.objective in guards]
    suites = [suite for suite in suites if suite.objective in axes]
    documents = [list(_by_document(suite).values()) for suite in suites]
    given = {name: (each.low, each.high) for name, each in search.racing.ranges.items()}
    parts = []
    for suite, groups, part in zip(suites, documents, _parts(axes, suites), strict=True):
        keys = [_key(group, lm) for group in groups]
        parts.append(TaskPart(suite.objective, keys, part, known_ranges(suite, given)))
    order = arrange([*axes], parts, search.seed)

    raced = {key for part in parts for key in part.keys}

    def rung(share: float) -> Rung:
        until = order.until(share)
        chosen = [task.documents[: task.until(until)] for task in order.tasks]
        asked = {part.keys[each] for part, own in zip(parts, chosen, strict=True) for each in own}
        found = [
            _with(suite, [groups[each] for each in own], lm)
            for suite, groups, own in zip(suites, documents, chosen, strict=True)
        ]
        return Rung((*found, *(_guard(suite, lm, share, asked, raced - asked, search.seed) for suite in guarding)))

    return Rungs(axes, tuple(map(rung, search.racing.rungs)), order, guards)


def _guard(suite: SuiteTask, lm: LedgerLM, share: float, asked: Set[str], later: Set[str], seed: int) -> SuiteTask:
    """A guard's task on a rung: with the questions that the race has there, and of others the same share.

    Args:
        asked: keys of the race's documents on this rung.
        later: keys of those on later ones.
    """
    documents = [(_key(group, lm), group) for group in _by_document(suite).values()]
    keys = sorted({key for key, _ in documents}, key=lambda key: hashlib.sha256(f"{seed} {key}".encode()).digest())
    others = [key for key in keys if key not in asked and key not in later]
    chosen = {*(key for key in keys if key in asked), *others[: math.ceil(share * len(others))]} or {*keys[:1]}
    return _with(suite, [group for key, group in documents if key in chosen], lm)


def _parts(axes: Mapping[str, Objective], suites: Sequence[SuiteTask]) -> list[float]:
    """What each task's score is multiplied with in its objective."""
    found = {}
    for name, objective in axes.items():
        own = [place for place, suite in enumerate(suites) if suite.objective == name]
        shares, numbers = zip(*((suites[place].share, suites[place].documents) for place in own), strict=True)
        for place, weight in zip(own, task_weights(objective, shares, numbers), strict=True):
            found[place] = objective.sign * weight
    return [found[place] for place in range(len(suites))]


def _by_document(suite: SuiteTask) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    for instance in suite.task.instances:
        found[instance.doc_id].append(instance)
    return found


def _questions(instances: Sequence[Any], lm: LedgerLM) -> list[Question]:
    return [q for each in instances for repeat in range(each.repeats or 1) for q in lm.questions(each, repeat)]


def _key(group: Sequence[Any], lm: LedgerLM) -> str:
    return "".join(question.id for question in _questions(group, lm))


def _with(suite: SuiteTask, documents: Sequence[list[Any]], lm: LedgerLM) -> SuiteTask:
    task = copy.copy(suite.task)
    task._instances = [instance for group in documents for instance in group]
    return replace(suite, task=task, documents=len(documents), questions=_questions(task.instances, lm))
