"""Boards with scores that are made up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from orchestrator.config.finetune import Finetune, Method
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Profile, RecipeStatus, Serving
from orchestrator.recipes.recipe import Point, Recipe, Source
from orchestrator.recipes.tuning import Start, Tuning, settings
from orchestrator.results.board import Board, FinetunedRow, FinetuneResults, Row, mark_front
from orchestrator.stages.finetune_starts import choose_starts
from orchestrator.stats.scores import Score, TaskScore

TASKS = {"notes": {"tasks": ["clinical_mts_dialog"]}}
VALUES = {"pa": (0.9, 0.9), "pb": (0.1, 0.1), "s1": (0.8, 0.8), "s2": (0.6, 0.3), "l1": (0.7, 0.7), "l2": (0.5, 0.2)}


def finetune(**changes: object) -> Finetune:
    return Finetune.model_validate({"starts": ["a"], "tasks": TASKS, **changes})


def recipe(name: str, method: str = "slerp") -> Recipe:
    merged = "passthrough" if method == "parent" else method
    return Recipe(
        merged, ((Source(name, name, name), {}),), None, {}, "float32", points=(Point(method, (("t", name),)),)
    )


def score(value: float, documents: int = 20, seed: int = 0) -> Score:
    influence = np.random.default_rng(seed).normal(0, 0.05, documents)
    influence -= influence.mean()
    return Score(value, (TaskScore("o", "t", {"m": value}, value, influence, influence + value),), (1.0,))


def board(values: dict[str, tuple[float, float]], *starts: object) -> Board:
    """Merges of methods by their first letter: `s` is slerp, `l` linear, `p` a parent."""
    config = SweepConfig.model_validate(
        {
            "parents": {"pa": {"model": "a"}, "pb": {"model": "b"}},
            "objectives": {"medical": {"tasks": ["x"]}, "loss": {"tasks": ["y"], "direction": "minimize"}},
            "finetune": {"starts": list(starts), "tasks": TASKS},
        }
    )
    rows = []
    for name, (medical, loss) in values.items():
        method = {"s": "slerp", "l": "linear", "p": "parent"}[name[0]]
        key = "name" if method == "parent" else "x"
        made = dataclasses.replace(recipe(name, method), points=(Point(method, ((key, name),)),))
        scores = {"medical": score(medical), "loss": score(loss)}
        rows.append(Row(made, RecipeStatus.SCORED, scores, {}))
    serving = Serving("t", None, (), 8, "x", (), "pa", "")
    return Board(
        config,
        config.objectives,
        serving,
        Profile("fake", "float32", 1, "cpu"),
        (),
        tuple(mark_front(config.objectives, rows)),
        {},
    )


METHODS: tuple[Method, ...] = ("full", "lora")


def tuned_board(seeds: int = 3) -> Board:
    """`pb` learns slowly, the merge `s2` fast and forgets a twentieth of `medical`; LoRA a little less than all weights."""
    found = board(VALUES, "pb", {"nearest": "ideal"})
    rows = {row.recipe.id: row for row in found.rows}
    starts = []
    for start in choose_starts(found.config, found, None):
        row = rows[start.recipe.id]
        starts.append((start, dataclasses.replace(row, scores={**row.scores, "notes": score(0.1)})))
    runs = tuple(
        run(start, row, method, seed, size)
        for start, row in starts
        for method in METHODS
        for seed in range(seeds)
        for size in (8, 64, 512)
    )
    return dataclasses.replace(found, finetuning=FinetuneResults(tuple(starts), runs, ()))


def run(start: Start, row: Row, method: Method, seed: int, size: int) -> FinetunedRow:
    level = {8: 0.2, 64: 0.5, 512: 0.8}[size] if start.label == "pb" else {8: 0.5, 64: 0.7, 512: 0.9}[size]
    given = settings(finetune(), 100, method)
    tuning = Tuning(start.recipe, str(size), method, seed, given, "notes", start.label, size, str(size))
    first = 100 * len(start.label) + 10 * size + (method == "lora") * 7
    drift = np.random.default_rng(first + seed).normal(0, 0.002)
    notes = score(level - 0.02 * (method == "lora") + drift, seed=first + seed)
    medical = score(row.scores["medical"].value - 0.05 + drift, seed=first + seed)
    scores = {**row.scores, "medical": medical, "notes": notes}
    result = {
        "seconds": 36.0,
        "processes": 1,
        "device": "cuda",
        "device_name": "NVIDIA H100",
        "losses": [2.0, 1.0],
        "truncated": 3,
    }
    return FinetunedRow(tuning, Row(tuning.recipe(Path("/x"), "float32"), RecipeStatus.SCORED, scores, {}), result)
