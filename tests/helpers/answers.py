"""A results folder as `run` writes it, answered as far as a test likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.config.load import load_config
from orchestrator.config.workers import Workers
from orchestrator.core.records import Answer, Answered, Block, Decoding, Profile, Question, Serving
from orchestrator.core.store import Store
from orchestrator.ledger.ledger import Ledger
from orchestrator.models.resolve import resolve
from orchestrator.models.serving import make_profile, make_serving
from orchestrator.recipes.expand import expand
from orchestrator.results.layout import Layout
from orchestrator.results.manifest import Manifest, QuestionUse, write_manifest, write_questions
from tasks.evaluation.suites import SuiteTask

SERVING = Serving("tokenizer", None, (0,), 512, "x", (), "a", "/nowhere")

PROFILE = Profile("fake", "float32", 1, "cpu")

LETTERS = [Question((i,), (i + 1,)) for i in range(12)]

TEXTS = [Question((i,), decoding=Decoding(8, ())) for i in range(6)]


def asked(
    block: Block, logprob: float = -1.0, worker: str = "node:1", swap_s: float = 1.0, answer_s: float = 3.0
) -> Answered:
    answers = tuple(
        Answer(q.id, None, None, "a patient's text", 3) if q.decoding else Answer(q.id, logprob, True, None, 0)
        for q in block.questions
    )
    return Answered(block, answers, swap_s, answer_s, worker)


class Results:
    """A results folder as `run` writes it, with two objectives and four recipes, as far as the test answers them."""

    def __init__(self, path: Path, out: Path) -> None:
        self.out, self.layout, config = out, Layout(out), load_config(path)
        files = resolve(config)
        sources = {name: found.source for name, found in files.items()}
        serving = make_serving(config, files, self.layout.serving)
        profile = make_profile(config)
        write_manifest(self.layout, Manifest(config, sources, serving, profile, {}))
        self.suites = [
            SuiteTask("clinical", "letters", None, [], 6, LETTERS, [i // 2 for i in range(12)]),
            SuiteTask("instruction", "texts", None, [], 6, TEXTS, list(range(6))),
        ]
        self.write_uses(sweep=self.suites)
        self.recipes = [recipe.id for recipe in expand(config, sources)]
        self.place = config.ledger or str(self.layout.answers)
        self.ledger = Ledger(self.place, serving, profile)
        self.blocks = {r: self.ledger.missing(r, [LETTERS, TEXTS], Workers(block=6)) for r in self.recipes}

    def write_uses(self, **stages: list[SuiteTask]) -> None:
        """What the questions of each stage are for."""
        uses = [
            QuestionUse(question.id, stage, suite.objective, suite.name, document)
            for stage, suites in stages.items()
            for suite in suites
            for question, document in zip(suite.questions, suite.document_of, strict=True)
        ]
        write_questions(self.layout, uses)

    def answer(self, recipe: int, blocks: slice = slice(None), **how: Any) -> None:
        for block in self.blocks[self.recipes[recipe]][blocks]:
            self.ledger.write(asked(block, **how))


def damage(store: Store) -> None:
    """Flip a bit of one Parquet file."""
    name = next(entry.name for entry in store.list() if entry.name.endswith(".parquet"))
    data = store.read(name)
    store.write(name, data[:40] + bytes([data[40] ^ 1]) + data[41:])
