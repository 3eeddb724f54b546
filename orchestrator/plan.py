"""What a sweep would do and need, worked out without starting an engine."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator import estimate
from orchestrator.config import SweepConfig, UserError
from orchestrator.parents import resolve
from orchestrator.placement import Parents, weight_bytes
from orchestrator.plan_search import SearchPlan, describe_search, plan_search
from orchestrator.plan_tuning import TuningPlan, describe_tuning, plan_tuning
from orchestrator.recipe import expand
from orchestrator.serving import make_profile, make_serving
from orchestrator.shape import shaped


@dataclass(frozen=True)
class TaskPlan:
    objective: str
    task: str
    metrics: list[str]
    documents: int
    questions: int
    tokens: int
    """Read, or at most written, for one recipe."""
    truncated: int


@dataclass(frozen=True)
class Plan:
    points: int
    """Recipes as the sweep file lists them, parents and candidates included."""
    recipes: list[dict[str, str]]
    """What is left after deduplication: id and label."""
    tasks: list[TaskPlan]
    questions: int
    """Over all recipes, each asked once."""
    tokens: int
    tokenizer: str
    stop_token_ids: list[int]
    profile: dict[str, object]
    parameters: int
    weights_gb: float
    """Weights in one engine (10^9 bytes); its KV cache comes on top."""
    kv_cache_gb: float | None
    """Per CPU worker; None on GPUs, where vLLM takes what gpu_memory_utilization leaves."""
    parents: str
    """How large they are, and where the workers keep them."""
    disk_gb: float
    """Kept checkpoints, and parents with merged adapters."""
    workers: int
    answer_s: float | None
    """Seconds for all answers, at most and roughly; None where nothing is known of the workers' speed."""
    assumed: str | None
    """The config.json whose shape stands in for that of the parents."""
    finetune: TuningPlan | None
    search: SearchPlan | None


def make_plan(config: SweepConfig, shape: Path | None = None, tokenizer: Path | None = None) -> Plan:
    """
    Args:
        shape, tokenizer: a config.json and a tokenizer's folder to take in place of the parents' own files.

    Raises:
        UserError: whatever `run` would refuse before it starts.
    """
    from tasks.metrics import open_encoder
    from tasks.suites import keep_private, load_suites, open_lm

    files = shaped(config, shape, tokenizer) if shape and tokenizer else resolve(config, weights=False)
    sources = {name: found.source for name, found in files.items()}
    recipes = expand(config, sources)
    parameters = max(found.parameters for found in files.values())
    check_disk(config, parameters, len(recipes))
    with tempfile.TemporaryDirectory() as folder:
        serving = make_serving(config, files, Path(folder) / "serving")
        lm = open_lm(config, serving)
        keep_private(config, Path(folder))
        suites = load_suites(config, lm)
        own = config.model_copy(update={"objectives": config.finetune.tasks if config.finetune else {}})
        tasks = load_suites(own, lm)
    if config.generation and not shape:
        open_encoder(config.generation.encoder, weights=False)
    unique = {question.id: question for suite in suites for question in suite.questions}
    answer_s = estimate.seconds(config, unique.values(), parameters, worker_count(config))
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
            for suite in suites
        ],
        questions=len(unique) * len(recipes),
        tokens=sum(question.tokens for question in unique.values()) * len(recipes),
        tokenizer=serving.parent,
        stop_token_ids=list(serving.stop_token_ids),
        profile=asdict(make_profile(config)),
        parameters=parameters,
        weights_gb=weight_bytes(config, parameters) / 1e9,
        kv_cache_gb=None if config.workers.gpus else config.workers.engine.kv_cache_gib * 1.073741824,
        parents=Parents(len(config.parents), weight_bytes(config, parameters), config.workers.engine).describe(
            config.workers.gpus
        ),
        disk_gb=disk_bytes(config, parameters, len(recipes)) / 1e9,
        workers=worker_count(config),
        answer_s=answer_s and answer_s * len(recipes),
        assumed=str(shape) if shape else None,
        finetune=plan_tuning(config, tasks, lm, parameters) if config.finetune else None,
        search=plan_search(config, sources, [*suites, *tasks], lm, len(recipes)) if config.search else None,
    )


def describe(plan: Plan) -> str:
    """For people."""
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
    memory = f"{plan.weights_gb:.2f} GB of weights"
    memory += f" + {plan.kv_cache_gb:.1f} GB KV cache" if plan.kv_cache_gb else " + KV cache"
    lines += [
        f"in all     {plan.questions:,} questions, at most {plan.tokens:,} tokens",
        f"time       {_time(plan)}",
        f"served by  {plan.workers} workers: " + ", ".join(str(value) for value in plan.profile.values()),
        f"           with {plan.tokenizer}'s tokenizer and the stop ids {plan.stop_token_ids}",
        f"memory     {memory} per worker",
        f"parents    {plan.parents}",
        f"disk       {plan.disk_gb:.2f} GB for kept checkpoints and merged adapters",
    ]
    if plan.finetune:
        lines += describe_tuning(plan.finetune)
    if plan.search:
        lines += describe_search(plan.search)
    if plan.assumed:
        lines.append(f"assumed    every model has the shape of {plan.assumed}; a run's recipes have other ids")
    return "\n".join(lines)


def _time(plan: Plan) -> str:
    if plan.answer_s is None:
        known = ", ".join(estimate.ACCELERATORS)
        return f"no estimate: only for bfloat16 or float16 on a workers.accelerator_type that is known here ({known})"
    length = f"{plan.answer_s / 60:.0f} min" if plan.answer_s < 7200 else f"{plan.answer_s / 3600:.1f} h"
    return f"roughly {length} of answering, if every text is as long as it may be ({plan.profile['device']})"


# -------------------------------------------------------------------- sizes
def check_disk(config: SweepConfig, parameters: int, recipes: int) -> None:
    """Refuse a sweep whose checkpoints would need more than `checkpoints.disk_gb`."""
    need = disk_bytes(config, parameters, recipes)
    limit = config.checkpoints.disk_gb
    if limit is not None and need > limit * 1e9:
        kept = f"{recipes} kept checkpoints" if config.checkpoints.keep else "the parents with merged adapters"
        raise UserError(
            f"checkpoints.disk_gb: {kept} need {need / 1e9:.1f} GB, but the budget is {limit} GB; raise it"
            + (", or set checkpoints.keep to false" if config.checkpoints.keep else "")
        )


def disk_bytes(config: SweepConfig, parameters: int, recipes: int) -> int:
    """The merged checkpoints, where they are kept, and each worker's copies of the parents with merged adapters."""
    merged = recipes if config.checkpoints.keep else 0
    adapted = sum(parent.lora is not None for parent in config.parents.values()) * worker_count(config)
    return weight_bytes(config, parameters) * (merged + adapted)


def worker_count(config: SweepConfig) -> int:
    """As the sweep says, else one per share of this machine's cores; with GPUs, which only Ray can count, one."""
    workers = config.workers
    return workers.count or (1 if workers.gpus else max(1, int((os.cpu_count() or 1) // workers.cpus)))
