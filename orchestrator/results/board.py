"""The board: a row for each recipe with its scores, derived from the ledger's answers and never stored as truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from orchestrator.config.objectives import Objective
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Decoding, Failure, Profile, RecipeStatus, Serving
from orchestrator.ledger.spent import Spent
from orchestrator.recipes.recipe import Recipe, find_recipe
from orchestrator.recipes.tuning import Start, Tuning
from orchestrator.stats.front import front_mask
from orchestrator.stats.scores import Score, estimates
from orchestrator.stats.simultaneous import may_be_on_front
from orchestrator.stats.volume import Interval, Volumes


@dataclass(frozen=True)
class Row:
    """One recipe: its status, its scores and what they cost."""

    recipe: Recipe
    status: RecipeStatus
    scores: dict[str, Score]
    """Objective → score; empty unless scored."""
    costs: dict[str, float]
    """Seconds of a worker's time by kind (see `orchestrator.ledger.ledger.COSTS`)."""
    on_front: bool = False
    near_front: bool = False
    """Off the front, but no recipe beats it in every objective beyond doubt, so that it may be on the front."""
    failure: Failure | None = None
    spent: tuple[Spent, ...] = ()
    """What each of its blocks of answers took."""

    @property
    def method(self) -> str:
        """The method of the recipe's first point; `parent` or `candidate` for an unmerged model."""
        return self.recipe.points[0].method

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameter → value, of the recipe's first point."""
        return dict(self.recipe.points[0].parameters)


@dataclass(frozen=True)
class TaskSummary:
    """One task of an objective, as the report describes it."""

    objective: str
    task: str
    metrics: tuple[str, ...]
    documents: int
    questions: int
    truncated: int
    """Questions whose prompt was cut to fit the engine."""
    share: float = 1.0
    """Its weight in the objective, from 0 to 1, where a group of tasks counts as one."""
    split: str = ""
    """Which questions of the data set these are, in words."""
    composite: str = ""
    """What its composite takes, such as `corpus BLEU, ROUGE-L, no stemming`; empty for all but generation tasks."""
    decoding: Decoding | None = None
    """How its texts are generated; None where none are."""


@dataclass(frozen=True)
class SearchRow:
    """One recipe of a search, the grid and the parents included."""

    recipe: Recipe
    number: int | None
    """In the order of proposals; None for the grid and the parents."""
    status: RecipeStatus
    share: float
    """Of the documents, those that it has answered."""
    values: dict[str, float]
    """Objective → its mean over the questions that it has answered."""
    resamplings: float
    """Share of resamplings of the search questions in which it is on the front; NaN where it has not answered all."""
    may_be_on_front: bool
    """No recipe with all answers beats it in every objective beyond doubt, on the questions that both answered."""


@dataclass(frozen=True)
class Gain:
    """The search's best compromise minus the grid's in one objective, on the held-out questions."""

    objective: str
    value: float
    low: float
    high: float
    """The 95 % interval's ends."""


@dataclass(frozen=True)
class HeldOutVolumes:
    """The hypervolume of the front of a search and of the grid's, on the held-out questions.

    Both fronts are chosen on the search questions, and so is the parent whose score there is the reference point.
    """

    reference: dict[str, tuple[str, float]]
    """Objective → the parent that is worst on the search questions, and its score on the held-out ones."""
    volumes: Volumes
    """The search's first, then the grid's."""
    is_same: bool
    """Whether both fronts are the same recipes."""


@dataclass(frozen=True)
class HeldOutFloor:
    """How far a recipe of the front is above a constraint on the held-out questions."""

    recipe: Recipe
    constraint: str
    """In words."""
    margin: Interval
    """Below 0 where it breaks the constraint; the intervals of all recipes and constraints hold at once with 95 %."""


@dataclass(frozen=True)
class SearchResults:
    """What a search found; made by `orchestrator.stages.search_summary`."""

    sampler: str
    candidates: tuple[SearchRow, ...]
    reference: dict[str, float]
    """Objective → the worst of the parents' values; in-sample hypervolumes are measured from there."""
    history: tuple[tuple[int, float], ...]
    """Questions answered by candidates so far, and the hypervolume of the recipes with all answers; in order. It is
    in-sample: on the questions that the recipes were chosen by."""
    grid: float
    """The hypervolume of grid and parents, in-sample."""
    held_out: HeldOutVolumes | None
    """Search and grid on the held-out questions; None where these are not answered by all recipes that it takes."""
    floors: tuple[HeldOutFloor, ...]
    """The constraints of the front's recipes on the held-out questions."""
    unbounded: dict[str, str]
    """Objective → why the race guarantees nothing there: which metric nothing bounds."""
    importance: dict[str, dict[str, float]]
    """Objective → parameter → its share of the variance that the parameters of its method explain."""
    front: tuple[str, ...]
    """Recipe ids of the front on the questions that were searched on, among those that keep the constraints."""
    confirmed: tuple[str, ...]
    """Those of `front` that are on the front of the held-out questions too."""
    near: tuple[str, ...]
    """Those of `front` that are near the front of the held-out questions."""
    infeasible: int
    """Scored recipes that break a constraint."""
    best: tuple[Recipe, Recipe] | None
    """The best compromise of the candidates and that of the grid."""
    gains: tuple[Gain, ...]


