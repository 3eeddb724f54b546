"""Every path below a results folder, each written down once.

A run's own folder (DIR/tuning/<id>) is read and written by the processes that train, too: what is in it stands in
`orchestrator.recipes.tuning.RunFolder`. What is in a ledger stands in `orchestrator.ledger.blocks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.recipes.tuning import RunFolder

ID = "[0-9a-f]" * 20
"""Matches the ids of recipes and of runs of fine-tuning."""


@dataclass(frozen=True)
class Layout:
    """The paths below one results folder.

    Args:
        root: DIR, or DIR/confirmed, which is a results folder in small.
    """

    root: Path

    # ---------------------------------------------------------------- the sweep and its driver
    @property
    def manifest(self) -> Path:
        return self.root / "sweep.json"

    @property
    def questions(self) -> Path:
        return self.root / "questions.parquet"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def driver(self) -> Path:
        return self.root / "driver.json"

    @property
    def engine_error(self) -> Path:
        """What vLLM said when no engine started."""
        return self.root / "engine-error.txt"

    # ---------------------------------------------------------------- answers and what they are made with
    @property
    def answers(self) -> Path:
        """The ledger, unless the sweep names another."""
        return self.root / "answers"

    @property
    def serving(self) -> Path:
        """A folder of tokenizer files for each tokenizer."""
        return self.root / "serving"

    @property
    def metrics(self) -> Path:
        """What was measured of generated texts."""
        return self.root / "metrics"

    @property
    def cache(self) -> Path:
        """What datasets makes of the user's own task files."""
        return self.root / "cache"

    @property
    def ray(self) -> Path:
        """Objects that do not fit into the memory of a local Ray."""
        return self.root / "ray"

    @property
    def checkpoints(self) -> Path:
        """Merged checkpoints, where they are kept."""
        return self.root / "checkpoints"

    @property
    def scratch(self) -> Path:
        """What engines need on the way."""
        return self.checkpoints / "scratch"

    @property
    def slerp(self) -> Path:
        """How the parents of each SLERP pair differ."""
        return self.root / "slerp.json"

    def failure(self, recipe_id: str) -> Path:
        """Why a recipe has no score."""
        return self.root / "failures" / f"{recipe_id}.json"

    def failures(self) -> list[Path]:
        return sorted((self.root / "failures").glob("*.json"))

    # ---------------------------------------------------------------- results
    @property
    def leaderboard(self) -> Path:
        return self.root / "leaderboard.parquet"

    @property
    def front(self) -> Path:
        return self.root / "front.json"

    @property
    def recipes(self) -> Path:
        return self.root / "recipes"

    def recipe(self, recipe_id: str) -> Path:
        """A recipe as mergekit YAML."""
        return self.recipes / f"{recipe_id}.yaml"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def report_md(self) -> Path:
        return self.root / "report.md"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    # ---------------------------------------------------------------- fine-tuning
    @property
    def tuning(self) -> Path:
        """A folder for each run of fine-tuning."""
        return self.root / "tuning"

    def run(self, tuning_id: str) -> RunFolder:
        return RunFolder(self.tuning / tuning_id)

    def runs(self) -> Iterator[RunFolder]:
        """The runs that have a folder."""
        return (RunFolder(folder) for folder in sorted(self.tuning.glob(ID)))

    @property
    def starts(self) -> Path:
        """Checkpoints that runs start from: a folder for each recipe."""
        return self.tuning / "starts"

    @property
    def ray_train(self) -> Path:
        """Ray Train's own files."""
        return self.tuning / "ray"

    @property
    def tuning_table(self) -> Path:
        return self.root / "tuning.parquet"

    # ---------------------------------------------------------------- search
    @property
    def search(self) -> Path:
        return self.root / "search"

    @property
    def candidates(self) -> Path:
        """The proposals, a file each."""
        return self.search / "candidates"

    def proposals(self) -> list[Path]:
        return sorted(self.candidates.glob("*.json"))

    @property
    def confirmed(self) -> Layout:
        """The search's front on the held-out questions."""
        return Layout(self.root / "confirmed")

    # ---------------------------------------------------------------- review
    @property
    def reviews(self) -> Path:
        """For each review its key and, once read, its ratings."""
        return self.root / "reviews"
