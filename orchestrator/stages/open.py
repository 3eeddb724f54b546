"""Opening a sweep: its recipes, its questions, its training examples and its ledger, found and checked.

A sweep is opened once in each command; all later stages take what they need from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.config.objectives import Objective
from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.progress import say
from orchestrator.core.records import Profile, Serving
from orchestrator.ledger.ledger import Ledger
from orchestrator.models.resolve import Files, resolve
from orchestrator.models.served_rows import other_tokenizers, served_ids
from orchestrator.models.serving import make_profile, tokenizer_of, vocabularies
from orchestrator.models.tokenizer import tokenizer_files
from orchestrator.recipes.expand import expand
from orchestrator.recipes.recipe import Recipe, Source
from orchestrator.results.layout import Layout
from orchestrator.results.manifest import (
    Manifest,
    QuestionUse,
    changes,
    ledger_location,
    read_halving,
    read_manifest,
    relabelled,
    write_manifest,
    write_questions,
)
from orchestrator.stages.open_recipes import open_recipes
from orchestrator.stages.training_examples import TrainingExamples, open_training_examples
from orchestrator.stats.scores import TaskScore
from tasks.evaluation.ledger_lm import LedgerLM
from tasks.evaluation.readings import read_otherwise
from tasks.evaluation.rehearsal import rehearse
from tasks.evaluation.suites import SuiteTask, generation_tasks, keep_private, load_rounds, open_lm, remember
from tasks.generation.metrics import check_lexical


@dataclass(frozen=True)
class Round:
    """Some recipes and the questions that they are evaluated on.

    The rounds of a sweep are its grid, the candidates of its search, the search's front on the held-out questions, and
    the starting points and checkpoints of fine-tuning.
    """

    objectives: Mapping[str, Objective]
    suites: Sequence[SuiteTask]
    """The tasks of the objectives, with their questions."""
    recipes: Sequence[Recipe]
    layout: Layout
    """Where its failures and its report are written."""

    def of(self, recipes: Sequence[Recipe]) -> Round:
        """The round with the same questions and other recipes."""
        return replace(self, recipes=recipes)


@dataclass(frozen=True)
class Tasks:
    """The tasks of a sweep file with their questions, and the examples that fine-tuning learns from."""

    lm: LedgerLM
    """lm-eval's model, still without answers; `lm.knowing(answers)` scores those of one recipe."""
    suites: list[SuiteTask]
    """The tasks of `objectives`."""
    learning: list[SuiteTask]
    """The tasks of `finetune.tasks`."""
    held_out: list[SuiteTask]
    """The tasks of a search's objectives with the questions that the search never sees; empty without a search."""
    training: TrainingExamples

    @property
    def all(self) -> list[SuiteTask]:
        """The tasks of every section."""
        return [*self.suites, *self.learning, *self.held_out]


@dataclass(frozen=True)
class Sweep:
    """An opened sweep: what every stage needs; made by `open_sweep` or `reopen_sweep`."""

    config: SweepConfig
    layout: Layout
    sources: dict[str, Source]
    """Name → resolved parent or candidate."""
    recipes: list[Recipe]
    """The recipes of the sweep file: parents, candidates and the grid."""
    serving: Serving
    profile: Profile
    tasks: Tasks
    ledger: Ledger
    scores: dict[tuple[str, int], TaskScore] = field(default_factory=dict)
    """(recipe id, `id()` of a suite) → score; answers never change, so each score is computed once in a command."""

    @property
    def grid(self) -> Round:
        """The round of the sweep file's recipes on the questions of its objectives."""
        return Round(self.config.objectives, self.tasks.suites, self.recipes, self.layout)

    @property
    def searched(self) -> Round:
        """The round that a search compares on: the grid, with the learning task of a joint search where it is one."""
        learned = self.config.learned
        suites = [*self.tasks.suites, *(suite for suite in self.tasks.learning if suite.objective in learned)]
        return replace(self.grid, objectives={**self.config.objectives, **learned}, suites=suites)

    @property
    def held_out(self) -> Round:
        """The round of the questions that a search never sees, still without recipes."""
        return Round(self.config.held_out, self.tasks.held_out, [], self.layout.confirmed)

    @property
    def finetuned(self) -> Round:
        """The round of all objectives and fine-tuning tasks, still without recipes."""
        finetune = self.config.finetune
        objectives = {**self.config.objectives, **(finetune.tasks if finetune else {})}
        return Round(objectives, [*self.tasks.suites, *self.tasks.learning], [], self.layout)

    def forget(self, recipe_id: str) -> None:
        """Delete a recipe's answers and scores, as its weights are about to be trained again."""
        self.ledger.forget(recipe_id)
        for key in [key for key in self.scores if key[0] == recipe_id]:
            del self.scores[key]


def open_sweep(config: SweepConfig, layout: Layout) -> Sweep:
    """Resolve parents and tasks, and write what was found to DIR/sweep.json, so that `report` needs no parents.

    Raises:
        UserError: a parent, a task, a training example or the ledger is missing or wrong, or the disk is too small.
    """
    files = resolve(config)
    found = open_recipes(config, files, layout)
    sweep = _open(config, layout, found.sources, found.recipes, found.serving, make_profile(config))
    if generation_tasks(sweep.tasks.all):
        check_lexical()
    differing = tokenizer_notes(config, files, found.serving, sweep.tasks)
    sweep = replace(sweep, serving=replace(found.serving, notes=(*found.serving.notes, *differing)))
    halving = read_halving(layout)
    manifest = Manifest(config, found.sources, sweep.serving, sweep.profile, digests(sweep), documents(sweep), halving)
    notes = [*(note for each in files.values() for note in each.notes), *sweep.serving.notes]
    for line in [*notes, *changes(layout, manifest), *sweep.tasks.training.notes()]:
        say(line)
    write_manifest(layout, manifest)
    write_questions(layout, question_uses(sweep))
    return sweep


