"""Optuna's study: rebuilt at every start from the ledger's answers; it then proposes trials and takes their results.

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

from orchestrator.config.objectives import Objective
from orchestrator.core.records import RecipeStatus
from tune.space import Params, SearchSpace

NAME = "mergefront"
MANY = 1000
"""Number of candidates from which on a population has the time to evolve."""
FEW = 200
"""Number of candidates up to which a Gaussian process is fast enough to propose each of them."""
WIDE = 20
"""Number of parameters above which a Gaussian process learns too little from so few trials."""


@dataclass(frozen=True)
class SamplerChoice:
    """Optuna's sampler of a search, and why it was chosen."""

    sampler: BaseSampler
    name: str
    why: str


def choose_sampler(space: SearchSpace, candidates: int, objectives: int) -> SamplerChoice:
    """Choose the sweep file's sampler, or the one that fits the space.

    NSGA and the Gaussian process learn only from parameters that all trials share; only TPE uses pruned trials.
    """
    search = space.config.search
    assert search is not None, "the sweep has a search"
    conditional = len(space.entries) > 1
    if search.sampler:
        name, why = search.sampler, "the sweep file says so"
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
        return SamplerChoice(samplers[name](), name, why)


def open_study(file: Path, axes: Mapping[str, Objective], choice: SamplerChoice) -> optuna.Study:
    """Create a new study in place of the stored one."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file.unlink(missing_ok=True)
    storage = JournalStorage(JournalFileBackend(str(file)))
    study = optuna.create_study(
        storage=storage,
        sampler=choice.sampler,
        study_name=NAME,
        directions=[objective.direction for objective in axes.values()],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(axes))
    return study


def load_study(file: Path) -> optuna.Study:
    """Load the stored study, to read it."""
    return optuna.load_study(study_name=NAME, storage=JournalStorage(JournalFileBackend(str(file))))


@dataclass(frozen=True)
class TrialResult:
    """The result of a candidate, as the study stores it."""

    status: RecipeStatus
    values: tuple[float, ...] = ()
    """One for each objective, in its own direction; an estimate where not all questions are answered."""
    constraints: Mapping[str, float] | None = None
    """Above 0 where violated."""
    notes: Mapping[str, Any] | None = None


def finish(study: optuna.Study, trial: Trial, result: TrialResult, sampler: str) -> None:
    """Finish a running trial.

    An invalid recipe is infeasible, not a low score; a failed or unscored one has no result.
    """
    for key, note in (result.notes or {}).items():
        trial.set_user_attr(key, note)
    for name, value in _constraints(result).items():
        trial.set_constraint(name, value)
    study.tell(trial, result.values or None, _state(result, sampler), skip_if_finished=False)


def add_finished(study: optuna.Study, space: SearchSpace, params: Params, result: TrialResult, sampler: str) -> None:
    """Add a trial whose result is known already: a warm start."""
    state = _state(result, sampler)
    trial: FrozenTrial = create_trial(
        state=state,
        values=list(result.values) if state == TrialState.COMPLETE else None,
        params=params,
        distributions=space.distributions(params),
        user_attrs=dict(result.notes or {}),
        constraints=_constraints(result),
    )
    study.add_trial(trial)


def _constraints(result: TrialResult) -> dict[str, float]:
    infeasible = {"infeasible": 1.0} if result.status == RecipeStatus.INVALID else {}
    return {**(result.constraints or {}), **infeasible}


def _state(result: TrialResult, sampler: str) -> TrialState:
    if result.status == RecipeStatus.INVALID:
        return TrialState.PRUNED if sampler == "tpe" else TrialState.FAIL
    return TrialState.COMPLETE if result.values else TrialState.FAIL
