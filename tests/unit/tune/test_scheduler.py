"""Rungs are nested and proportional, and a race stops what is beaten early; over real tasks and a real ledger."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config.load import load_config
from orchestrator.core.records import Answer, Answered, Block, RecipeStatus
from orchestrator.report.search import words
from orchestrator.results.layout import Layout
from orchestrator.stages.open import Sweep, open_sweep
from orchestrator.stages.search import Race, confirmed_board, open_race, read_standings
from orchestrator.stages.search_summary import summarise
from tasks.evaluation.suites import SuiteTask
from tests.helpers.tasks import CHOICE, rows, write_task
from tune.rungs import Rungs
from tune.scheduler import RaceScheduler
from tune.space import SearchSpace
from tune.standings import Standing, read_candidates

OBJECTIVES = {
    "clinical": {"tasks": ["demo_formulary"], "split": "search"},
    "both": {
        "tasks": ["demo_formulary", {"task": "demo_formulary", "limit": 30}],
        "average": "questions",
        "split": "search",
    },
}
SEARCH = {
    "space": [{"method": "linear", "alpha": {"low": 0, "high": 1}}],
    "budget": {"candidates": 5},
    "constraints": {"clinical": {"parent": "a", "share": 0.5}},
}


@pytest.fixture
def opened(sweep: Callable[..., Path], tmp_path: Path) -> Sweep:
    path = sweep(objectives=OBJECTIVES, search=SEARCH, recipes=[{"method": "linear", "alpha": [0.5]}])
    return open_sweep(load_config(path), Layout(tmp_path / "out"))


def started(sweep: Sweep) -> Race:
    race = open_race(sweep, starts=True)
    assert race is not None
    sweep.layout.candidates.mkdir(parents=True, exist_ok=True)
    return race


def answer(sweep: Sweep, recipe_id: str, rungs: Rungs, index: int, right: float) -> None:
    """Put answers to a rung into the ledger, of which a share is right."""
    answer_suites(sweep, recipe_id, rungs.rungs[index].suites, right)


def answer_suites(sweep: Sweep, recipe_id: str, suites: Sequence[SuiteTask], right: float) -> None:
    generator = np.random.default_rng(int(recipe_id[:8], 16))
    for suite in suites:
        luck = {instance.doc_id: generator.random() < right for instance in suite.task.instances}
        answers = {}
        for instance, question in zip(suite.task.instances, suite.questions, strict=True):
            good = (instance.idx == instance.doc["answer"]) == luck[instance.doc_id]
            answers[question] = Answer(question.id, -1.0 if good else -5.0, False, tokens=1)
        new = {q: a for q, a in answers.items() if q.id not in sweep.ledger.answers(recipe_id)}
        if new:
            sweep.ledger.write(Answered(Block(recipe_id, tuple(new)), tuple(new.values()), 0.0, 0.0, "test"))


def test_rungs_are_nested_and_a_prefix_of_the_values(opened: Sweep) -> None:
    opened_race = started(opened)
    scheduler = opened_race.scheduler
    rungs, recipe = scheduler.rungs, opened.recipes[0]
    answer(opened, recipe.id, rungs, len(rungs.rungs) - 1, right=0.7)
    lm = opened.tasks.lm.knowing(opened.ledger.answers(recipe.id))
    whole, scores, _ = rungs.read(lm, len(rungs.rungs) - 1)
    assert not rungs.unbounded
    for name, values, draws in zip(rungs.objectives, whole, rungs.order.draws, strict=True):
        assert values.sum() == pytest.approx(scores[name].value)
        assert len(values) == len(draws.tops) and (values <= draws.tops).all() and draws.tops.sum() == pytest.approx(1)
    search = opened.config.search
    assert search is not None
    wanted = search.racing.rungs
    before: set[str] = set()
    for index, rung in enumerate(rungs.rungs):
        asked = {question.id for suite in rung.suites for question in suite.questions}
        assert before <= asked
        before = asked
        parts, _, strays = rungs.read(lm, index)
        assert not strays
        for part, all_ in zip(parts, whole, strict=True):
            assert (part == all_[: len(part)]).all(), "what is known does not change"
        assert len(parts[0]) / len(whole[0]) == pytest.approx(wanted[index], abs=0.01), "both have the same questions"


def with_scored_grid(sweep: Sweep) -> RaceScheduler:
    """The scheduler of a race whose parents and merge are scored: the first parent is best."""
    return scored_grid(sweep).scheduler


def scored_grid(sweep: Sweep) -> Race:
    race = started(sweep)
    last = len(race.scheduler.rungs.rungs) - 1
    for recipe, right in zip(sweep.recipes, (0.95, 0.5, 0.4), strict=True):
        answer(sweep, recipe.id, race.scheduler.rungs, last, right)
    read_standings(race)
    return race


def test_a_beaten_candidate_is_stopped_early_and_another_is_scored(opened: Sweep) -> None:
    scheduler = with_scored_grid(opened)
    assert {standing.status for standing in scheduler.standings.values()} == {RecipeStatus.SCORED}
    bad, good = (candidate(opened, scheduler, place, ratio) for place, ratio in ((0, 0.2), (1, 0.7)))
    raced = race(opened, scheduler, bad, right=0.1)
    assert (
        bad.status == RecipeStatus.STOPPED_EARLY
        and bad.rung < len(scheduler.rungs.rungs) - 1
        and raced[-1] >= np.log(1 / 0.05)
    )
    constraints = scheduler.result_of(bad).constraints
    assert constraints is not None and list(constraints) == ["clinical at least 0.5 of a"]
    parent = scheduler.standings[opened.recipes[0].id].scores["clinical"].value
    short = 0.5 * parent - bad.scores["clinical"].value
    assert constraints["clinical at least 0.5 of a"] == pytest.approx(short) and short > 0.2
    assert not scheduler.feasible(bad)
    race(opened, scheduler, good, right=1.0)
    assert good.status == RecipeStatus.SCORED and scheduler.feasible(good)
    assert scheduler.spent["candidates"] == 2 and not scheduler.exhausted


def guarded(folder: Path, sweep: Callable[..., Path], limit: dict[str, Any]) -> Sweep:
    """The same search with a guard over the same questions, which is no axis."""
    guard = {"tasks": ["demo_formulary"], "metric": "brier", "direction": "minimize", "split": "search", "front": False}
    search = {**SEARCH, "constraints": {"sure": limit}}
    path = sweep(
        objectives={**OBJECTIVES, "sure": guard}, search=search, recipes=[{"method": "linear", "alpha": [0.5]}]
    )
    return open_sweep(load_config(path), Layout(folder / "out"))


def test_a_guard_is_no_axis_and_has_no_questions_of_its_own(
    opened: Sweep, sweep: Callable[..., Path], tmp_path: Path
) -> None:
    own = guarded(tmp_path / "guarded", sweep, {"parent": "a", "share": 0.5})
    plain, scheduler = with_scored_grid(opened), with_scored_grid(own)
    assert [rung.size for rung in scheduler.rungs.rungs] == [rung.size for rung in plain.rungs.rungs]
    assert set(scheduler.rungs.objectives) == set(OBJECTIVES)
    good, bad = (candidate(own, scheduler, place, ratio) for place, ratio in ((0, 0.7), (1, 0.2)))
    race(own, scheduler, good, right=0.99)
    assert good.status == RecipeStatus.SCORED and scheduler.feasible(good)
    race(own, scheduler, bad, right=0.1)
    assert bad.status == RecipeStatus.STOPPED_EARLY and not scheduler.feasible(bad)
    result = scheduler.result_of(good)
    assert result.constraints is not None and list(result.constraints) == ["sure at least 0.5 of a"]
    assert len(result.values) == 2 and set(good.scores) == {*OBJECTIVES, "sure"}
    assert set(own.config.held_out) == {*OBJECTIVES, "sure"}, "guards are checked there too"


def test_a_rival_that_breaks_a_guard_stops_no_candidate(sweep: Callable[..., Path], tmp_path: Path) -> None:
    own = guarded(tmp_path, sweep, {"score": 1e-6})
    scheduler = with_scored_grid(own)
    assert not any(map(scheduler.feasible, scheduler.standings.values()))
    bad = candidate(own, scheduler, 0, 0.2)
    race(own, scheduler, bad, right=0.1)
    assert bad.status == RecipeStatus.SCORED
    (name,) = scheduler.result_of(bad).constraints or {}
    assert name == "sure at most 1e-06"


def test_a_candidate_noted_with_an_unknown_status_is_decided_again_from_its_answers(opened: Sweep) -> None:
    """As versions before `stopped early` wrote it. Nothing is left to evaluate up to the rung that it had reached."""
    scheduler = with_scored_grid(opened)
    bad = candidate(opened, scheduler, 0, 0.2)
    race(opened, scheduler, bad, right=0.1)
    bad.save(scheduler.folder)
    file = scheduler.folder / f"{bad.recipe.id}.json"
    assert json.loads(file.read_text())["status"] == "stopped early"
    file.write_text(file.read_text().replace("stopped early", "raced"))

    (again,), _ = read_candidates(opened.layout.proposals(), SearchSpace(opened.config, opened.sources))
    assert (again.status, again.rung, again.number) == (RecipeStatus.PENDING, -1, 0)
    scheduler.standings[bad.recipe.id] = again
    count = opened.ledger.count(bad.recipe.id)
    race(opened, scheduler, again, right=0.1)
    assert (again.status, again.rung) == (RecipeStatus.STOPPED_EARLY, bad.rung)
    assert opened.ledger.count(bad.recipe.id) == count, "no question was evaluated again"


def candidate(sweep: Sweep, scheduler: RaceScheduler, number: int, ratio: float) -> Standing:
    proposed = SearchSpace(sweep.config, sweep.sources).candidate({"linear.alpha": ratio})
    standing = Standing(proposed.merge, proposed, number)
    scheduler.standings[standing.recipe.id] = standing
    return standing


def race(sweep: Sweep, scheduler: RaceScheduler, standing: Standing, right: float) -> list[float]:
    """Race to the end, never deferred. Returns the evidence after each rung."""
    evidence = []
    while standing.status == RecipeStatus.PENDING:
        answer(sweep, standing.recipe.id, scheduler.rungs, standing.rung + 1, right)
        scheduler.read(standing, standing.rung + 1)
        scheduler.decide(standing, defer_above=np.inf)
        evidence.append(standing.evidence)
    return evidence


def test_a_search_is_reported_on_the_held_out_questions_and_marked_in_sample_elsewhere(opened: Sweep) -> None:
    found = scored_grid(opened)
    good, bad = (candidate(opened, found.scheduler, place, ratio) for place, ratio in ((0, 0.7), (1, 0.2)))
    race(opened, found.scheduler, good, right=1.0)
    race(opened, found.scheduler, bad, right=0.1)
    assert [each.recipe.id for each in found.front] == [good.recipe.id]
    board = confirmed_board(opened, found)
    assert board is not None
    before = words(summarise(found, board))
    assert any(line.startswith("Hypervolume: not known.") for line in before), "no interval without held-out scores"
    assert any(line.startswith("In-sample, on the questions that the recipes were chosen by") for line in before)

    share = {recipe.id: right for recipe, right in zip(opened.recipes, (0.9, 0.5, 0.4), strict=True)} | {
        good.recipe.id: 0.6
    }
    for recipe in found.finalists:
        answer_suites(opened, recipe.id, opened.tasks.held_out, share[recipe.id])
    board = confirmed_board(opened, found)
    assert board is not None
    said = summarise(found, board)
    assert said.held_out is not None and not said.held_out.is_same
    first, second, gain = said.held_out.volumes
    assert first.low <= first.value <= first.high and gain.value < 0, "what looked best was not"
    assert gain.low <= first.value - second.value <= gain.high
    worst = {name: parent for name, (parent, _) in said.held_out.reference.items()}
    assert set(worst.values()) == {"b"}
    (floor,) = said.floors
    assert (
        floor.constraint == "clinical at least 0.5 of a" and floor.margin.low < floor.margin.value < floor.margin.high
    )
    text = "\n".join(words(said))
    for part in (
        "Hypervolume of the front on the held-out questions: ", "Gain over the grid there: -", "clinical at least 0.5 of a, on",
        "Of 1 recipe on the front, 0 are on the front of the held-out questions",
    ):  # fmt: skip
        assert part in text
    assert "guarantee" not in text, "verdicts are bounded"
    rows = {row.recipe.id: row for row in said.candidates}
    assert np.isnan(rows[bad.recipe.id].resamplings) and rows[good.recipe.id].resamplings == pytest.approx(1, abs=0.05)
    assert rows[good.recipe.id].may_be_on_front


HIT = """
import numpy as np
def judge(doc, results):
    return {"hit": float(np.argmax([logprob for logprob, _ in results]) == doc["answer"])}
