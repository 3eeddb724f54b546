"""The report's wording: names of recipes, numbers, and the sentences that introduce the tables.

Everything here is plain text without markup, so that the page in HTML, the page in Markdown and the terminal show the
same; each escapes it in its own way. No question and no answer is read here: the board has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from orchestrator.config.backends import BACKENDS
from orchestrator.config.generation import COMPOSITE, OPTED_OUT, Encoder
from orchestrator.core.records import Drafted, RecipeStatus
from orchestrator.core.text import count, duration, listed
from orchestrator.ledger.ledger import COSTS
from orchestrator.recipes.recipe import Point, Source
from orchestrator.results.board import Board, Row, TaskSummary
from orchestrator.stats.scores import Score

STATUSES = (
    RecipeStatus.SCORED,
    RecipeStatus.DEFERRED,
    RecipeStatus.STOPPED_EARLY,
    RecipeStatus.UNSCORED,
    RecipeStatus.INVALID,
    RecipeStatus.FAILED,
    RecipeStatus.PENDING,
)
"""In the order in which tables sort their rows and sentences count them."""
AS_IT_IS = ("parent", "candidate")
"""Methods of recipes that are one model, unmerged."""


def number(value: float) -> str:
    """Format a score: three decimals, from 100 on five significant digits."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.5g}"


def signed(value: float) -> str:
    """Format a difference as `number` does, with a plus where it is positive."""
    return ("+" if value > 0 else "") + number(value)


def span(low: float, high: float) -> str:
    """Format an interval of a difference: `-0.010 to +0.024`, or `not known` where its ends are NaN."""
    return "not known" if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def detectable_text(difference: float) -> str:
    """Format a detectable difference: `0.021`, or `not known` where it is NaN."""
    return "not known" if math.isnan(difference) else number(difference)


def score_text(score: Score) -> str:
    """Format a score and its standard error: `0.512 ± 0.014`, or `± not known`."""
    return f"{number(score.value)} ± {'not known' if score.se is None else number(score.se)}"


def point_title(point: Point) -> str:
    """Title a point by its label, such as `linear alpha=0.4`; an unmerged model as `clinical (parent)`."""
    name = dict(point.parameters).get("name")
    return f"{name} ({point.method})" if point.method in AS_IT_IS else point.label


def title(row: Row) -> str:
    """Title a recipe by its first point."""
    return point_title(row.recipe.points[0])


def full_title(row: Row) -> str:
    """Title a recipe by all points of the grid that have these weights, with = between them."""
    return " = ".join(point_title(point) for point in row.recipe.points)


def why(row: Row) -> str:
    """Why a recipe has no score, in brackets after a space; empty where no reason is known."""
    return f" ({row.failure.message})" if row.failure else ""


def parent_name(row: Row) -> str | None:
    """The name of the parent that a recipe is, or the names of several with the same weights; None for a merge."""
    names = [str(dict(p.parameters)["name"]) for p in row.recipe.points if p.method == "parent"]
    return ", ".join(names) or None


def reference(source: Source) -> str:
    """Name a model in mergekit's notation; of a local folder only the last part, as its path may be private."""
    shown = [
        PurePath(part).name if PurePath(part).is_absolute() else part for part in (source.model, source.lora or "")
    ]
    revision = f"@{source.revision}" if source.revision else ""
    return shown[0] + revision + (f"+{shown[1]}" if shown[1] else "")


def scored(board: Board) -> list[Row]:
    """The rows that have scores."""
    return [row for row in board.rows if row.status == RecipeStatus.SCORED]


def ranked(board: Board, rows: Iterable[Row]) -> list[Row]:
    """Sort rows by the first objective, best first, and those without scores last."""
    first = board.axes[0]
    sign = board.objectives[first].sign

    def key(row: Row) -> tuple[int, float]:
        value = -sign * row.scores[first].value if row.status == RecipeStatus.SCORED else 0.0
        return STATUSES.index(row.status), value

    return sorted(rows, key=key)


def summary(board: Board) -> str:
    """Summarise the sweep in one paragraph."""
    counts = {status: sum(row.status == status for row in board.rows) for status in STATUSES}
    states = listed(f"{n} {status}" for status, n in counts.items() if n)
    methods = list(dict.fromkeys(row.method for row in board.rows if row.method not in AS_IT_IS))
    by = f" with {listed(methods)}" if methods else ""
    recipes = count(len(board.rows), "recipe")
    text = f"This sweep merges {listed(board.config.parents)}{by}: {recipes}, {states}. "
    rows = scored(board)
    if not rows:
        return text + "Nothing is scored yet, so there is no front."
    front = ranked(board, board.front)
    members = f"{count(len(front), 'recipe')}: {listed(map(title, front))}"
    text += f"The front of {listed(board.axes)} has {members}. "
    text += f"{may_be_words(board)} "
    text += " ".join(_best(board, rows, name) for name in board.objectives)
    return text + (" The front may still change: some recipes are pending." if counts[RecipeStatus.PENDING] else "")


