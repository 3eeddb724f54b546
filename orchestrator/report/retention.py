"""What a merge or a fine-tuned checkpoint keeps of the best parent's score, as a share with an interval.

"It keeps 98 % of the instruct parent's IFEval" is a claim of arXiv 2604.01538 that needs an interval and a margin: a
recipe is said to retain an objective where the whole interval of its share is at or above `retention` (a test of
non-inferiority), and to lose it where the whole interval is below.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.config.finetune import METHOD_NAMES, Method
from orchestrator.core.records import RecipeStatus
from orchestrator.report.learning import ONE_SEED
from orchestrator.report.tables import NONE, Table
from orchestrator.report.words import parent_name, ranked, scored, title
from orchestrator.results.board import Board, FinetuneResults, Row
from orchestrator.stats.scores import Score
from orchestrator.stats.seeds import Ratio, SeedMean, ratio


@dataclass(frozen=True)
class Kept:
    """What one recipe, or the runs of several seeds, keep of the best parent's score in one objective."""

    objective: str
    parent: str
    own: SeedMean
    base: SeedMean
    minimise: bool

    def share(self, family: int) -> Ratio | None:
        """The share that is kept; where less is better, the parent's score over the own one.

        Args:
            family: number of statements that hold together.
        """
        return ratio(self.base, self.own, family) if self.minimise else ratio(self.own, self.base, family)


def merges_table(board: Board) -> Table:
    """List what the front's merges keep of the best parent in each objective.

    The front was chosen among all merges, so that the statements hold together for all of them.
    """
    merges = [row for row in ranked(board, scored(board)) if not parent_name(row)]
    family = len(merges) * len(board.objectives)
    cells = []
    for row in (row for row in merges if row.on_front):
        for kept in _kept(board, {name: [score] for name, score in row.scores.items()}):
            cells.append((title(row), *_cells(board, kept, family)))
    return Table.of(("recipe", *HEAD), cells, words=4)


HEAD = ("objective", "parent", "verdict", "share", "95 % interval")


def tuned_table(board: Board, results: FinetuneResults) -> Table:
    """List what fine-tuned checkpoints keep of the best parent in each objective, as means over seeds."""
    groups: dict[tuple[str, str, Method, int], dict[int, Row]] = defaultdict(dict)
    for run in results.runs:
        if run.row.status == RecipeStatus.SCORED:
            tuning = run.tuning
            groups[tuning.task, tuning.start_label, tuning.method, tuning.examples][tuning.seed] = run.row
    family = len(groups) * len(board.objectives)
    cells = []
    for (task, start, method, size), rows in sorted(groups.items()):
        scores = {name: [rows[seed].scores[name] for seed in sorted(rows)] for name in board.objectives}
        for kept in _kept(board, scores):
            cells.append((task, start, METHOD_NAMES[method], str(size), *_cells(board, kept, family, trained=True)))
    return Table.of(("task", "starting point", "method", "examples", *HEAD), cells, words=7)


def _kept(board: Board, scores: Mapping[str, Sequence[Score]]) -> Iterator[Kept]:
    """Yield each objective beside the parent that is best in it."""
    parents = [row for row in scored(board) if parent_name(row)]
    for name, objective in board.objectives.items():
        if parents:
            best = max(parents, key=lambda row: objective.sign * row.scores[name].value)
            base = SeedMean.of([best.scores[name]])
            yield Kept(name, parent_name(best) or "", SeedMean.of(scores[name]), base, objective.sign < 0)


def _cells(board: Board, kept: Kept, family: int, trained: bool = False) -> tuple[str, ...]:
    share = kept.share(family)
    if share is None:
        return kept.objective, kept.parent, "", NONE, "not known"
    if trained and kept.own.seeds < 2:
        return kept.objective, kept.parent, "", percent(share.value), ONE_SEED
    margin = board.config.retention
    verdict = "retained" if share.low >= margin else "lost" if share.high < margin else ""
    high = "no end" if math.isinf(share.high) else percent(share.high)
    return kept.objective, kept.parent, verdict, percent(share.value), f"{percent(share.low)} to {high}"


def percent(share: float) -> str:
    """Format a share: `98.3 %`."""
    return f"{100 * share:.1f} %"


def words(board: Board) -> str:
    """Describe what is said to be retained."""
    return (
        "A recipe's score as a share of the best parent's in that objective (of one that is to be low, the parent's as "
        "a share of the recipe's), paired by document, with Fieller's interval. All intervals of the table hold "
        f"together at 95 %. Retained: the whole interval is at or above {percent(board.config.retention)}, the margin "
        f"of the sweep's key retention; lost: it is below. No verdict: these questions do not settle it."
    )
