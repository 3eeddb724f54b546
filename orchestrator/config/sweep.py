"""The keys of a sweep file, as a model that `orchestrator.config.load` reads from YAML.

What can be checked from the keys alone is checked here; what needs the parents' files is checked in
`orchestrator.models.resolve`, and what needs lm-eval's task index in `tasks.evaluation.suites`. All of them lead to a
`UserError`: one message with the key's path, the value and the way out. Neither torch nor Ray nor vLLM is imported, so
that a wrong key is reported at once.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from orchestrator.config.finetune import Finetune
from orchestrator.config.generation import Generation
from orchestrator.config.models import Parent
from orchestrator.config.objectives import Objective, TaskUse
from orchestrator.config.recipes import RecipeGrid
from orchestrator.config.search import FinetuneSpace, Search
from orchestrator.config.types import Location, Name, Strict
from orchestrator.config.workers import Workers
from orchestrator.core.errors import UserError, hint

__all__ = ["Name", "Objective", "Strict", "SweepConfig", "TaskUse", "UserError", "hint"]

RESERVED = {"recipe_id", "method", "parameters", "status", "on_front", "near_front", "swap_s", "answer_s"}
"""Names that an objective cannot have, because the leaderboard has columns of these names."""

SOURCES = ("union", "base")
"""mergekit's words for `tokenizer_source`."""


class Checkpoints(Strict):
    """Whether merged weights are written to disk, and how much of it they may take."""

    keep: bool = False
    """Write the weights of every recipe to DIR/checkpoints/<id>, and load them from there. If false, recipes are merged
    directly into the running engine, and no checkpoint is written."""
    disk_gb: float | None = Field(default=None, gt=0)
    """Refuse to start if kept checkpoints and merged adapters need more GB (10^9 bytes) than this."""