def reopen_sweep(layout: Layout) -> Sweep:
    """Open the sweep whose results are in a folder, from DIR/sweep.json.

    Raises:
        UserError: the folder has no sweep, or the tasks of its objectives have other questions now.
    """
    manifest = read_manifest(layout)
    recipes = expand(manifest.config, manifest.sources)
    sweep = _open(manifest.config, layout, manifest.sources, recipes, manifest.serving, manifest.profile)
    changed = [name for name, digest in digests(sweep).items() if manifest.digests.get(name) != digest]
    if changed:
        raise UserError(
            f"{layout.root}: the questions of {changed[0]} are not those that were answered (its task file, its data "
            "or lm-eval has changed since); the stored answers do not belong to them: restore it, or `run` to "
            "evaluate the new ones"
        )
    for line in relabelled(manifest, replace(manifest, documents=documents(sweep))):
        say(line)
    return sweep


def _open(
    config: SweepConfig,
    layout: Layout,
    sources: dict[str, Source],
    recipes: list[Recipe],
    serving: Serving,
    profile: Profile,
) -> Sweep:
    tasks = open_tasks(config, serving, layout)
    remember(tasks.all, config, layout.metrics)
    ledger = Ledger(ledger_location(config, layout), serving, profile)
    return Sweep(config, layout, sources, recipes, serving, profile, tasks, ledger)


def open_tasks(config: SweepConfig, serving: Serving, layout: Layout) -> Tasks:
    """Load every task that any section of the sweep file names, and every training example.

    Raises:
        UserError: a task or an example cannot be loaded, does not fit into `max_model_len` or `max_length`, or cannot
            be scored whatever the answers are.
    """
    lm = open_lm(config, serving)
    keep_private(config, layout.cache)
    learned: Mapping[str, Objective] = config.finetune.tasks if config.finetune else {}
    rounds = [learned, config.objectives, config.held_out]
    learning, suites, held_out = load_rounds(rounds, config, lm, read_halving(layout))
    rehearse([*suites, *learning])
    training = open_training_examples(config, lm, learning, [*suites, *learning, *held_out])
    return Tasks(lm, suites, learning, held_out, training)


def tokenizer_notes(config: SweepConfig, files: dict[str, Files], serving: Serving, tasks: Tasks) -> Iterator[str]:
    """Yield a sentence for each model that another tokenizer than its own serves: what differs, for which questions.

    Args:
        files: name → files, of the parents and candidates.
    """
    own, served = vocabularies(config, files), tokenizer_files(Path(serving.folder))
    suites = [*tasks.suites, *tasks.learning, *tasks.held_out]
    aligned = {name: served_ids(each, served) for name, each in own.items() if config.tokenizer_source}
    left = {name: (own[name].rows or 0) - len(ids) for name, ids in aligned.items()}
    for name, rows in left.items():
        if rows:
            yield (
                f"{name} has {rows:,} rows that belong to no token of the served tokenizer; alone they would take some "
                "probability, so its log-probabilities are a little higher here"
            )
    for name, why in other_tokenizers(own, served):
        if not own[name].files:
            yield f"{name} is served with the tokenizer of {tokenizer_of(config, serving)}: {why}"
            continue
        other, asked = read_otherwise(tasks.lm, suites, own[name].tokenizer.opened, served_ids(own[name], served))
        yield (
            f"{name} is served with another tokenizer than its own ({why}): {other:,} of {asked:,} questions would "
            "be other tokens with its own"
            + ("" if other or left.get(name) else ", so it answers here as it does alone")
        )


def digests(sweep: Sweep) -> dict[str, str]:
    """Digest the questions of each task of the objectives, by `objective/index/task`."""
    return _by_task(sweep, lambda suite: "".join(question.id for question in suite.questions))


def documents(sweep: Sweep) -> dict[str, str]:
    """Digest what the answers to each task's questions are scored with: its documents, as lm-eval reads them."""
    return _by_task(
        sweep,
        lambda suite: "".join(json.dumps(each.doc, sort_keys=True, default=repr) for each in suite.task.instances),
    )


def _by_task(sweep: Sweep, text: Callable[[SuiteTask], str]) -> dict[str, str]:
    return {
        f"{suite.objective}/{index}/{suite.name}": hashlib.sha256(text(suite).encode()).hexdigest()
        for index, suite in enumerate(sweep.tasks.suites)
    }


def question_uses(sweep: Sweep) -> list[QuestionUse]:
    """List what every question is for; see `orchestrator.results.manifest.QUESTIONS`."""
    confirmed = sweep.tasks.held_out if sweep.config.search else []
    stages = {"sweep": sweep.searched.suites, "confirm": confirmed, "tuned": sweep.tasks.learning}
    return [
        QuestionUse(question.id, stage, suite.objective, suite.name, document)
        for stage, suites in stages.items()
        for suite in suites
        for question, document in zip(suite.questions, suite.document_of, strict=True)
    ]