@dataclass(frozen=True)
class FinetunedRow:
    """One run of fine-tuning, with the row of the tuned checkpoint."""

    tuning: Tuning
    row: Row
    result: dict[str, Any]
    """What `tasks.finetuning.train` wrote at the end of the run; empty while it is not finished."""


@dataclass(frozen=True)
class FinetuneResults:
    """Fine-tuning's starting points and runs, scored in the sweep's objectives and in those of fine-tuning."""

    starts: tuple[tuple[Start, Row], ...]
    runs: tuple[FinetunedRow, ...]
    notes: tuple[str, ...]
    tasks: tuple[TaskSummary, ...] = ()
    """The tasks of all these objectives."""
    baseline: FinetunedRow | None = None
    """The run of the instruction-tuned baseline, where the sweep has one."""


@dataclass(frozen=True)
class Board:
    """Everything that the leaderboard, the report and the terminal show of a sweep."""

    config: SweepConfig
    objectives: Mapping[str, Objective]
    """What the rows are scored in: the sweep's objectives (with the learning task of a joint search), or a search's
    objectives on the held-out questions."""
    serving: Serving
    profile: Profile
    tasks: tuple[TaskSummary, ...]
    rows: tuple[Row, ...]
    slerp: dict[str, dict[str, float]]
    """`first/second` → tensors, curved (the share with |cos| <= 0.9995), lowest_cosine; see
    tasks.merging.checkpoint."""
    notes: tuple[str, ...] = ()
    """What the reader must know, such as damaged blocks."""
    search: SearchResults | None = None
    finetuning: FinetuneResults | None = None
    """Where the sweep fine-tunes, and all recipes before it have their scores."""
    awaits_finetuning: bool = False
    """The sweep fine-tunes, but recipes before it still lack their scores."""

    @property
    def axes(self) -> list[str]:
        """The objectives that the front is drawn over, in the sweep's order."""
        return [name for name, objective in self.objectives.items() if objective.front]

    @property
    def front(self) -> list[Row]:
        """The rows on the front, in the board's order."""
        return [row for row in self.rows if row.on_front]

    @property
    def all_rows(self) -> list[Row]:
        """The board's rows, then those that only fine-tuning has: its starting points and its checkpoints."""
        tuned = self.finetuning
        more = [*(row for _, row in tuned.starts), *(run.row for run in tuned.runs)] if tuned else []
        known = {row.recipe.id for row in self.rows}
        return [*self.rows, *{row.recipe.id: row for row in more if row.recipe.id not in known}.values()]

    def find(self, name: str) -> Row:
        """Find a row by its recipe's name, as `find_recipe` takes it, among all recipes that the report names.

        Raises:
            UserError: no recipe has this name, or several have.
        """
        rows = self.all_rows
        recipe = find_recipe([row.recipe for row in rows], name)
        return next(row for row in rows if row.recipe is recipe)

    def find_seeds(self, name: str) -> dict[int | None, Row]:
        """Find the rows of the runs that differ in their seed alone, by their label without it; or one row by its name.

        Returns:
            Seed → row; or None → the row of one recipe, which `find` found.

        Raises:
            UserError: as for `find`.
        """
        runs = self.finetuning.runs if self.finetuning else ()
        found: dict[int | None, Row] = {run.tuning.seed: run.row for run in runs if run.tuning.without_seed == name}
        return found or {None: self.find(name)}


def mark_front(objectives: Mapping[str, Objective], rows: Sequence[Row]) -> list[Row]:
    """Mark which of the scored rows are on the front, and which others may be on it."""
    signs = {name: objective.sign for name, objective in objectives.items() if objective.front}
    scored = [row for row in rows if row.status == RecipeStatus.SCORED]
    if not scored:
        return list(rows)
    axes = [estimates([row.scores[name] for row in scored]) * sign for name, sign in signs.items()]
    on, may_be = front_mask(np.stack([axis.values for axis in axes], axis=1)), may_be_on_front(axes)
    marks = {row.recipe.id: mark for row, *mark in zip(scored, on, may_be, strict=True)}
    found = []
    for row in rows:
        on_front, possible = map(bool, marks.get(row.recipe.id, (False, False)))
        found.append(replace(row, on_front=on_front, near_front=possible and not on_front))
    return found