class SweepConfig(Strict):
    """A sweep: parents, the recipes to merge from them, the objectives to score, and where it runs."""

    parents: dict[Name, Parent] = Field(min_length=2)
    """Name → model: at least two, of the same architecture and vocabulary. A ratio of 0 is the first parent."""
    recipes: list[RecipeGrid] = []
    """The grid: merge methods, and the values to try."""
    candidates: dict[Name, Parent] = {}
    """Name → a checkpoint that was merged elsewhere, and is evaluated as it is."""
    objectives: dict[Name, Objective] = Field(min_length=1)
    """Name → tasks whose scores become one number; each is an axis of the front unless it has `front: false`."""
    generation: Generation | None = None
    """Data and settings of the generation tasks."""
    include_path: list[str] = []
    """Folders with your own lm-eval task files."""
    data_root: str | None = None
    """A folder in the hub's layout (org/name/…) that data sets are loaded from, without a network."""
    tokenizer: str | None = None
    """The parent whose tokenizer and chat template are used for every recipe; default: the last one with a template.
    With `tokenizer_source` it chooses the chat template alone."""
    tokenizer_source: str | None = None
    """mergekit's, for parents whose vocabularies differ: `union` gives every recipe the tokens of all parents, `base`
    those of the first parent, and a parent's name those of that parent."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Dtype of the merged weights and of the engine."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Random seed of few-shot sampling, of sampled decoding, and of the random merge methods (dare, della)."""
    finetune: Finetune | None = None
    """Fine-tuning of chosen recipes on labelled examples, and evaluation of the results."""
    workers: Workers = Workers()
    """The engines: how many, on what hardware, and how their work is divided."""
    checkpoints: Checkpoints = Checkpoints()
    """Merged checkpoints on disk."""
    ledger: Location | None = None
    """Where the answers are stored: a folder, or s3://bucket/prefix or gs://bucket/prefix; several sweeps may share it.
    Default: DIR/answers. The answers include generated text."""
    retention: float = Field(default=0.95, gt=0)
    """Share of the best parent's score that a merge or a fine-tuned checkpoint must keep to be said to retain it: the
    margin of the report's test of non-inferiority, to be fixed before the results are seen. By default at most a
    twentieth may be lost; a test set of some hundred questions cannot show much less."""
    search: Search | None = None
    """Search for recipes beyond the grid."""

    @model_validator(mode="before")
    @classmethod
    def _as_mergekit_writes_it(cls, data: Any) -> Any:
        """Read mergekit's `tokenizer: {source: union}` as `tokenizer_source: union`."""
        if not isinstance(data, dict) or not isinstance(written := data.get("tokenizer"), dict):
            return data
        more = sorted(map(str, written.keys() - {"source"}))
        if more or "tokenizer_source" in data or not isinstance(written.get("source"), str):
            raise ValueError(
                f"tokenizer.{more[0] if more else 'source'}: of mergekit's tokenizer only source is read here; write "
                "tokenizer_source: union, base or a parent's name"
            )
        return {
            **{key: value for key, value in data.items() if key != "tokenizer"},
            "tokenizer_source": written["source"],
        }

    @model_validator(mode="after")
    def _names(self) -> SweepConfig:
        for index, grid in enumerate(self.recipes):
            used = [
                *(grid.between or []),
                *(grid.models or {}),
                *([grid.base_model] if grid.base_model else []),
            ]
            _known(f"recipes[{index}]", used, self.parents)
            _different(f"recipes[{index}]", used or list(self.parents)[:2], self.parents)
            if grid.between is None and grid.ratio and len(self.parents) > 2:
                raise ValueError(
                    f"recipes[{index}].between is needed: with {len(self.parents)} parents it is not clear which two "
                    f"the ratio runs between; write between: {list(self.parents)[:2]}"
                )
        if self.tokenizer is not None:
            if self.tokenizer in SOURCES and self.tokenizer not in self.parents:
                raise ValueError(f"tokenizer names a parent; write tokenizer_source: {self.tokenizer}")
            _known("tokenizer", [self.tokenizer], self.parents)
        sources = [*SOURCES, *self.parents]
        if self.tokenizer_source is not None and self.tokenizer_source not in sources:
            near = hint(self.tokenizer_source, sources)
            raise ValueError(
                f"tokenizer_source: {self.tokenizer_source!r} is not known{near}; write one of {', '.join(sources)}"
            )
        both = sorted(set(self.parents) & set(self.candidates))
        if both:
            raise ValueError(f"candidates.{both[0]}: {both[0]!r} is a parent's name too; choose another")
        for name in self.objectives:
            if name in RESERVED or name.removesuffix("_se") in {*self.objectives, *RESERVED} - {name}:
                raise ValueError(f"objectives.{name}: the leaderboard has a column of this name; choose another")
        if self.finetune is not None:
            self.finetune.check(self.objectives)
        if not any(objective.front for objective in self.objectives.values()):
            raise ValueError("objectives: every one has front: false; the front needs at least one")
        if self.search is not None:
            self._check_search(self.search)
        return self

    def _check_search(self, search: Search) -> None:
        for index, space in enumerate(search.space):
            used = [*(space.between or []), *space.models, *([space.base_model] if space.base_model else [])]
            _known(f"search.space[{index}]", used, self.parents)
        known = dict(self.objectives)
        if search.finetune is not None:
            learned = self.finetune.tasks if self.finetune else {}
            if search.finetune.task not in learned:
                raise ValueError(
                    f"search.finetune.task: {search.finetune.task!r} is not in finetune.tasks "
                    f"({', '.join(learned) or 'there is no section finetune'}){hint(search.finetune.task, learned)}"
                )
            if self.workers.count is None:
                raise ValueError(
                    "workers.count is needed: a search that fine-tunes trains beside the engines; say how many there "
                    "are, so that cores or GPUs are left"
                )
            known[search.finetune.task] = learned[search.finetune.task]
        for name, floor in search.constraints.items():
            if name not in known:
                raise ValueError(f"search.constraints.{name}: is no objective{hint(name, known)}")
            if floor.parent is not None:
                _known(f"search.constraints.{name}.parent", [floor.parent], self.parents)
        self._check_split(search)

    def _check_split(self, search: Search) -> None:
        """Check that a search has held-out questions for every axis and guard.

        Raises:
            ValueError: an axis of the front, or an objective with a constraint, has another split than `search`.
        """
        named = {f"objectives.{name}": objective for name, objective in self.objectives.items()}
        learned = {f"finetune.tasks.{name}": objective for name, objective in self.learned.items()}
        for where, objective in {**named, **learned}.items():
            is_searched = objective.front or where.removeprefix("objectives.") in search.constraints
            if is_searched and objective.split != "search":
                raise ValueError(
                    f"{where}.split: is {objective.split}, but a search is confirmed on questions that it never "
                    "saw; write split: search (the final front is then evaluated on the others)"
                )

    @property
    def joint(self) -> tuple[FinetuneSpace, Finetune] | None:
        """The sections `search.finetune` and `finetune` of a joint search; None for any other sweep."""
        tuned = self.search.finetune if self.search else None
        return (tuned, self.finetune) if tuned and self.finetune else None

    @property
    def learned(self) -> dict[str, Objective]:
        """Name → objective: the task that a joint search fine-tunes on; empty for any other sweep."""
        if self.joint is None:
            return {}
        tuned, finetune = self.joint
        return {tuned.task: finetune.tasks[tuned.task]}

    @property
    def held_out(self) -> dict[str, Objective]:
        """Name → objective: axes and guards of a search on the questions that it never sees; empty without a search."""
        if self.search is None:
            return {}
        guards = self.search.constraints
        searched = {name: each for name, each in self.objectives.items() if each.front or name in guards}
        searched |= self.learned
        return {name: each.model_copy(update={"split": "confirm"}) for name, each in searched.items()}


def _different(where: str, names: list[str], parents: dict[str, Parent]) -> None:
    """Check that the parents that a recipe merges are not one model under two names, which mergekit refuses."""
    found: dict[Parent, str] = {}
    for name in names:
        other = found.setdefault(parents[name], name)
        if other != name:
            raise ValueError(
                f"{where} merges {other} and {name}, which are the same model ({parents[name].model}); name another "
                "model in one of them"
            )


def _known(where: str, names: list[str], parents: dict[str, Parent]) -> None:
    for name in names:
        if name not in parents:
            raise ValueError(
                f"{where} names {name!r}, which is not in parents: {', '.join(parents)}{hint(name, parents)}"
            )
