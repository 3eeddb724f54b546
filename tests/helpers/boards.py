"""Boards with scores that are made up."""

from __future__ import annotations

import dataclasses

import numpy as np

from orchestrator.config.finetune import Finetune
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.records import Profile, RecipeStatus, Serving
from orchestrator.recipes.recipe import Point, Recipe, Source
from orchestrator.results.board import Board, Row, mark_front
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
