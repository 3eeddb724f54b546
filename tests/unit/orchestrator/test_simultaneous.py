"""Families of statements, and the recipes that may be on the front, where the truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from orchestrator.report.figures import front
from orchestrator.report.tables import differences as differences_table
from orchestrator.report.tables import leaderboard
from orchestrator.results.board import mark_front
from orchestrator.stats.differences import differences
from orchestrator.stats.estimates import NORMAL, Estimates, Floats, Part
from orchestrator.stats.front import front_mask
from orchestrator.stats.scores import Score, TaskScore, as_row, estimates, on_part
from orchestrator.stats.simultaneous import PIECE, critical, may_be_by_part, may_be_on_front
from tests.helpers.boards import VALUES, board


def of(values: Floats, first: int = 0) -> Estimates:
    """One task's estimates; values of shape (recipes, documents)."""
    documents = np.arange(first, first + values.shape[1])
    means = values.mean(axis=1)
    return Estimates.of(means, [Part(1.0, values - means[:, None], documents, 1.0)])


def verdicts(generator: np.random.Generator, chances: Floats, documents: int, alike: float = 0.7) -> Floats:
    """Verdicts of recipes that have a common answer to a share of the documents; shape (recipes, documents)."""
    shared, own = generator.random(documents), generator.random((len(chances), documents))
    drawn = np.where(generator.random(documents) < alike, shared, own)
    return np.where(drawn < chances[:, None], 1.0, 0.0)


def test_a_family_of_one_has_the_usual_quantile_and_larger_ones_larger() -> None:
    values = np.random.default_rng(0).normal(0, 1, (20, 400))
    assert critical([of(values[:1])]) == NORMAL
    ten, twenty = critical([of(values[:10])]), critical([of(values)])
    assert 2.6 < ten < 2.95 < twenty < 3.15, "of independent statements Šidák's, 2.80 and 3.02"


def test_statements_that_move_together_cost_nothing() -> None:
    values = np.random.default_rng(0).normal(0, 1, (1, 400))
    assert critical([of(values * np.arange(1, 21)[:, None]), of(-values)]) == pytest.approx(NORMAL, abs=0.1)
    assert critical([of(values), of(values, first=400)]) > NORMAL + 0.15, "other documents are other statements"


def test_what_has_no_error_is_in_no_family() -> None:
    values = np.random.default_rng(0).normal(0, 1, (1, 400))
    one = of(values[:, :1], first=999)
    assert critical([of(values), of(0 * values), one]) == pytest.approx(NORMAL, abs=0.1)


def test_several_differences_are_wider_than_each_alone() -> None:
    generator = np.random.default_rng(1)
    scores = [single(values) for values in verdicts(generator, np.array([0.5, 0.55, 0.6, 0.65]), 300)]
    together = differences([(scores[0], other) for other in scores[1:]])
    for found, other in zip(together, scores[1:], strict=True):
        (lone,) = differences([(scores[0], other)])
        assert found.low < lone.low < lone.high < found.high and found.value == lone.value


def test_a_recipe_that_is_beaten_in_one_objective_only_may_be_on_the_front() -> None:
    generator = np.random.default_rng(2)
    first = of(verdicts(generator, np.array([0.8, 0.4, 0.4]), 500))
    second = of(verdicts(generator, np.array([0.6, 0.6, 0.2]), 500), first=500)
    assert may_be_on_front([first, second]).tolist() == [True, True, False]
    assert may_be_on_front([first * -1]).tolist() == [False, True, True]


def test_recipes_that_answer_alike_may_all_be_on_the_front() -> None:
    values = np.tile(np.random.default_rng(0).random(30), (4, 1))
    assert may_be_on_front([of(values)]).all()
    assert may_be_on_front([of(values[:, :1])]).all(), "one document tells nothing"


def test_more_recipes_than_are_compared_at_once() -> None:
    """More than a piece, and more than the bootstrap has time for."""
    chances = np.where(np.arange(4 * PIECE + 250) % 2, 0.95, 0.05)
    found = may_be_on_front([of(verdicts(np.random.default_rng(0), chances, 60))] * 2)
    assert (found == (chances == 0.95)).all()


def test_what_one_document_cannot_show_is_not_known_everywhere() -> None:
    made = board(VALUES, "pa")
    rows = [replace(row, scores={name: few(each.value, 1) for name, each in row.scores.items()}) for row in made.rows]
    made = replace(made, rows=tuple(mark_front(made.objectives, rows)))
    assert all(row.on_front or row.near_front for row in made.rows)
    assert {row[-1] for row in differences_table(made).rows} == {"not known"}
    assert not any(row[3] for row in differences_table(made).rows), "no verdict"
    assert all(cell.endswith("± not known") for row in leaderboard(made).rows for cell in row[4:])
    assert as_row(made.rows[0].scores) == {"medical": 0.9, "medical_se": None, "loss": 0.9, "loss_se": None}
    assert front(made) is not None


def test_a_candidate_that_answered_a_part_is_compared_on_that_part() -> None:
    """The first questions are easy: a candidate that answered only them is no better for it."""
    easy, hard = np.full(60, 0.95), np.full(200, 0.3)
    generator = np.random.default_rng(4)
    full = [single((generator.random(260) < np.append(easy, hard)).astype(float)) for _ in range(2)]
    like, worse = (single((generator.random(60) < easy - off).astype(float)) for off in (0.0, 0.4))
    assert min(like.value, worse.value) > max(score.value for score in full)
    assert on_part(full[0], like).value == pytest.approx(full[0].tasks[0].documents[:60].mean())
    leads = []
    for part in (like, worse):
        found = estimates([*(on_part(score, part) for score in full), part])
        leads.append([found[:-1] - found[[-1]]] * 2)
    assert may_be_by_part(leads).tolist() == [True, False]


def single(values: Floats) -> Score:
    task = TaskScore("o", "t", {}, float(values.mean()), values - values.mean(), values)
    return Score(task.value, (task,), (1.0,))


def few(value: float, documents: int) -> Score:
    values = np.full(documents, value)
    return Score(value, (TaskScore("o", "t", {}, value, 0 * values, values),), (1.0,))


@pytest.mark.parametrize(("documents", "alike"), [(20, 0.5), (100, 0.9), (200, 0.5)])
def test_equal_recipes_are_seldom_called_better(documents: int, alike: float) -> None:
    """Two parents, ten merges, two objectives: a false "better" in one report of twenty at most."""
    generator = np.random.default_rng(documents)
    wrong = 0
    for _ in range(60):
        axes = [of(verdicts(generator, np.full(12, 0.6), documents, alike), first=k * documents) for k in range(2)]
        family = [axis - axis[[parent]] for axis in axes for parent in (0, 1)]
        normal = critical(family)
        wrong += any((each.interval(normal)[0] > 0).any() for each in family)
    assert wrong <= 6


@pytest.mark.parametrize("documents", [30, 300])
def test_the_true_front_is_seldom_missed(documents: int) -> None:
    generator = np.random.default_rng(documents)
    truth = np.array([[0.7, 0.4], [0.65, 0.5], [0.6, 0.58], [0.5, 0.6], [0.5, 0.5], [0.4, 0.35], [0.45, 0.45]])
    true = front_mask(truth)
    missed, sizes = 0, []
    for _ in range(60):
        axes = [of(verdicts(generator, truth[:, k], documents, 0.6), first=k * documents) for k in range(2)]
        found = may_be_on_front(axes)
        missed += not found[true].all()
        sizes.append(found.sum())
    assert missed <= 6 and true.sum() <= np.mean(sizes) <= (7 if documents == 30 else 6)
