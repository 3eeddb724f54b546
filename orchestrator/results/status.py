"""The progress of a sweep, from its files alone: on any machine, without an engine, parents or data.

Every block is read and checked, so the counts are what `run` would find, and damaged blocks are named.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.core.files import read_json_if_exists
from orchestrator.core.records import RecipeStatus
from orchestrator.core.store import Store
from orchestrator.core.text import duration
from orchestrator.ledger.blocks import Damaged, Stored, block_folders, look
from orchestrator.ledger.ledger import COSTS
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Point, Recipe, Source, single
from orchestrator.results.heartbeat import Driver, read_driver
from orchestrator.results.layout import Layout
from orchestrator.results.manifest import Manifest, ledger_location, read_manifest, read_questions

RECENT_S = 600.0
"""Seconds over which the rate is taken, up to the block that was stored last."""


@dataclass
class WorkerSeen:
    """What one worker has done, by the blocks that it stored."""

    name: str
    """`host:pid`."""
    seen: float
    """When its last block was stored: seconds since the epoch, by the driver's clock."""
    blocks: int = 0
    answers: int = 0


@dataclass(frozen=True)
class Status:
    """The progress of a sweep: its driver, its recipes, its workers and what they cost."""

    state: str
    """`at work`, `ended` (cleanly) or `dead`; `never started` where nothing has run."""
    driver: Driver | None
    recipes: dict[str, int]
    """`done`, `pending`, `invalid`, `failed` → number of the sweep file's recipes."""
    questions: int
    """Number of all questions of the sweep file's recipes, invalid and failed recipes left out."""
    answered: int
    """Number of these that have an answer."""
    per_second: float | None
    """Answers per second; None where no driver is at work."""
    left_s: float | None
    """Estimated seconds until the sweep file's recipes are done, at that rate."""
    workers: list[WorkerSeen]
    """The workers of the current run, or of the last."""
    worker_hours: float
    """Hours that all runs have spent on loading recipes into engines and on answering."""
    gpu_hours: float
    """The same hours, counted for each GPU of an engine; 0 where the workers have no GPU."""
    failures: list[dict[str, str]]
    """Why recipes have no score: those that are not answered, and those that were unscored in the last report."""
    search: dict[str, int] = field(default_factory=dict)
    """Status → number of the search's candidates."""
    tuned: dict[str, int] = field(default_factory=dict)
    """`finished`, `open` → number of runs of fine-tuning."""
    damaged: list[str] = field(default_factory=list)
    """Blocks that do not match their marker; `run` evaluates them again."""


def read_status(layout: Layout) -> Status:
    """Read the progress of the sweep in a results folder.

    Raises:
        UserError: the folder has no sweep, or its ledger cannot be read.
    """
    manifest, driver = read_manifest(layout), read_driver(layout)
    recipes = expand(manifest.config, manifest.sources)
    candidates, runs = _candidates(layout), _runs(layout, manifest)
    blocks, damaged = _read_blocks(layout, manifest, {*(r.id for r in recipes), *candidates, *runs})
    wanted = read_questions(layout).filter(pc.field("stage") == "sweep")["question_id"].unique()
    known: dict[str, set[str]] = {recipe.id: set() for recipe in recipes}
    for block in blocks:
        if block.recipe_id in known:
            ids = block.table["question_id"]
            known[block.recipe_id].update(ids.filter(pc.is_in(ids, value_set=wanted)).to_pylist())
    failures = _failures(layout, recipes)
    labels = {recipe.id: recipe.label for recipe in recipes}
    states = {
        key: "done" if len(found) == len(wanted) else failures.get(key, {}).get("status", "pending")
        for key, found in known.items()
    }
    counted = [key for key, state in states.items() if state in ("done", "pending")]
    answered, questions = sum(len(known[key]) for key in counted), len(counted) * len(wanted)
    state = driver.state if driver else "never started"
    rate = _rate(blocks) if state == "at work" else None
    seconds, workers = sum(getattr(block.marker, cost) for block in blocks for cost in COSTS), manifest.config.workers
    return Status(
        state=state,
        driver=driver,
        recipes={name: list(states.values()).count(name) for name in ("done", "pending", "invalid", "failed")},
        questions=questions,
        answered=answered,
        per_second=rate,
        left_s=(questions - answered) / rate if rate else None,
        workers=_workers(blocks, driver),
        worker_hours=seconds / 3600,
        gpu_hours=workers.gpu_hours(seconds) if workers.gpus else 0.0,
        failures=[
            *(failures[key] for key in failures if states[key] != "done"),
            *(each for each in _unscored(layout, labels) if states.get(each["recipe_id"], "done") == "done"),
        ],
        search=dict(Counter(candidates.values())),
        tuned=dict(Counter(runs.values())),
        damaged=damaged,
    )


def recipe_ids(layout: Layout, manifest: Manifest) -> set[str]:
    """The ids of all that a sweep evaluates: recipes of its file, candidates of its search, tuned checkpoints."""
    recipes = expand(manifest.config, manifest.sources)
    return {*(recipe.id for recipe in recipes), *_candidates(layout), *_runs(layout, manifest)}


def _candidates(layout: Layout) -> dict[str, str]:
    """Recipe id → status, of the search's candidates."""
    return {file.stem: str(read_json_if_exists(file).get("status")) for file in layout.proposals()}