def may_be_words(board: Board) -> str:
    """Say how many recipes the confidence set of the front has: those on it, and those near it."""
    on, near = len(board.front), sum(row.near_front for row in board.rows)
    if not near:
        return "With 95 % confidence no other scored recipe is on the front that all such questions would show."
    return (
        f"{count(near, 'more recipe')} {'is' if near == 1 else 'are'} near it: with 95 % confidence, the front that "
        f"all such questions would show is among these {on + near} of {count(len(scored(board)), 'scored recipe')}."
    )


def _best(board: Board, rows: Sequence[Row], objective: str) -> str:
    sign = board.objectives[objective].sign
    best = max(sign * row.scores[objective].value for row in rows)
    ties = [row for row in rows if sign * row.scores[objective].value == best]
    beyond = "" if board.objectives[objective].front else ", which is no axis of the front"
    return f"Best in {objective}{beyond}: {listed(map(title, ties))} ({score_text(ties[0].scores[objective])})."


def warnings(board: Board) -> list[str]:
    """What a reader must know before any number: that the backend measures nothing, and notes of serving and board."""
    backend = BACKENDS[board.config.workers.backend]
    return [*([backend.warning] if backend.warning else []), *board.serving.notes, *board.notes]


def unmeasured(board: Board) -> str | None:
    """The name of a backend that measures nothing, for marks on figures and pages; None for any other."""
    warning = BACKENDS[board.config.workers.backend].warning
    return warning.split(":")[0] if warning else None


def slerp_words(pair: str, share: dict[str, float]) -> str:
    """Describe how much SLERP differs from linear interpolation between two parents.

    Args:
        pair: `first/second`.
        share: `tensors`, `curved`, `lowest_cosine`, as in `Board.slerp`.
    """
    first, second = pair.split("/", 1)
    tensors, curved = int(share["tensors"]), share["curved"]
    lowest = f"the lowest cosine is {share['lowest_cosine']:.5f}"
    if curved == 0:
        return (
            f"Between {first} and {second} every one of the {tensors} tensors points the same way "
            f"(|cos| > 0.9995; {lowest}), and there mergekit's SLERP interpolates linearly. SLERP is linear here: "
            "where its recipes differ from Linear's of the same ratio, rounding is the cause."
        )
    return (
        f"Between {first} and {second} SLERP follows the arc in {100 * curved:.1f} % of the {tensors} "
        f"tensors (|cos| <= 0.9995; {lowest}); in the others it is linear."
    )


def heading(board: Board, objective: str) -> str:
    """Head a column of an objective's scores: its name, and what the composite takes if it is one of its metrics."""
    tasks = [task for task in board.tasks if task.objective == objective]
    chosen = {each for task in tasks for metric in task.metrics if (each := composite_words(task, metric))}
    return f"{objective} (composite with {listed(sorted(chosen))})" if chosen else objective


def metric_words(board: Board, metric: str | list[str] | None) -> str:
    """Name what an objective's `metric` says, with what the composite takes if it is one."""
    names = [metric] if isinstance(metric, str) else metric or []
    takes = board.config.generation.metrics.words if board.config.generation else ""
    return (
        listed(f"{name} (with {takes})" if takes and name in (COMPOSITE, OPTED_OUT) else name for name in names)
        or "the task's first metric"
    )


def composite_words(task: TaskSummary, metric: str) -> str:
    """What a composite takes, such as `corpus BLEU, ROUGE-L, no stemming`; empty for any other metric."""
    return task.composite if metric in (COMPOSITE, OPTED_OUT) else ""


def average_words(board: Board, objective: str) -> str:
    """Describe how an objective's tasks become one number."""
    settings = board.objectives[objective]
    tasks = [task for task in board.tasks if task.objective == objective]
    over = {
        "tasks": f"the unweighted mean over {count(len(tasks), 'task')}",
        "groups": f"the mean over {count(len(tasks), 'task')}, a group counting as one: {_weights(tasks)}",
        "questions": f"the mean over {count(len(tasks), 'task')}, every question counting the same",
    }[settings.average]
    better = "more is better" if settings.sign > 0 else "less is better"
    axis = "" if settings.front else "; it is measured, but is no axis of the front"
    metrics = listed(dict.fromkeys(" and ".join(task.metrics) for task in tasks)) if tasks else "no task"
    mean = "; a task's value is the mean of its metrics" if any(len(task.metrics) > 1 for task in tasks) else ""
    sentence = (
        f"{heading(board, objective)} is {over} (average: {settings.average}) of {metrics}{mean}; {better}{axis}."
    )
    return sentence + side_words(board, objective)