def share(items):
    return float("nan") if len(items) < 12 or not any(items) else sum(items) / len(items)
"""
"""A share that is undefined for few documents, and where nothing is right."""


def test_a_candidate_without_a_score_on_a_rung_races_on_and_without_one_at_the_end_is_unscored(
    sweep: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERGEFRONT_TRUST", str(tmp_path))
    metric = "metric_list: [{metric: hit, aggregation: !function utils.share, higher_is_better: true}]\n"
    write_task(
        tmp_path, CHOICE.split("metric_list")[0] + "process_results: !function utils.judge\n" + metric, rows(60), HIT
    )
    path = sweep(
        objectives={"clinical": {"tasks": ["own"], "split": "search"}},
        search={**SEARCH, "racing": {"rungs": [0.3, 0.6, 1.0]}, "constraints": {}},
        recipes=[{"method": "linear", "alpha": [0.5]}],
        include_path=[str(tmp_path / "tasks")],
        data_root=str(tmp_path / "data"),
    )
    opened = open_sweep(load_config(path), Layout(tmp_path / "out"))
    scheduler = with_scored_grid(opened)
    first, second, _ = (rung.suites[0].documents for rung in scheduler.rungs.rungs)
    assert first < 12 < second
    assert "nothing is known that bounds its values" in scheduler.unbounded["clinical"]
    good, bad = (candidate(opened, scheduler, place, ratio) for place, ratio in ((0, 0.2), (1, 0.7)))
    for standing, right in ((good, 0.9), (bad, 0.0)):
        for index in range(3):
            answer(opened, standing.recipe.id, scheduler.rungs, index, right)
        scheduler.log = lambda line: None
        reports = scheduler.advance(standing, None, np.inf)  # type: ignore[arg-type]  # nothing is left to evaluate
        assert [report["rung"] for report in reports] == [0, 1, 2] and "clinical" not in reports[0]
    assert (good.status, bad.status) == (RecipeStatus.SCORED, RecipeStatus.UNSCORED)
    assert "its aggregation over" in bad.reason and "gives nan" in bad.reason and not bad.answers
    assert not scheduler.standings[bad.recipe.id].answers
    assert scheduler.result_of(bad).values == ()
    again = started(opened)
    assert again.scheduler.standings[bad.recipe.id].status == RecipeStatus.UNSCORED
    assert again.scheduler.standings[good.recipe.id].status == RecipeStatus.SCORED
    assert again.is_settled and not again.unscored_parents
