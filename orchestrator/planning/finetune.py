"""What fine-tuning would do and need."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.config.finetune import METHOD_NAMES, Finetune
from orchestrator.config.sweep import SweepConfig
from orchestrator.sizing.disk import weight_bytes
from orchestrator.sizing.finetune_memory import need
from orchestrator.stages.open import Tasks


@dataclass(frozen=True)
class FinetunePlan:
    """The runs of fine-tuning, their steps, memory and disk."""

    starts: list[str]
    """Starting points as the sweep file names them; a rule may choose several."""
    runs: int
    """Number of runs; a rule with `per` counts as one start for each merge method, and may choose fewer."""
    steps: int
    """Optimiser steps of all runs together."""
    tasks: dict[str, int]
    """Task → number of its labelled examples."""
    memory: dict[str, str]
    """Method → the arithmetic of its memory, in words."""
    general: int | None
    """Number of general instructions of the methods `icft` and `lora_replay`; None without them."""
    truncated: list[str]
    """What is cut from the examples to fit `max_length`, in sentences."""
    known: list[str]
    """Which examples contain a question that the sweep is evaluated on, in sentences."""
    skipped: list[str]
    """The budgets that are left out because a task has fewer training examples, in sentences."""
    gpus: int
    """GPUs of one run; 0 on the CPU."""
    disk_gb: float
    """Tuned weights that are kept, and the checkpoints of one run (10^9 bytes)."""


def plan_finetune(config: SweepConfig, tasks: Tasks, parameters: int) -> FinetunePlan:
    """Work out the runs of fine-tuning.

    Args:
        parameters: number of weights of one model.
    """
    finetune = config.finetune
    assert finetune is not None, "the caller checks"
    gpus = finetune.gpus_of_a_run(config.workers.gpus)
    available = tasks.training.available
    methods = len({grid.method for grid in config.recipes})
    starts = sum(methods if not isinstance(start, str) and start.per else 1 for start in finetune.starts)
    steps = [
        finetune.steps(there if budget == "all" else budget, budget, method)
        for task, there in available.items()
        for method in finetune.method
        for budget in finetune.budgets(task, method)
        if budget == "all" or budget <= there
    ]
    runs = starts * len(finetune.seeds) * len(steps)
    kept = runs * weight_bytes(config, parameters) if finetune.keep else 0
    return FinetunePlan(
        starts=[start if isinstance(start, str) else start.words for start in finetune.starts],
        runs=runs,
        steps=starts * len(finetune.seeds) * sum(steps),
        tasks=available,
        memory={
            METHOD_NAMES[method]: need(finetune, method, parameters, gpus).arithmetic for method in finetune.method
        },
        general=len(tasks.training.general) if finetune.icft else None,
        truncated=tasks.training.truncated(),
        known=list(tasks.training.known),
        skipped=list(tasks.training.skipped),
        gpus=gpus,
        disk_gb=(kept + _checkpoint_bytes(finetune, parameters)) / 1e9,
    )


def _checkpoint_bytes(finetune: Finetune, parameters: int) -> int:
    """Bytes of two checkpoints (for a moment there are two): weights and the optimiser's moments in float32."""
    return 2 * 12 * parameters if "full" in finetune.method else 0


def describe_finetune(plan: FinetunePlan) -> list[str]:
    """Describe the plan of fine-tuning in lines for a terminal."""
    tasks = ", ".join(f"{task} ({size} labelled examples)" for task, size in plan.tasks.items())
    where = f"{plan.gpus} GPUs a run" if plan.gpus > 1 else "one GPU a run" if plan.gpus else "on the CPU"
    kept = [f"             {plan.general} general instructions whose answers are kept likely"] if plan.general else []
    return [
        f"finetune   {plan.runs} runs or more, {plan.steps:,} optimiser steps in all, {where}: {tasks}",
        *(f"             from: {start}" for start in plan.starts),
        *(f"             {method}: {words}" for method, words in plan.memory.items()),
        *kept,
        *(f"             {sentence}" for sentence in (*plan.skipped, *plan.truncated, *plan.known)),
        "             in turns with serving: the engines end before training starts, and start again, once, after it;",
        "             as many runs train at once as the cluster has room for, so that none of it is idle meanwhile",
        f"             {plan.disk_gb:.2f} GB for tuned weights and checkpoints on the way",
    ]
