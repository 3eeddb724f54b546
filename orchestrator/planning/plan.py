"""What a sweep would do and need, worked out without starting an engine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.nodes import living_nodes
from cluster.session import session
from orchestrator.config.sweep import SweepConfig
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_profile, tokenizer_of
from orchestrator.planning.finetune import FinetunePlan, describe_finetune, plan_finetune
from orchestrator.planning.power import PowerPlan, describe_power, plan_power
from orchestrator.planning.search import SearchPlan, describe_search, plan_search
from orchestrator.planning.serving import ServingPlan, describe_serving, plan_serving
from orchestrator.planning.shape import shaped, without_absent
from orchestrator.results.board import Board
from orchestrator.results.layout import Layout
from orchestrator.sizing.disk import disk_bytes, weight_bytes
from orchestrator.sizing.nodes import Node, assumed_nodes, describe_nodes, parse_cluster
from orchestrator.stages.open import Tasks, open_tasks, tokenizer_notes
from orchestrator.stages.open_recipes import open_recipes
from tasks.benchmarks.overlaps import Overlap, describe_overlaps
from tasks.evaluation.suites import generation_tasks, overlaps_of
from tasks.generation.metrics import check_lexical, open_encoder


@dataclass(frozen=True)
class TaskPlan:
    """One task of an objective, for one recipe."""

    objective: str
    task: str
    metrics: list[str]
    documents: int
    questions: int
    tokens: int
    """Most tokens that are read and written for one recipe."""
    truncated: int
    """Questions whose prompt is cut to fit the engine."""


@dataclass(frozen=True)
class Plan:
    """What a sweep would do and need; its fields are those of `plan --json`."""

    points: int
    """Number of recipes as the sweep file lists them, parents and candidates included."""
    recipes: list[dict[str, str]]
    """`recipe_id` and `label` of each recipe that is left after deduplication."""
    tasks: list[TaskPlan]
    overlaps: list[Overlap]
    """The questions that tasks share, or ask twice."""
    questions: int
    """Over all recipes; a question that several tasks share counts once for each recipe."""
    tokens: int
    """Most tokens that are read and written for these questions."""
    tokenizer: str
    stop_token_ids: list[int]
    profile: dict[str, object]
    parameters: int
    """Number of weights of the largest model."""
    cluster: str
    """The nodes that the plan is for, in words."""
    serving: ServingPlan
    disk_gb: float
    """Disk for the results folder: kept checkpoints, and parents with merged adapters (10^9 bytes)."""
    parents_gb: float
    """Disk on each node for the parents themselves (10^9 bytes)."""
    assumed: str | None
    """The config.json whose shape stands in for that of the parents."""
    power: list[PowerPlan]
    """Which differences its comparisons can show."""
    finetune: FinetunePlan | None
    search: SearchPlan | None
    notes: list[str]
    """What a reader of the scores must know, such as parts of a prompt that the chat template leaves out."""


def make_plan(
    config: SweepConfig,
    shape: Path | None = None,
    tokenizer: Path | None = None,
    cluster: str | None = None,
    *,
    detect: float | None = None,
    answers: Board | None = None,
) -> Plan:
    """Work out what a sweep would do and need, without starting an engine.

    Args:
        shape: a config.json that stands in for the parents' own files, together with `tokenizer`; data that
            fine-tuning would learn from and that is not on this machine is then left out.
        tokenizer: a folder with a tokenizer's files that stand in for the parents' own.
        cluster: nodes as `parse_cluster` reads them; None for the Ray cluster that RAY_ADDRESS names, or without one
            for `assumed_nodes`.
        detect: a difference of scores that comparisons are to show.
        answers: a sweep whose answers say how unlike recipes answer.

    Raises:
        UserError: `run` would refuse the sweep before it starts, or an engine does not fit.
    """
    config, absent = without_absent(config) if shape else (config, [])
    files = shaped(config, shape, tokenizer) if shape and tokenizer else resolve(config, weights=False)
    nodes = parse_cluster(cluster) if cluster else living_or_assumed(config)
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        found = open_recipes(config, files, layout)
        tasks = open_tasks(config, found.serving, layout)
        differing = list(tokenizer_notes(config, files, found.serving, tasks))
    recipes, serving, parameters = found.recipes, found.serving, found.shape.parameters
    if generation_tasks(tasks.all):
        check_lexical()
        if config.generation and not shape:
            open_encoder(config.generation.encoder, weights=False)
    dequantised = sum(found.dequantised for found in files.values())
    model_notes = [note for found in files.values() for note in found.notes]
    unique = {question.id: question for suite in tasks.suites for question in suite.questions}
    serving_plan = plan_serving(config, found.shape, nodes, unique.values(), len(recipes))
    return Plan(
        points=sum(len(recipe.points) for recipe in recipes),
        recipes=[{"recipe_id": recipe.id, "label": recipe.label} for recipe in recipes],
        tasks=[
            TaskPlan(
                suite.objective,
                suite.name,
                [metric for metric, _ in suite.metrics],
                suite.documents,
                len(suite.questions),
                sum(question.tokens for question in suite.questions),
                sum(question.truncated > 0 for question in suite.questions),
            )
            for suite in tasks.suites
        ],
        overlaps=overlaps_of([*tasks.suites, *tasks.learning]),
        questions=len(unique) * len(recipes),
        tokens=sum(question.tokens for question in unique.values()) * len(recipes),
        tokenizer=tokenizer_of(config, serving),
        stop_token_ids=list(serving.stop_token_ids),
        profile=asdict(make_profile(config)),
        parameters=parameters,
        cluster=describe_nodes(nodes)
        + ("" if cluster or "RAY_ADDRESS" in os.environ else ", assumed (--cluster names one)"),
        serving=serving_plan,
        disk_gb=disk_bytes(config, parameters, len(recipes), serving_plan.engines, dequantised=dequantised) / 1e9,
        parents_gb=len(config.parents) * weight_bytes(config, parameters) / 1e9,
        assumed=str(shape) if shape else None,
        power=plan_power(config, tasks, recipes, detect, answers),
        finetune=plan_finetune(config, tasks, parameters) if config.finetune else None,
        search=plan_search(config, found.sources, tasks, len(recipes)) if config.search else None,
        notes=[*absent, *model_notes, *serving.notes, *differing, *_notes(tasks)],
    )


def _notes(tasks: Tasks) -> list[str]:
    evaluated = [*tasks.suites, *tasks.learning]
    of_data = (note for task in generation_tasks(evaluated) for note in task.notes())
    shared = describe_overlaps(overlaps_of(evaluated))
    return list(dict.fromkeys([*(note for suite in tasks.all for note in suite.notes), *shared, *of_data]))


def describe(plan: Plan) -> str:
    """Describe a plan in lines for a terminal."""
    lines = [
        f"recipes    {len(plan.recipes)} ({plan.points} points before deduplication)",
        *(f"             {recipe['recipe_id']}  {recipe['label']}" for recipe in plan.recipes),
        "tasks      per recipe:",
    ]
    for task in plan.tasks:
        cut = f", {task.truncated} prompts truncated" if task.truncated else ""
        lines.append(
            f"             {task.objective}: {task.task} ({', '.join(task.metrics)}), {task.documents} documents, "
            f"{task.questions} questions, at most {task.tokens:,} tokens{cut}"
        )
    lines += [
        f"in all     {plan.questions:,} questions, at most {plan.tokens:,} tokens",
        "served by  " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in plan.profile.items()),
        f"           with the tokenizer of {plan.tokenizer} and the stop ids {plan.stop_token_ids}",
        f"cluster    {plan.cluster}",
        *describe_serving(plan.serving),
        f"disk       {plan.parents_gb:.2f} GB on each node for the parents; {plan.disk_gb:.2f} GB in the results "
        "folder for kept checkpoints and merged adapters",
    ]
    lines += describe_power(plan.power)
    if plan.finetune:
        lines += describe_finetune(plan.finetune)
    if plan.search:
        lines += describe_search(plan.search)
    lines += [f"note       {note}" for note in plan.notes]
    if plan.assumed:
        lines.append(f"assumed    every model has the shape of {plan.assumed}; a run's recipes have other ids")
    return "\n".join(lines)


def living_or_assumed(config: SweepConfig) -> Sequence[Node]:
    """The nodes of the Ray cluster that RAY_ADDRESS names, or assumed ones where it names none."""
    if os.environ.get("RAY_ADDRESS", "local") == "local":
        return assumed_nodes(config)
    with session():
        return living_nodes()
