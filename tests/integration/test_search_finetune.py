"""A joint search's candidates: a merge, how it is fine-tuned, and the run that makes it so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator.config.load import load_config
from orchestrator.core.errors import UserError
from orchestrator.planning.plan import make_plan
from orchestrator.results.layout import Layout
from orchestrator.stages.open import open_sweep
from orchestrator.stages.search import open_race
from tests.helpers.sweeps import FINETUNE, GENERATION, TASK
from tune.study import choose_sampler

LEARNED = {**TASK, "split": "search"}
SEARCH: dict[str, Any] = {
    "space": [{"method": "linear", "alpha": {"low": 0, "high": 1}}, {"method": "slerp", "t": {"low": 0, "high": 1}}],
    "finetune": {
        "task": "cards",
        "method": "lora",
        "learning_rate": {"low": 1e-5, "high": 1e-3},
        "rank": [4, 8],
        "examples": [4, 8],
    },
    "budget": {"candidates": 3},
}
WORKERS = {"backend": "fake", "count": 1, "engine": {"max_model_len": 512}}


def write(sweep: Callable[..., Path], **changes: Any) -> Path:
    first = {"clinical": {"tasks": ["demo_formulary"], "limit": 30, "split": "search"}}
    finetune = {**FINETUNE, "tasks": {"cards": LEARNED}, "min_steps": 2}
    given = {"generation": GENERATION, "objectives": first, "finetune": finetune, "search": SEARCH, "workers": WORKERS}
    return sweep(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workers": {"backend": "fake"}}, "workers.count is needed"),
        ({"search": {**SEARCH, "finetune": {"task": "card", "rank": [4]}}}, "rank belongs to method: lora"),
        (
            {"search": {**SEARCH, "finetune": {"task": "card", "examples": [4]}}},
            "'card' is not in finetune.tasks (cards); did you mean 'cards'?",
        ),
        ({"search": {**SEARCH, "finetune": {"task": "cards"}}}, "there is nothing to search for here"),
        ({"finetune": None}, "there is no section finetune"),
        ({"finetune": FINETUNE}, "finetune.tasks.cards.split: is None"),
    ],
)
def test_a_joint_search_that_cannot_be_is_refused(
    sweep: Callable[..., Path], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as raised:
        load_config(write(sweep, **changes))
    assert said in str(raised.value)


def test_the_plan_says_what_a_search_asks(sweep: Callable[..., Path]) -> None:
    plan = make_plan(load_config(write(sweep)))
    found = plan.search
    assert found is not None and found.fine_tuned and found.methods == {"linear": 4, "slerp": 4}
    assert found.rungs == sorted(found.rungs) and found.candidates == 3
    assert found.rungs[-1] > plan.tasks[0].questions, "the learning task is asked too"
    assert found.sampler.startswith("tpe")


def test_a_candidate_is_a_merge_and_a_run(sweep: Callable[..., Path], tmp_path: Path) -> None:
    opened = open_sweep(load_config(write(sweep)), Layout(tmp_path / "out"))
    race = open_race(opened, starts=True)
    assert race is not None
    space = race.space
    assert list(opened.searched.objectives) == ["clinical", "cards"]
    assert {suite.objective for suite in opened.held_out.suites} == {"clinical", "cards"}
    assert race.scheduler.rungs.objectives == ["clinical", "cards"], "what is learned is an axis"
    assert choose_sampler(space, 3, 2).name == "tpe" and space.dimensions == 1 + 3
    assert all(space.params_of_merge(recipe) is None for recipe in opened.recipes), "nothing of the grid is tuned"

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(8):
        params = space.suggest(study.ask())
        assert space.distributions(params).keys() == params.keys()
        candidate = space.candidate(params)
        run = space.run(candidate)
        assert run is not None and run.tuning.start.id == space.merge(params).id
        settings = run.tuning.settings
        assert settings["lora"]["rank"] == params["finetune.rank"]
        assert settings["learning_rate"] == pytest.approx(params["finetune.learning_rate"], rel=5e-3)
        assert len(run.examples) == params["finetune.examples"] == run.tuning.examples
        recipe = space.recipe(candidate)
        assert recipe.id == run.recipe.id == space.recipe(space.candidate(dict(params))).id
        assert recipe.label.startswith(f"{run.tuning.start.method}+lora ")
        other = space.candidate({**params, "finetune.rank": 12 - params["finetune.rank"]})
        assert space.recipe(other).id != recipe.id and other.merge.id == candidate.merge.id
    examples = {len(run.examples): run.examples for run in (space.run(space.candidate({**params, "finetune.examples": n})) for n in (4, 8)) if run}  # fmt: skip
    assert examples[8][:4] == examples[4], "smaller budgets are the first of larger ones"
