"""Racing and searching on answers that are known beforehand: what they save, and what they lose.

    .venv/bin/python -m benchmarks.search [--seeds 20] [--races 200]

1. Racing on the recorded landscape (benchmarks/data): the share of all questions after which the recipes that were
   evaluated in full have 99 % of the full evaluation's hypervolume, and the share of the whole race.
2. Search on the landscape: from the grid, answered for free, until the hypervolume is 1.02 times the grid's. Optuna's
   proposals, taken to the nearest recorded recipe, race; random search asks everything of random recorded recipes.
3. Simulated races with known truth, a third of the recipes neighbours within one standard error: in how many a recipe
   of the front is dropped. Half of them have three tasks per objective.
4. ZDT1 and DTLZ2 with noise: the same over recipes that lie on and below the known fronts.

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import optuna

from benchmarks.landscape import SPACE, Landscape, read
from benchmarks.races import Setting, Task, race_all, simulated, start
from orchestrator.config.load import load_config
from orchestrator.config.search import Racing
from orchestrator.core.records import RecipeStatus
from orchestrator.stats.estimates import Floats
from orchestrator.stats.front import hypervolume
from tune.racing import DEFER_ABOVE
from tune.space import METHOD, Params, SearchSpace
from tune.study import TrialResult, add_finished, choose_sampler, finish

ENOUGH, BETTER = 0.99, 1.02


def reference(land: Landscape) -> Floats:
    """The parents' worst in each objective."""
    return np.asarray(land.means[:2].min(axis=0))


def setting_of(land: Landscape, order: Sequence[int] | None = None) -> Setting:
    """The landscape's recipes, in another order, as a race's setting; a document's value is bounded as it is known."""
    rows = slice(None) if order is None else list(order)
    tops = (1.0, float(land.values[1].max()))  # a verdict; the reply that follows most of most instructions
    return Setting([[Task(matrix[rows], top)] for matrix, top in zip(land.values, tops, strict=True)], land.grid)


def racing(land: Landscape, seed: int) -> tuple[float, float, int]:
    """Share of the questions at 99 % of the hypervolume, share of the whole race, recipes of the front lost."""
    order = np.r_[: land.grid, land.grid + np.random.default_rng(seed).permutation(len(land.params) - land.grid)]
    means, whole = land.means[order], hypervolume(land.means, reference(land))
    result = race_all(setting_of(land, order.tolist()), seed=seed)
    full = np.array([recipe for _, recipe in result.curve])
    enough = next(
        share
        for place, (share, _) in enumerate(result.curve)
        if hypervolume(means[full[: place + 1]], reference(land)) >= ENOUGH * whole
    )
    return enough, result.share, len(result.lost)


# -------------------------------------------------------------------- search
def until_better(land: Landscape, proposals: Iterator[int], asked: Callable[[int], int]) -> int:
    """Documents asked until the hypervolume is 1.02 times the grid's."""
    target = BETTER * hypervolume(land.means[: land.grid], reference(land))
    found, spent, total = list(range(land.grid)), 0, sum(matrix.shape[1] for matrix in land.values)
    for recipe in proposals:
        documents = asked(recipe)
        spent += documents
        if documents == total:
            found.append(recipe)
            if hypervolume(land.means[found], reference(land)) >= target:
                break
    return spent


def random_search(land: Landscape, seed: int) -> int:
    total = sum(matrix.shape[1] for matrix in land.values)
    return until_better(land, iter(in_any_order(land, seed)), lambda _: total)


def our_search(land: Landscape, seed: int, guided: bool = True) -> int:
    """Optuna proposes (or chance, where it is not guided), the race decides how many questions a proposal is asked."""
    game = start(setting_of(land), 0.05, Racing().rungs, seed)
    study, space, name = open_search(land, seed)
    trials: dict[int, optuna.Trial] = {}

    def asked(recipe: int) -> int:
        before = game.spent
        game.advance(recipe, DEFER_ABOVE)
        if guided:
            result = TrialResult(RecipeStatus.SCORED, game.estimates(recipe))
            finish(study, trials[recipe], result, name)
        return game.spent - before

    proposals = propose(land, study, space, trials) if guided else iter(in_any_order(land, seed))
    return until_better(land, proposals, asked)


def in_any_order(land: Landscape, seed: int) -> list[int]:
    """All recipes beyond the grid."""
    order = land.grid + np.random.default_rng(seed).permutation(len(land.params) - land.grid)
    return [int(recipe) for recipe in order]


