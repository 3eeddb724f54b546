"""The leaderboard: a row a recipe, derived from the ledger's answers and never stored as truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Failure, Profile, Serving
from orchestrator.recipes.recipe import Recipe, find_recipe
from orchestrator.stats.front import near_front, pareto_front
from orchestrator.stats.scores import Score

if TYPE_CHECKING:
    from orchestrator.recipes.tuning import Start, Tuning


Status = Literal["scored", "invalid", "failed", "pending", "raced", "waiting"]


@dataclass(frozen=True)
class Row:
    recipe: Recipe
    status: Status
    """`pending`: some of its questions are not asked yet; of a search's candidates, `raced`: beaten on a part of the
    questions, and `waiting`: probably beaten, others were asked first."""
    scores: dict[str, Score]
    """Objective → score; empty unless scored."""
    costs: dict[str, float]
    on_front: bool = False
    near_front: bool = False
    failure: Failure | None = None

    @property
    def method(self) -> str:
        return self.recipe.points[0].method

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.recipe.points[0].parameters)


@dataclass(frozen=True)
class Suite:
    """What the report tells about one task."""

    objective: str
    task: str
    metrics: tuple[str, ...]
    documents: int
    questions: int
    truncated: int
    share: float = 1.0
    """Its part of the objective where groups count as one."""
    split: str = ""
    """Which questions of the data set these are, in words."""


@dataclass(frozen=True)
class Candidate:
    """One recipe in a search."""

    recipe: Recipe
    number: int | None
    """In the order of proposals; None for the grid and the parents."""
    status: str
    share: float
    """Of the documents, that it was asked."""
    values: dict[str, float]
    """Objective → its mean over what it was asked."""
    probability: float
    """That it is on the front, were the questions drawn anew."""


@dataclass(frozen=True)
class Gain:
    """The search's best compromise less the grid's, on the held-out questions."""

    objective: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Searched:
    """What a search found; see `orchestrator.stages.search`."""

    sampler: str
    candidates: tuple[Candidate, ...]
    reference: dict[str, float]
    """The parents' worst in each objective: hypervolumes are above it."""
    history: tuple[tuple[int, float], ...]
    """Questions asked of candidates, and the hypervolume of what was asked in full."""
    grid: float
    """The hypervolume of grid and parents."""
    interval: tuple[float, float]
    """Of the last hypervolume, 95 %."""
    importance: dict[str, dict[str, float]]
    """Objective → parameter → its share of the variance that the parameters of its method explain."""
    front: tuple[str, ...]
    """Recipe ids of the front on the questions that were searched on, among those that keep the constraints."""
    confirmed: tuple[str, ...]
    """Those of them that are on the front of the held-out questions too."""
    near: tuple[str, ...]
    """Those that are near it there."""
    infeasible: int
    """Recipes asked in full that break a constraint."""
    best: tuple[Recipe, Recipe] | None
    """The best compromise of the candidates and that of the grid."""
    gains: tuple[Gain, ...]


@dataclass(frozen=True)
class TunedRow:
    """One run of the second phase."""

    tuning: Tuning
    row: Row
    result: dict[str, Any]
    """What `tasks.finetuning.train` wrote when it was finished; else empty."""


@dataclass(frozen=True)
class Tuned:
    """The second phase: where it started from, and what came of each run; scored in both phases' objectives."""

    starts: tuple[tuple[Start, Row], ...]
    runs: tuple[TunedRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Board:
    config: SweepConfig
    serving: Serving
    profile: Profile
    suites: tuple[Suite, ...]
    rows: tuple[Row, ...]
    slerp: dict[str, dict[str, float]]
    """`first/second` → tensors, curved (the share with |cos| <= 0.9995), lowest_cosine; see
    tasks.merging.checkpoint."""
    notes: tuple[str, ...] = ()
    """What the reader must know, such as damaged blocks."""
    searched: Searched | None = None
    tuned: Tuned | None = None
    """Where the sweep fine-tunes, and the first phase is scored."""

    @property
    def objectives(self) -> list[str]:
        """The axes of the front, in the sweep's order."""
        return [name for name, objective in self.config.objectives.items() if objective.front]

    @property
    def front(self) -> list[Row]:
        return [row for row in self.rows if row.on_front]

    def find(self, name: str) -> Row:
        """A row by its recipe's name, as `find_recipe` takes it."""
        recipe = find_recipe([row.recipe for row in self.rows], name)
        return next(row for row in self.rows if row.recipe is recipe)


def mark(config: SweepConfig, rows: list[Row]) -> list[Row]:
    """Say which of the scored rows are on the front and which are near it."""
    signs = {
        name: 1.0 if objective.direction == "maximize" else -1.0
        for name, objective in config.objectives.items()
        if objective.front
    }
    scored = {row.recipe.id: row.scores for row in rows if row.status == "scored"}
    points = {key: [signs[name] * scores[name].value for name in signs] for key, scores in scored.items()}
    front = pareto_front(points)
    on, near = set(front), set(near_front(scored, signs, front))
    return [replace(row, on_front=row.recipe.id in on, near_front=row.recipe.id in near) for row in rows]