def _runs(layout: Layout, manifest: Manifest) -> dict[str, str]:
    """Id of the tuned checkpoint → `finished` or `open`, for each run of fine-tuning."""
    found = {}
    for run in layout.runs():
        recipe = single(Source(run.path.name, "", ""), manifest.config.dtype, Point("tuned"))
        found[recipe.id] = "finished" if run.is_finished else "open"
    return found


def _failures(layout: Layout, recipes: list[Recipe]) -> dict[str, dict[str, str]]:
    found = {}
    for recipe in recipes:
        failure = read_json_if_exists(layout.failure(recipe.id))
        if failure:
            reason = {key: str(failure.get(key)) for key in ("status", "stage", "message")}
            found[recipe.id] = {"recipe_id": recipe.id, "label": recipe.label, **reason}
    return found


def _unscored(layout: Layout, labels: Mapping[str, str]) -> list[dict[str, str]]:
    """The recipes that are answered and have no score, by the leaderboard that was written last."""
    if not layout.leaderboard.exists():
        return []
    table = pq.read_table(layout.leaderboard)
    if "reason" not in table.column_names:  # written by an earlier version
        return []
    rows = table.filter(pc.field("status") == RecipeStatus.UNSCORED).to_pylist()
    return [
        {
            "recipe_id": row["recipe_id"],
            "label": labels.get(row["recipe_id"], row["method"]),
            "status": row["status"],
            "stage": "score",
            "message": row["reason"],
        }
        for row in rows
    ]


def _read_blocks(layout: Layout, manifest: Manifest, ids: set[str]) -> tuple[list[Stored], list[str]]:
    """Read the blocks of these recipes, and name those that are damaged."""
    store = Store(ledger_location(manifest.config, layout))
    view = (manifest.serving.id, manifest.profile.id)
    folders = [folder for folder in block_folders(store) if folder.split("/")[0] in ids]
    found = list(store.together(lambda folder: look(store, folder, view), folders))
    damaged = [str(each) for each in found if isinstance(each, Damaged)]
    return [each for each in found if isinstance(each, Stored)], damaged


def _rate(blocks: list[Stored]) -> float | None:
    """Answers per second, from the start of the first recent block to the end of the last."""
    last = max((block.marker.written for block in blocks), default=0.0)
    recent = [block.marker for block in blocks if block.marker.written > last - RECENT_S]
    first = min((marker.written - marker.swap_s - marker.answer_s for marker in recent), default=0.0)
    return sum(marker.rows for marker in recent) / (last - first) if last > first else None


def _workers(blocks: list[Stored], driver: Driver | None) -> list[WorkerSeen]:
    found: dict[str, WorkerSeen] = {}
    for block in blocks:
        marker = block.marker
        if driver is None or marker.written >= driver.started:
            worker = found.setdefault(marker.worker, WorkerSeen(marker.worker, 0.0))
            worker.seen = max(worker.seen, marker.written)
            worker.blocks += 1
            worker.answers += marker.rows
    return sorted(found.values(), key=lambda worker: worker.name)


# -------------------------------------------------------------------- for people
def describe(status: Status) -> str:
    """Describe the progress of a sweep in a few lines for a terminal."""
    now = time.time()
    share = f" ({status.answered / status.questions:.0%})" if status.questions else ""
    lines = [
        ("driver", _driver_words(status, now)),
        ("recipes", ", ".join(f"{count} {name}" for name, count in status.recipes.items() if count or name == "done")),
        ("answers", f"{status.answered} of {status.questions}{share}{_rate_words(status, now)}"),
    ]
    for worker in status.workers:
        done = f"{worker.answers} answers in {worker.blocks} blocks"
        lines.append(("worker", f"{worker.name}: last block {_ago(now - worker.seen)}, {done}"))
    gpu = f", {status.gpu_hours:.2f} GPU hours" if status.gpu_hours else ""
    lines.append(("cost", f"{status.worker_hours:.2f} worker hours{gpu}"))
    if status.search:
        lines.append(("search", ", ".join(f"{count} {name}" for name, count in sorted(status.search.items()))))
    if status.tuned:
        lines.append(("tuning", ", ".join(f"{count} {name}" for name, count in sorted(status.tuned.items()))))
    lines += [(each["status"], f"{each['recipe_id']} ({each['label']}): {each['message']}") for each in status.failures]
    lines += [("damaged", f"{each}; run evaluates it again") for each in status.damaged]
    return "\n".join(f"{name:8} {text}" for name, text in lines)


def _driver_words(status: Status, now: float) -> str:
    driver = status.driver
    if driver is None:
        return "never started"
    where = f"{driver.host}:{driver.pid}"
    if status.state == "at work":
        return f"at work on {where}, started {_ago(now - driver.started)}, last heartbeat {_ago(now - driver.seen)}"
    if status.state == "ended":
        return f"none; the last one ({where}) ended cleanly {_ago(now - driver.seen)}"
    return f"dead: the last heartbeat of {where} was {_ago(now - driver.seen)}; the same command resumes"


def _rate_words(status: Status, now: float) -> str:
    if status.per_second is None or status.left_s is None:
        return ""
    end = time.strftime("%Y-%m-%d %H:%M", time.localtime(now + status.left_s))
    return f", {status.per_second:.1f} a second, done in {duration(status.left_s)} ({end})"


def _ago(seconds: float) -> str:
    return f"{duration(max(0.0, seconds))} ago"