def open_search(land: Landscape, seed: int) -> tuple[optuna.Study, SearchSpace, str]:
    """A study that knows the grid."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    config = load_config(SPACE)
    assert config.search is not None
    search = config.search.model_copy(update={"seed": seed})
    space = SearchSpace(config.model_copy(update={"search": search}), {})
    choice = choose_sampler(space, len(land.params), len(land.values))
    study = optuna.create_study(directions=["maximize"] * len(land.values), sampler=choice.sampler)
    for params, means in zip(land.params[: land.grid], land.means, strict=False):
        if params is not None:
            add_finished(study, space, params, TrialResult(RecipeStatus.SCORED, tuple(means.tolist())), choice.name)
    return study, space, choice.name


def propose(land: Landscape, study: optuna.Study, space: SearchSpace, trials: dict[int, optuna.Trial]) -> Iterator[int]:
    """Optuna's proposals, each taken to the nearest recorded recipe of its method that is new."""
    left = {recipe: params for recipe, params in enumerate(land.params) if recipe >= land.grid and params}
    while left:
        wanted = space.suggest(study.ask())
        same = [recipe for recipe, params in left.items() if params[METHOD] == wanted[METHOD]]
        if not same:
            continue
        nearest = min(same, key=lambda recipe: _distance(left[recipe], wanted))
        study.enqueue_trial(left.pop(nearest))
        trials[nearest] = study.ask()
        space.suggest(trials[nearest])
        yield nearest


def _distance(one: Params, other: Params) -> float:
    return float(sum((one[name] - other[name]) ** 2 for name in one if name != METHOD))


# -------------------------------------------------------------------- analytic problems
def analytic(problem: str, seed: int, recipes: int = 60) -> Setting:
    """Noisy values of points on and off the front of ZDT1 (two objectives) or DTLZ2 (three), turned to be maximised."""
    generator = np.random.default_rng(seed)
    off = generator.exponential(0.15, recipes) * (generator.random(recipes) < 0.8)
    if problem == "zdt1":
        x = generator.random(recipes)
        g = 1 + off * 3
        minimised = [x, g * (1 - np.sqrt(x / g))]
    else:
        a, b = generator.random((2, recipes)) * np.pi / 2
        minimised = [(1 + off) * np.cos(a) * np.cos(b), (1 + off) * np.cos(a) * np.sin(b), (1 + off) * np.sin(a)]
    noise = [generator.normal(0, 0.3, 300) + generator.normal(0, 0.3, (recipes, 300)) for _ in minimised]
    # The noise of all questions sums to 0, so that the front of all questions is the known one.
    values = [
        -value[:, None] + each - each.mean(axis=1, keepdims=True) for value, each in zip(minimised, noise, strict=True)
    ]
    return Setting([[Task(matrix, float(matrix.max()))] for matrix in values], 10)


def spread(name: str, values: list[float]) -> float:
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    print(f"{name:58} median {middle:.3f}  (80 % within {low:.3f} to {high:.3f})", flush=True)
    return float(middle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--races", type=int, default=200)
    args = parser.parse_args()
    land = read()
    print(f"landscape: {len(land.params)} recipes, {land.grid} of them parents and grid", flush=True)
    races = [racing(land, seed) for seed in range(args.seeds)]
    share = spread("racing: questions at 99 % of the hypervolume", [enough for enough, _, _ in races])
    whole = spread("racing: questions of the whole race", [each for _, each, _ in races])
    print(f"racing: recipes of the front lost in {sum(lost > 0 for _, _, lost in races)} of {len(races)} races")
    ours = [our_search(land, seed) for seed in range(args.seeds)]
    theirs = [random_search(land, seed) for seed in range(args.seeds)]
    spread("search: documents until 1.02 times the grid's hypervolume", list(map(float, ours)))
    raced = [our_search(land, seed, guided=False) for seed in range(args.seeds)]
    spread("random that races: the same", list(map(float, raced)))
    spread("random: documents until 1.02 times the grid's hypervolume", list(map(float, theirs)))
    simulations = [race_all(simulated(seed, tasks=1 if seed % 2 else 3), seed=seed) for seed in range(args.races)]
    spread("simulated races: questions", [result.share for result in simulations])
    known = [race_all(analytic(name, seed), seed=seed) for seed in range(args.seeds) for name in ("zdt1", "dtlz2")]
    spread("ZDT1 and DTLZ2 with noise: questions", [result.share for result in known])
    result = {
        "benchmark": "search",
        "questions_share": round(share, 3),
        "false_drop_rate": sum(bool(result.lost) for result in simulations) / len(simulations),
        "warm_start_share": round(float(np.median(ours) / np.median(theirs)), 3),
        "racing_alone_share": round(float(np.median(raced) / np.median(theirs)), 3),
        "whole_race_share": round(whole, 3),
        "false_drop_rate_landscape": sum(lost > 0 for _, _, lost in races) / len(races),
        "false_drop_rate_analytic": sum(bool(result.lost) for result in known) / len(known),
        "seeds": args.seeds,
        "races": args.races,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
