"""Boards of sweeps of every shape, whose merges bend outwards between a good clinical and a good instruct parent."""

from dataclasses import replace
from typing import Any

import numpy as np

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Failure, Profile, RecipeStatus, Serving
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Source
from orchestrator.results.board import Board, Row, TaskSummary, mark_front
from orchestrator.stats.scores import Score, TaskScore, combine

RATIOS = {"start": 0.0, "stop": 1.0, "step": 0.1}
GRIDS: list[dict[str, Any]] = [{"method": "linear", "alpha": RATIOS}, {"method": "slerp", "t": RATIOS}]
TIES = {
    "method": "dare_ties",
    "base_model": "clinical",
    "models": {"clinical": {"weight": {"grid": [0.3, 0.7]}}, "instruct": {"weight": 0.5}},
}
BY_PART = [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"filter": "mlp", "value": 0.3}, {"value": 0.5}]
FORMS: list[dict[str, Any]] = [
    {"method": "slerp", "t": BY_PART},
    {"method": "linear", "alpha": [[0, 1], 0.5]},
    {
        "method": "slerp",
        "base_model": "instruct",
        "models": {"clinical": {}, "instruct": {}},
        "parameters": {"t": {"grid": [0.3, [0, 1]]}},
    },
    {"method": "multislerp", "models": {"clinical": {"weight": [0.2, 0.8]}, "instruct": {"weight": BY_PART}}},
]
MEDICAL = {"tasks": ["medqa_4options", "medmcqa", "mmlu_anatomy"], "metric": "acc"}
INSTRUCTION = {"tasks": ["ifeval"], "metric": ["prompt_level_strict_acc", "inst_level_strict_acc"]}
PERPLEXITY = {"tasks": ["wikitext"], "direction": "minimize", "front": False}
EVIL = '<script>alert("x")</script> | [b]bold[/b] `a` <b>&amp;\nsecond line'


def make_config(objectives: dict[str, Any], recipes: list[dict[str, Any]], **extra: Any) -> SweepConfig:
    parents = {"clinical": {"model": "org/clinical"}, "instruct": {"model": "/home/someone/instruct"}}
    return SweepConfig.model_validate({"parents": parents, "recipes": recipes, "objectives": objectives} | extra)


def make_score(config: SweepConfig, name: str, mean: float, seed: int) -> Score:
    """Every recipe answers the same documents, so half of the luck is shared."""
    objective = config.objectives[name]
    metrics = objective.metric if isinstance(objective.metric, list) else [objective.metric or "word_perplexity"]
    tasks = []
    for i, task in enumerate(objective.tasks):
        shared, own = np.random.default_rng([i, 7]).random(400), np.random.default_rng([i, seed]).random(400)
        right = (0.5 * shared + 0.5 * own < mean).astype(float)
        value = float(right.mean()) if objective.direction == "maximize" else 10 * mean
        values = dict.fromkeys(metrics, value)
        tasks.append(TaskScore(name, str(task), values, value, right - right.mean(), right))
    return combine(objective, tasks)


def make_board(objectives: dict[str, Any], recipes: list[dict[str, Any]], **extra: Any) -> Board:
    """A sweep whose merges bend outwards between a good clinical and a good instruct parent."""
    config = make_config(objectives, recipes, **extra)
    names = [*config.parents, *config.candidates]
    sources = {n: Source(f"digest-{n}", n, (config.parents | config.candidates)[n].model) for n in names}
    rows = []
    for i, recipe in enumerate(expand(config, sources)):
        ratios = (v for p in recipe.points for k, v in p.parameters if k in ("alpha", "t"))
        ratio = next((v for v in ratios if isinstance(v, float)), 0.5)
        bend = 0.10 * ratio * (1 - ratio) * 4 * (0.7 if recipe.method == "slerp" else 1)
        means = {"medical": 0.55 - 0.25 * ratio**1.5 + bend, "perplexity": 0.8 + 0.3 * ratio}
        scores = {n: make_score(config, n, means.get(n, 0.25 + 0.4 * ratio + bend), i) for n in config.objectives}
        rows.append(Row(recipe, RecipeStatus.SCORED, scores, {"swap_s": 2.0, "answer_s": 38.0}))
    tasks = tuple(
        TaskSummary(t.objective, t.task, tuple(t.metrics), 400, 1600, 3)
        for score in rows[0].scores.values()
        for t in score.tasks
    )
    return Board(
        config,
        config.objectives,
        Serving(
            tokenizer="0123abc",
            chat_template=None,
            stop_token_ids=(2, 151645),
            max_model_len=2048,
            architecture="0456def",
            engine=(("max_num_seqs", 128), ("max_num_batched_tokens", None)),
            parent="instruct",
            folder="/srv/tok",
        ),
        Profile("vllm 0.32.0", "bfloat16", 1, "H100"),
        tasks,
        tuple(mark_front(config.objectives, rows)),
        {"clinical/instruct": {"tensors": 290, "curved": 0.0, "lowest_cosine": 0.99971}},
    )


def break_some(board: Board, message: str = EVIL) -> Board:
    """One recipe is invalid, one failed, one pending."""
    rows = list(board.rows)
    for i, status in ((4, "invalid"), (8, "failed"), (12, "pending")):
        known = {"invalid": "invalid", "failed": "failed"}.get(status)
        failure = known and Failure(rows[i].recipe.id, known, "merge", message, "Traceback: secret")  # type: ignore[arg-type]
        rows[i] = replace(rows[i], status=RecipeStatus(status), scores={}, costs={}, failure=failure or None)
    clean = [replace(row, on_front=False, near_front=False) for row in rows]
    return replace(board, rows=tuple(mark_front(board.objectives, clean)))


BOARDS = {
    "paper": lambda: make_board({"medical": MEDICAL, "instruction": INSTRUCTION}, GRIDS),
    "broken": lambda: break_some(
        make_board({"medical": MEDICAL, "instruction": INSTRUCTION, "perplexity": PERPLEXITY}, GRIDS)
    ),
    "one objective": lambda: make_board({"medical": MEDICAL}, GRIDS),
    "three objectives": lambda: make_board(
        {"medical": MEDICAL, "instruction": INSTRUCTION, "perplexity": PERPLEXITY | {"front": True}},
        [*GRIDS, TIES],
    ),
    "no ratio": lambda: make_board({"medical": MEDICAL, "instruction": INSTRUCTION}, [TIES]),
    "mergekit's forms": lambda: make_board({"medical": MEDICAL, "instruction": INSTRUCTION}, FORMS),
    "rehearsal": lambda: make_board(
        {"medical": MEDICAL, "instruction": INSTRUCTION}, GRIDS, workers={"backend": "fake"}
    ),
}