def _weights(tasks: Sequence[TaskSummary]) -> str:
    """The weights of tasks, such as `20.0 % medmcqa and medqa_4options, 3.3 % mmlu_anatomy and mmlu_virology`."""
    shares = dict.fromkeys(task.share for task in tasks)
    return ", ".join(
        f"{100 * share:.1f} % {listed(task.task for task in tasks if task.share == share)}" for share in shares
    )


def side_words(board: Board, objective: str) -> str:
    """Name the side (to search on, or to confirm with) of an objective's questions; empty where it uses all of them."""
    side = board.objectives[objective].split
    if side is None:
        return ""
    splits = listed(dict.fromkeys(task.split for task in board.tasks if task.objective == objective))
    return f" Its numbers are from the questions to {side} {'on' if side == 'search' else 'with'} ({splits})."


def encoder_words(encoder: Encoder) -> str:
    """Name the model and layer that BERTScore uses."""
    source = Source("", "encoder", encoder.model, encoder.revision)
    return f"BERTScore compares the embeddings of the tokens from layer {encoder.layer} of {reference(source)}."


def time_words(board: Board) -> str:
    """Describe how long the workers took, and for what."""
    sums = {key: sum(row.costs.get(key, 0.0) for row in board.rows) for key in COSTS}
    total = sum(sums.values())
    if not total:
        return "No time was spent: nothing has been evaluated yet."
    swap, answer = (duration(sums[key]) for key in COSTS)
    return (
        f"All workers together spent {duration(total)}: {swap} loading recipes into the engines, {answer} answering "
        f"questions. {100 * sums['answer_s'] / total:.0f} % of the time went to answering questions."
        f"{_draft_words([spent.drafted for row in board.rows for spent in row.spent if spent.drafted])}"
    )


def _draft_words(drafted: Sequence[Drafted]) -> str:
    """Say what speculative decoding did, after a space; nothing where there was none."""
    steps = sum(each.steps for each in drafted)
    if not steps:
        return ""
    above = [each.off_above for each in drafted if each.off_above is not None]
    off = f", except in batches of more than {min(above)}, which are faster without" if above else ""
    return (
        " Texts were written with speculative decoding, with drafts from the parents' answers: "
        f"{sum(each.tokens for each in drafted) / steps:.1f} tokens a step{off}."
    )


def reading(board: Board) -> list[str]:
    """Explain how to read the report: what ± means, and what the front and near the front are."""
    lines = [
        "A value after ± is one standard error: how far the score would typically move if the questions were "
        "drawn anew from the same source, and of fine-tuning over several seeds, if these were too. It says nothing "
        "about other kinds of questions, and of one training nothing about its randomness.",
        "A recipe is on the front when no other scored recipe is at least as good in every objective and better "
        f"in one. The front's objectives here: {listed(board.axes)}.",
        "A recipe is near the front when it is off it, but may be on it: no recipe beats it in every objective "
        "beyond doubt. With 95 % confidence, every recipe of the front that all questions of this kind would show "
        "is on the front here or near it.",
        "Differences are paired: both recipes answered the same questions, and what makes a question hard for both "
        "cancels out; so their intervals are narrower than the ± of the tables suggest. Intervals hold at once: "
        "with 95 % confidence, each contains its true difference. A difference beyond doubt is one whose interval "
        "leaves out 0, among those of all pairs of recipes in all objectives.",
        "Not known: one document, or answers that are all right or all wrong, show no standard error. An interval "
        "then counts on two more documents, as far apart as the metric reaches.",
        "A front of many recipes flatters its members: the best of several noisy scores is too good on average. "
        "Confirm a choice on other questions before you rely on it.",
    ]
    merged = [point for row in board.rows for point in row.recipe.points if point.method not in AS_IT_IS]
    models = sum(len(row.recipe.points) for row in board.rows) - len(merged)
    if len(merged) + models > len(board.rows):
        lines.append(
            f"The {count(len(merged), 'merge')} and the {count(models, 'unmerged model')} are {len(board.rows)} "
            "recipes: those with the same weights are evaluated once, and are shown with = between their names."
        )
    return lines
