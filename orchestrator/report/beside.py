"""Published figures beside a run's: which of them this run has too, how far apart they are, and what differs.

It lays Tables 1 and 2 and the points of Figures 2 to 4 of arXiv 2604.01538, or any others, beside a run's own. A
published figure is taken as it stands, as its own error is not known; the interval is that of this run's score.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from orchestrator.config.published import Examples, Published
from orchestrator.core.records import RecipeStatus
from orchestrator.report.protocol import Differing, differing, evaluated, only_here, said, trained
from orchestrator.report.words import scored
from orchestrator.results.board import Board, FinetunedRow, Row
from orchestrator.stats.scores import Score


@dataclass(frozen=True)
class Entry:
    """One published figure, and what this run has in its place."""

    place: str
    """Where it stands in the source; empty for what is evaluated without fine-tuning."""
    model: str
    """Its model there."""
    measure: str
    """Its objective or task there."""
    examples: Examples
    """Number of training examples there."""
    value: float
    row: Row | None = None
    """This run's recipe, or that of its starting point; None where it has neither."""
    start: str = ""
    """The label of this run's starting point; empty where the recipe is none."""
    objective: str = ""
    """This run's objective or task; empty where it has none."""
    scores: tuple[Score, ...] = ()
    """This run's scores, one for each seed; empty where it has none."""
    size: int | None = None
    """Number of training examples of this run's scores; None where nothing is trained."""
    differs: tuple[Differing, ...] = ()


@dataclass(frozen=True)
class Beside:
    """Published figures, matched with a board."""

    board: Board
    published: Published

    @cached_property
    def rows(self) -> list[Entry]:
        """The figures without fine-tuning, in the file's order."""
        figures = self.published.rows.items()
        entries = (Entry("", model, measure, 0, value) for model, row in figures for measure, value in row.items())
        return [self._evaluated(entry) for entry in entries]

    @cached_property
    def finetuned(self) -> list[Entry]:
        """The figures of fine-tuning, in the file's order."""
        return [
            self._finetuned(Entry(place, model, task, examples, value))
            for place, models in self.published.finetuned.items()
            for model, tasks in models.items()
            for task, curve in tasks.items()
            for examples, value in curve.items()
        ]

    def of_objective(self, objective: str) -> dict[str, Entry]:
        """The figures in one of this run's objectives by their model there, without fine-tuning."""
        return {entry.model: entry for entry in self.rows if entry.objective == objective}

    @property
    def unmatched(self) -> list[str]:
        """The models, objectives and tasks of the file that this run does not have, each once."""
        entries = [*self.rows, *self.finetuned]
        models = [entry.model for entry in entries if entry.row is None]
        measures = [entry.measure for entry in entries if not entry.objective]
        names = ((there, self._name(there)) for there in dict.fromkeys([*models, *measures]))
        return [there if there == here else f"{there} (here: {here})" for there, here in names]

    def _name(self, there: str) -> str:
        return self.published.names.get(there, there)

    def _model(self, entry: Entry) -> Entry:
        """Find this run's recipe or starting point: by its name, or as the only start merged by this method."""
        name, results = self._name(entry.model), self.board.finetuning
        starts = results.starts if results else ()
        named = [(start, row) for start, row in starts if name in (start.label, *start.recipe.names)]
        row = next((row for row in scored(self.board) if name in row.recipe.names), None)
        if not named and row is None:
            named = [(start, row) for start, row in starts if row.method == name and not start.recipe.is_copy]
        if len(named) == 1:
            start, row = named[0]
            return replace(entry, row=row, start=start.label)
        return replace(entry, row=row)

    def _evaluated(self, entry: Entry) -> Entry:
        entry, name, board = self._model(entry), self._name(entry.measure), self.board
        if name not in board.objectives:
            return entry
        entry, objective = replace(entry, objective=name), board.objectives[name]
        if entry.row is None or name not in entry.row.scores:
            return entry
        here = evaluated(board, objective, [task for task in board.tasks if task.objective == name])
        differs = (*differing(said(self.published.evaluation, entry.measure), here), *only_here(objective))
        return replace(entry, scores=(entry.row.scores[name],), differs=differs)

    def _finetuned(self, entry: Entry) -> Entry:
        entry, task, board = self._model(entry), self._name(entry.measure), self.board
        finetune, results = board.config.finetune, board.finetuning
        if finetune is None or results is None or task not in finetune.tasks:
            return entry
        entry, here = replace(entry, objective=task), {}
        if entry.examples == 0:
            scores = tuple(score for name, score in (entry.row.scores if entry.row else {}).items() if name == task)
        else:
            runs = self._runs(entry)
            scores = tuple(run.row.scores[task] for run in runs)
            if runs:
                entry = replace(entry, size=runs[0].tuning.examples)
                here = trained(board, finetune, runs)
        if not scores:
            return entry
        tasks = [summary for summary in results.tasks if summary.objective == task]
        here |= evaluated(board, finetune.tasks[task], tasks)
        there = said(self.published.training, entry.measure, entry.examples)
        return replace(entry, scores=scores, differs=(*differing(there, here), *only_here(finetune.tasks[task])))

    def _runs(self, entry: Entry) -> list[FinetunedRow]:
        """This run's scored runs for a figure, one for each seed."""
        finetune, results, method = self.board.config.finetune, self.board.finetuning, self.published.training.method
        assert finetune is not None and results is not None, "the caller checks"
        wanted = (entry.objective, entry.start, str(entry.examples), method or "full")
        if wanted[-1] not in finetune.method:
            wanted = (*wanted[:-1], finetune.method[0])
        of = ((run.tuning, run) for run in results.runs if run.row.status == RecipeStatus.SCORED)
        return [run for tuning, run in of if (tuning.task, tuning.start_label, tuning.budget, tuning.method) == wanted]
