"""A sweep with everything found: its recipes, its questions, its ledger."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.records import Profile, Serving
from orchestrator.ledger.ledger import Ledger
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_profile, make_serving
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Recipe, Source
from orchestrator.results.manifest import Note, ledger_place, read_note, write_note, write_questions
from orchestrator.sizing.disk import check_disk

if TYPE_CHECKING:
    from tasks.evaluation.ledger_lm import LedgerLM
    from tasks.evaluation.suites import SuiteTask


@dataclass(frozen=True)
class Sweep:
    """A sweep with everything found: what to ask of whom, and what is known."""

    config: SweepConfig
    out: Path
    sources: dict[str, Source]
    recipes: list[Recipe]
    serving: Serving
    profile: Profile
    lm: LedgerLM
    suites: list[SuiteTask]
    ledger: Ledger


def open_sweep(config: SweepConfig, out: Path) -> Sweep:
    """Resolve parents and tasks; write down the result, so that `report` needs no parents."""
    files = resolve(config)
    sources = {name: found.source for name, found in files.items()}
    check_disk(config, max(found.parameters for found in files.values()), len(expand(config, sources)))
    serving = make_serving(config, files, out / "serving")
    profile = make_profile(config)
    sweep = _load(config, out, sources, serving, profile)
    write_note(out, Note(config, sources, serving, profile, asked_digests(sweep)))
    write_questions(out, {"sweep": sweep.suites})
    return sweep


def reopen_sweep(out: Path) -> Sweep:
    """The sweep whose results are in `out`, from what `run` wrote down there.

    Raises:
        UserError: there is none, or its tasks ask other questions today.
    """
    note = read_note(out)
    sweep = _load(note.config, out, note.sources, note.serving, note.profile)
    changed = [name for name, digest in asked_digests(sweep).items() if note.digests.get(name) != digest]
    if changed:
        raise UserError(
            f"{out}: the questions of {changed[0]} are not those that were asked (its task file, its data or lm-eval "
            "has changed since); the stored answers do not belong to them: restore it, or `run` to ask the new ones"
        )
    return sweep


def asked_digests(sweep: Sweep) -> dict[str, str]:
    """Objective, place and task → digest of its questions."""
    return {
        f"{suite.objective}/{index}/{suite.name}": hashlib.sha256(
            "".join(question.id for question in suite.questions).encode()
        ).hexdigest()
        for index, suite in enumerate(sweep.suites)
    }


def _load(config: SweepConfig, out: Path, sources: dict[str, Source], serving: Serving, profile: Profile) -> Sweep:
    from tasks.evaluation.suites import keep_private, load_suites, open_lm, remember

    lm = open_lm(config, serving)
    keep_private(config, out)
    recipes = expand(config, sources)
    ledger = Ledger(ledger_place(config, out), serving, profile)
    suites = load_suites(config.objectives, config, lm)
    remember(suites, config, out / "metrics")
    return Sweep(config, out, sources, recipes, serving, profile, lm, suites, ledger)
