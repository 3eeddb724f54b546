"""Optuna's study: rebuilt from what the ledger knows at every start, and asked and told from then on.

The study is a view, like the leaderboard: it is written anew to `DIR/search/study.log` (Optuna's journal storage, which
`optuna-dashboard` opens), so that a change of the data, the objectives or the space never leaves old values in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from orchestrator.config.sweep import SweepConfig
from tune.space import Params, SearchSpace

NAME = "mergefront"
MANY = 1000
"""Candidates from which on a population has the time to evolve."""
FEW = 200
"""Candidates up to which a Gaussian process is fast enough to be asked each time."""
WIDE = 20
"""Parameters from which on a Gaussian process knows too little."""


@dataclass(frozen=True)
class Choice:
    sampler: BaseSampler
    name: str
    why: str


def choose_sampler(space: SearchSpace, candidates: int, objectives: int) -> Choice:
    """NSGA and the Gaussian process learn only from parameters that all trials share; only TPE uses pruned trials."""
    search = space.config.search
    assert search is not None, "the sweep has a search"
    conditional = len(space.entries) > 1
    if search.sampler:
        name, why = search.sampler, "the sweep asks for it"
    elif conditional:
        name, why = "tpe", "which parameters there are depends on the method, and TPE alone learns from such trials"
    elif candidates >= MANY:
        name = "nsga2" if objectives <= 3 else "nsga3"
        why = f"{candidates} candidates are enough for a population to evolve"
    elif candidates <= FEW and space.dimensions <= WIDE:
        name, why = "gp", f"all trials share the same {space.dimensions} parameters, and few are tried"
    else:
        name, why = "tpe", f"{space.dimensions} parameters are too many for a Gaussian process"
    samplers: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=search.seed, multivariate=True, group=conditional, constant_liar=True),
        "gp": lambda: GPSampler(seed=search.seed),
        "nsga2": lambda: NSGAIISampler(seed=search.seed),
        "nsga3": lambda: NSGAIIISampler(seed=search.seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return Choice(samplers[name](), name, why)


def open_study(folder: Path, config: SweepConfig, choice: Choice) -> optuna.Study:
    """A new study in place of the old one."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = folder / "study.log"
    file.unlink(missing_ok=True)
    storage = JournalStorage(JournalFileBackend(str(file)))
    front = {name: objective for name, objective in config.objectives.items() if objective.front}
    study = optuna.create_study(
        storage=storage,
        sampler=choice.sampler,
        study_name=NAME,
        directions=[objective.direction for objective in front.values()],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(front))
    return study


def load_study(folder: Path) -> optuna.Study:
    """The study as it was left, to look at."""
    return optuna.load_study(study_name=NAME, storage=JournalStorage(JournalFileBackend(str(folder / "study.log"))))


@dataclass(frozen=True)
class Told:
    """What came of a candidate."""

    status: str
    """`scored` on all questions, `raced` out or `waiting` on a part, `invalid`, or `failed`."""
    values: tuple[float, ...] = ()
    """An objective each, in its own direction; an estimate where on a part."""
    constraints: Mapping[str, float] | None = None
    """Above 0 where violated."""
    notes: Mapping[str, Any] | None = None


def tell(study: optuna.Study, trial: Trial, told: Told, sampler: str) -> None:
    """Tell a result. What cannot be is infeasible, not a low score; what broke is no result at all."""
    for key, note in (told.notes or {}).items():
        trial.set_user_attr(key, note)
    for name, value in _constraints(told).items():
        trial.set_constraint(name, value)
    study.tell(trial, told.values or None, _state(told, sampler), skip_if_finished=False)


def add(study: optuna.Study, space: SearchSpace, params: Params, told: Told, sampler: str) -> None:
    """A result that was there before: a warm start."""
    state = _state(told, sampler)
    trial: FrozenTrial = create_trial(
        state=state,
        values=list(told.values) if state == TrialState.COMPLETE else None,
        params=params,
        distributions=space.distributions(params),
        user_attrs=dict(told.notes or {}),
        constraints=_constraints(told),
    )
    study.add_trial(trial)


def _constraints(told: Told) -> dict[str, float]:
    infeasible = {"infeasible": 1.0} if told.status == "invalid" else {}
    return {**(told.constraints or {}), **infeasible}


def _state(told: Told, sampler: str) -> TrialState:
    if told.status == "invalid":
        return TrialState.PRUNED if sampler == "tpe" else TrialState.FAIL
    return TrialState.FAIL if told.status == "failed" else TrialState.COMPLETE
