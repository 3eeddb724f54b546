"""What `plan` says of the differences that a sweep can show."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.planning.power import PowerPlan, describe_power, plan_power
from orchestrator.results.board import Board
from orchestrator.stages.open import Sweep
from orchestrator.stages.publish import read_board
from tests.helpers.tasks import CHOICE, answered_sweep, rows, write_task


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep over 60 questions, of which 40 are evaluated and 10 repeat others, with its answers."""
    folder = tmp_path_factory.mktemp("power")
    write_task(folder, CHOICE, rows(60, question=lambda i: f"Which dose suits case {i % 50 if i < 40 else i - 30}?"))
    return answered_sweep(folder, objectives={"medical": {"tasks": ["own"], "limit": 50}})


def planned(sweep: Sweep, wanted: float | None = None, answers: Board | None = None) -> tuple[PowerPlan, str]:
    (plan,) = plan_power(sweep.config, sweep.tasks, sweep.recipes, wanted, answers)
    return plan, " ".join(describe_power([plan]))


def test_a_plan_says_which_difference_shows_and_how_many_questions_show_a_smaller_one(sweep: Sweep) -> None:
    plan, said = planned(sweep, 0.05)
    assert (plan.documents, plan.questions, plan.comparisons) == (50, 40, 2 * 2)
    assert plan.one is not None and plan.all is not None and 0.1 < plan.one < plan.all < 0.5
    (need,) = plan.needs
    assert need.available == 60 and need.needed > (plan.needed_by_one or 0) > 50
    assert "a discordance of 10%, assumed" in said and f"the data sets have 60 of {need.needed:,} in own" in said


def test_answers_say_how_unlike_recipes_answer(sweep: Sweep) -> None:
    plan, said = planned(sweep, answers=read_board(sweep.layout.root))
    assert "that of the answers" in said and (plan.basis or "").startswith("a discordance of ")
    assert plan.one != planned(sweep)[0].one


def test_a_text_metric_is_not_known_before_there_are_answers(sweep: Sweep) -> None:
    (suite,) = sweep.tasks.suites
    before = suite.metrics
    suite.metrics = [("rouge1", "none")]
    try:
        plan, said = planned(sweep, 0.05)
    finally:
        suite.metrics = before
    assert (
        plan.one is None
        and not plan.needs
        and "is not known before answers say" in said
        and "no difference" not in said
    )


@pytest.mark.parametrize("wanted", ["0", "-0.1", "1", "nan"])
def test_a_difference_that_is_none_is_refused(wanted: str, refuses: Callable[..., str], sweep: Sweep) -> None:
    refuses("is no difference of scores", "plan", sweep.layout.root.parent / "sweep.yaml", f"--detect={wanted}")
