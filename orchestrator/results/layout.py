"""Every path below a results folder, each defined once.

The folder of a fine-tuning run (DIR/tuning/<id>) is read and written by the training processes too, so its files are
defined in `orchestrator.recipes.tuning.RunFolder`. Those of a ledger are defined in `orchestrator.ledger.blocks`.
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
        root: DIR, or DIR/confirmed, which has the same leaderboard and report files.
    """

    root: Path

    # ---------------------------------------------------------------- the sweep and its driver
    @property
    def manifest(self) -> Path:
        """The resolved sweep: config, parents, serving, profile and digests of the questions."""
        return self.root / "sweep.json"

    @property
    def questions(self) -> Path:
        """The questions that recipes are evaluated on, and what each is for."""
        return self.root / "questions.parquet"

    @property
    def lock(self) -> Path:
        """The file that the driver locks, so that there is one driver at a time."""
        return self.root / ".lock"

    @property
    def driver(self) -> Path:
        """The heartbeat of the driver."""
        return self.root / "driver.json"

    @property
    def engine_error(self) -> Path:
        """The output of vLLM when no engine could be started."""
        return self.root / "engine-error.txt"

    # ---------------------------------------------------------------- answers and what they are made with
    @property
    def answers(self) -> Path:
        """The ledger, unless the sweep file names another."""
        return self.root / "answers"

    @property
    def serving(self) -> Path:
        """A folder of tokenizer files for each tokenizer."""
        return self.root / "serving"

    @property
    def metrics(self) -> Path:
        """Metrics of generated texts, as they were measured."""
        return self.root / "metrics"

    @property
    def cache(self) -> Path:
        """The cache of datasets for the user's own task files."""
        return self.root / "cache"

    @property
    def ray(self) -> Path:
        """Where a local Ray spills objects that do not fit into memory."""
        return self.root / "ray"

    @property
    def checkpoints(self) -> Path:
        """Merged checkpoints, where they are kept."""
        return self.root / "checkpoints"

    @property
    def scratch(self) -> Path:
        """Temporary files of the engines."""
        return self.checkpoints / "scratch"

    @property
    def slerp(self) -> Path:
        """How much SLERP differs from linear interpolation, for each pair of parents."""
        return self.root / "slerp.json"

    def failure(self, recipe_id: str) -> Path:
        """Why a recipe has no score."""
        return self.root / "failures" / f"{recipe_id}.json"

    def failures(self) -> list[Path]:
        """The files of all recipes that have no score for a reason."""
        return sorted((self.root / "failures").glob("*.json"))

    # ---------------------------------------------------------------- results
    @property
    def leaderboard(self) -> Path:
        """A row for each recipe: status, scores, costs."""
        return self.root / "leaderboard.parquet"

    @property
    def front(self) -> Path:
        """The recipes on the front and the ids of those near it."""
        return self.root / "front.json"

    @property
    def recipes(self) -> Path:
        """A folder with each recipe as mergekit YAML."""
        return self.root / "recipes"

    def recipe(self, recipe_id: str) -> Path:
        """A recipe as mergekit YAML."""
        return self.recipes / f"{recipe_id}.yaml"

    @property
    def report_html(self) -> Path:
        """The report as a self-contained web page."""
        return self.root / "report.html"

    @property
    def report_md(self) -> Path:
        """The report as Markdown."""
        return self.root / "report.md"

    @property
    def figures(self) -> Path:
        """A folder with the report's figures as PNG and SVG."""
        return self.root / "figures"

    # ---------------------------------------------------------------- fine-tuning
    @property
    def tuning(self) -> Path:
        """A folder for each run of fine-tuning."""
        return self.root / "tuning"

    def run(self, tuning_id: str) -> RunFolder:
        """The folder of one run of fine-tuning."""
        return RunFolder(self.tuning / tuning_id)

    def runs(self) -> Iterator[RunFolder]:
        """All runs of fine-tuning that have a folder."""
        return (RunFolder(folder) for folder in sorted(self.tuning.glob(ID)))

    @property
    def starts(self) -> Path:
        """Merged checkpoints that fine-tuning starts from, in a folder for each recipe."""
        return self.tuning / "starts"

    @property
    def ray_train(self) -> Path:
        """Ray Train's own files."""
        return self.tuning / "ray"

    @property
    def tuning_table(self) -> Path:
        """A row for each run of fine-tuning, with its scores."""
        return self.root / "tuning.parquet"

    # ---------------------------------------------------------------- search
    @property
    def search(self) -> Path:
        """The folder of the search: its candidates, the study, and Ray Tune's files."""
        return self.root / "search"

    @property
    def candidates(self) -> Path:
        """The search's proposals, in a file for each."""
        return self.search / "candidates"

    def proposals(self) -> list[Path]:
        """The files of all proposals; none where no search has begun."""
        return sorted(self.candidates.glob("*.json"))

    @property
    def study(self) -> Path:
        """The search as an Optuna study, in Optuna's journal storage."""
        return self.search / "study.log"

    @property
    def ray_tune(self) -> Path:
        """Ray Tune's own files."""
        return self.search / "tune"

    @property
    def confirmed(self) -> Layout:
        """The leaderboard and report of the search's front on the held-out questions."""
        return Layout(self.root / "confirmed")

    # ---------------------------------------------------------------- review
    @property
    def reviews(self) -> Path:
        """A folder for each review, with its key and, once the sheets are read, its ratings."""
        return self.root / "reviews"

    def review(self, review_id: str) -> ReviewFolder:
        """The folder of one review."""
        return ReviewFolder(self.reviews / review_id)

    def all_reviews(self) -> Iterator[ReviewFolder]:
        """All reviews whose key is there."""
        return (ReviewFolder(key.parent) for key in sorted(self.reviews.glob("*/key.json")))


@dataclass(frozen=True)
class ReviewFolder:
    """The files of one review, in DIR/reviews/<review id>."""

    path: Path

    @property
    def key(self) -> Path:
        """Which recipe generated which item, as JSON."""
        return self.path / "key.json"

    @property
    def ratings(self) -> Path:
        """The ratings, as JSON, once the sheets are read."""
        return self.path / "ratings.json"
