"""Rungs are nested and proportional, and the referee sends home who is beaten; over real tasks and a real ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from orchestrator.config.load import load_config
from orchestrator.core.records import Answer, Asked, Block
from orchestrator.stages.open import Sweep, open_sweep
from orchestrator.stages.search import open_referee, read_standings
from orchestrator.stages.search_finetune import open_space
from tune.rungs import Rungs
from tune.scheduler import Referee
from tune.standings import Standing

OBJECTIVES = {
    "clinical": {"tasks": ["demo_formulary"], "split": "search"},
    "both": {"tasks": ["demo_formulary", {"task": "demo_formulary", "limit": 30}], "average": "questions"},
}
SEARCH = {
    "space": [{"method": "linear", "alpha": {"low": 0, "high": 1}}],
    "budget": {"candidates": 5},
    "constraints": {"clinical": {"parent": "a", "share": 0.5}},
}


@pytest.fixture
def opened(sweep: Callable[..., Path], tmp_path: Path) -> Sweep:
    path = sweep(objectives=OBJECTIVES, search=SEARCH, recipes=[{"method": "linear", "alpha": [0.5]}])
    return open_sweep(load_config(path), tmp_path / "out")


def answer(sweep: Sweep, recipe_id: str, rungs: Rungs, index: int, right: float) -> None:
    """Put answers into the ledger of which a share is right."""
    generator = np.random.default_rng(int(recipe_id[:8], 16))
    for suite in rungs.rungs[index].suites:
        luck = {instance.doc_id: generator.random() < right for instance in suite.task.instances}
        answers = {}
        for instance, question in zip(suite.task.instances, suite.questions, strict=True):
            good = (instance.idx == instance.doc["answer"]) == luck[instance.doc_id]
            answers[question] = Answer(question.id, -1.0 if good else -5.0, False, tokens=1)
        new = {q: a for q, a in answers.items() if q.id not in sweep.ledger.answers(recipe_id)}
        if new:
            sweep.ledger.write(Asked(Block(recipe_id, tuple(new)), tuple(new.values()), 0.0, 0.0, "test"))


def test_rungs_are_nested_and_a_prefix_of_the_values(opened: Sweep) -> None:
    referee = open_referee(opened, open_space(opened))
    rungs, recipe = referee.rungs, opened.recipes[0]
    answer(opened, recipe.id, rungs, len(rungs.rungs) - 1, right=0.7)
    lm = opened.lm.knowing(opened.ledger.answers(recipe.id))
    whole, scores = rungs.read(lm, len(rungs.rungs) - 1)
    assert [len(values) for values in whole] == list(rungs.documents(-1))
    for name, values in zip(rungs.objectives, whole, strict=True):
        assert values.mean() == pytest.approx(scores[name].value)
    before: set[str] = set()
    for index, rung in enumerate(rungs.rungs):
        asked = {question.id for suite in rung.suites for question in suite.questions}
        assert before <= asked
        before = asked
        for part, all_, total in zip(rungs.read(lm, index)[0], whole, rungs.documents(-1), strict=True):
            assert np.allclose(part, all_[: len(part)]), "what is known does not change"
            assert len(part) / total == pytest.approx(opened.config.search.racing.rungs[index], abs=0.05)


def test_who_is_beaten_is_sent_home_and_who_is_not_goes_on(opened: Sweep) -> None:
    referee = open_referee(opened, open_space(opened))
    last = len(referee.rungs.rungs) - 1
    for recipe, right in zip(opened.recipes, (0.95, 0.5, 0.4), strict=True):
        answer(opened, recipe.id, referee.rungs, last, right)
    read_standings(referee)
    assert {standing.status for standing in referee.standings.values()} == {"scored"}
    bad, good = (candidate(opened, referee, place, ratio) for place, ratio in ((0, 0.2), (1, 0.7)))
    raced = race(opened, referee, bad, right=0.1)
    assert bad.status == "raced" and bad.rung < last and raced[-1] >= np.log(1 / 0.05)
    assert referee.told(bad).constraints == {"clinical at least 0.5 of a": pytest.approx(0.375, abs=0.1)}
    assert not referee.feasible(bad)
    race(opened, referee, good, right=1.0)
    assert good.status == "scored" and referee.feasible(good)
    assert referee.spent["candidates"] == 2 and not referee.exhausted


def candidate(sweep: Sweep, referee: Referee, number: int, ratio: float) -> Standing:
    recipe = replace(sweep.recipes[-1], parameters={"normalize": True, "ratio": ratio})
    referee.standings[recipe.id] = Standing(recipe, {"linear.alpha": ratio}, number)
    return referee.standings[recipe.id]


def race(sweep: Sweep, referee: Referee, standing: Standing, right: float) -> list[float]:
    """Rung after rung, never waiting. Returns the evidence after each."""
    evidence = []
    while standing.status == "open":
        answer(sweep, standing.recipe.id, referee.rungs, standing.rung + 1, right)
        referee.read(standing, standing.rung + 1)
        referee.decide(standing, park=np.inf)
        evidence.append(standing.evidence)
    return evidence
