"""Record a landscape: the demo's grid and 320 random points of the space in landscape.yaml, every question asked.

    .venv/bin/python -m benchmarks.landscape --out DIR     # goes on where it stopped; about 10 minutes on 2 cores

Writes benchmarks/data/landscape.parquet: a row a recipe, its point of the space as JSON (null for one that is none),
its verdicts on the formulary (0 or 1 a document) and how many of each prompt's instructions its replies follow. The
file's metadata holds how many instructions each prompt has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.common import ROOT
from orchestrator.config.load import load_config
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.layout import Layout
from orchestrator.results.lock import locked
from orchestrator.stages.compute import computing
from orchestrator.stages.evaluate import evaluate
from orchestrator.stages.open import Sweep, open_sweep
from orchestrator.stats.estimates import Floats
from tasks.evaluation.judge import score_task
from tune.space import Params, SearchSpace

FILE = ROOT / "benchmarks" / "data" / "landscape.parquet"
SPACE = ROOT / "benchmarks" / "landscape.yaml"
POINTS = 320


@dataclass(frozen=True)
class Landscape:
    """What was recorded, without the demo's base model, which knows what both parents know and beats every merge."""

    params: list[Params | None]
    values: tuple[Floats, ...]
    """Of each objective, shape (recipes, documents): verdicts, and the mean of both strict accuracies' parts."""
    grid: int
    """So many recipes are the parents and the grid; they come first."""

    @property
    def means(self) -> Floats:
        return np.array([matrix.mean(axis=1) for matrix in self.values]).T


def read() -> Landscape:
    found = pq.read_table(FILE)
    found = found.filter(pc.not_equal(found["label"], "parent name=base"))
    given = np.array(json.loads(found.schema.metadata[b"instructions"]))
    clinical, followed = (np.array(found[name].to_pylist(), float) for name in ("clinical", "followed"))
    params = [json.loads(text) for text in found["params"].to_pylist()]
    instruction = ((followed == given) + followed / given.mean()) / 2
    return Landscape(params, (clinical, instruction), len(params) - POINTS)


def points(space: SearchSpace) -> Iterator[Params]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(POINTS):
        yield space.suggest(study.ask())


def open_landscape(layout: Layout) -> tuple[Sweep, dict[str, Params | None]]:
    """The example's sweep on all questions of both splits, with the random points as recipes; recipe → its point."""
    config = load_config(SPACE)
    whole = {name: item.model_copy(update={"split": None}) for name, item in config.objectives.items()}
    workers = config.workers.model_copy(update={"count": 1})
    sweep = open_sweep(config.model_copy(update={"objectives": whole, "workers": workers}), layout)
    space = SearchSpace(sweep.config, sweep.sources)
    found: dict[str, tuple[Recipe, Params | None]] = {r.id: (r, space.params_of_merge(r)) for r in sweep.recipes}
    for params in points(space):
        recipe = space.merge(params)
        found.setdefault(recipe.id, (recipe, params))
    return replace(sweep, recipes=[recipe for recipe, _ in found.values()]), {k: p for k, (_, p) in found.items()}


def table(sweep: Sweep, params: dict[str, Params | None]) -> pa.Table:
    rows, asked = [], np.zeros(0, np.uint8)
    for recipe in sweep.recipes:
        lm = sweep.tasks.lm.knowing(sweep.ledger.answers(recipe.id))
        clinical, instruction = (score_task(suite, lm) for suite in sweep.tasks.suites)
        followed, asked = followed_of(sweep)
        assert np.isclose(np.mean([np.mean(followed == asked), followed.sum() / asked.sum()]), instruction.value)
        rows.append(
            {
                "recipe_id": recipe.id,
                "label": recipe.label,
                "params": json.dumps(params[recipe.id]),
                "clinical": clinical.documents.astype(np.uint8),
                "followed": followed,
            }
        )
    words = [pa.field(name, pa.string()) for name in ("recipe_id", "label", "params")]
    values = [pa.field(name, pa.list_(pa.uint8())) for name in ("clinical", "followed")]
    metadata = {"instructions": json.dumps(asked.tolist()), "serving": sweep.serving.id, "profile": sweep.profile.id}
    return pa.Table.from_pylist(rows, schema=pa.schema([*words, *values], metadata=metadata))


def followed_of(sweep: Sweep) -> tuple[np.ndarray, np.ndarray]:
    """Of the replies that were just judged: instructions followed and given, a prompt each."""
    task = sweep.tasks.suites[1].task
    verdicts = [
        task.process_results(instance.doc, list(instance.filtered_resps.values()))["inst_level_strict_acc"]
        for instance in task.instances
    ]
    followed, asked = ([f(verdict) for verdict in verdicts] for f in (sum, len))
    return np.array(followed, np.uint8), np.array(asked, np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="results folder; kept, so that a killed run goes on")
    out = parser.parse_args().out
    with locked(Layout(out)):
        sweep, params = open_landscape(Layout(out))
        with computing(sweep, None, searches=False) as compute:
            evaluate(sweep, sweep.grid, compute)
        FILE.parent.mkdir(exist_ok=True)
        pq.write_table(table(sweep, params), FILE, compression="zstd")
    print(f"{len(sweep.recipes)} recipes: {FILE}")


if __name__ == "__main__":
    main()
