"""Evaluation: the questions that have no answer yet go to the workers in blocks, the answers into the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from cluster.text_metrics import unmeasured
from orchestrator.core.errors import UserError
from orchestrator.core.progress import Progress, say
from orchestrator.core.records import Answer, Block
from orchestrator.stages.compute import Compute
from orchestrator.stages.open import Round, Sweep
from orchestrator.stages.record import known_invalid, recording
from orchestrator.stages.slerp_pairs import slerp_shares, unknown_shares
from tasks.evaluation.suites import generation_tasks
from tasks.serving.engine import QuestionRefused


def evaluate(sweep: Sweep, evaluated: Round, compute: Compute) -> None:
    """Answer the questions of a round that have no answer yet; where there are none, nothing is started.

    At the same time, generated texts without their metrics are measured, and SLERP's pairs of parents are compared.

    Raises:
        EngineStartError: no engine can be started.
        UserError: the engine refuses a question, whatever the recipe.
        OSError, StorageError: an answer cannot be stored.
    """
    blocks = missing_blocks(sweep, evaluated)
    layout = sweep.layout
    pairs = unknown_shares(sweep.config, sweep.sources, layout.slerp)
    texts = unmeasured(evaluated.suites, _stored_texts(sweep, evaluated))
    if not (blocks or pairs or texts):
        return
    for block in blocks:
        evaluated.layout.failure(block.recipe_id).unlink(missing_ok=True)
    recipes = {recipe.id: recipe for recipe in evaluated.recipes}
    compute.join()
    with (
        Progress(blocks) as progress,
        _logging(compute, progress.note),
        slerp_shares(pairs, layout.slerp, layout.scratch, progress.note),
        recording(sweep, evaluated, texts, progress) as record,
    ):
        if blocks and not compute.is_exhausted():
            with naming_refused(evaluated):
                for result in compute.pool(len(blocks)).run(recipes, blocks, stop=compute.is_exhausted):
                    record(result)


@contextlib.contextmanager
def naming_refused(evaluated: Round) -> Iterator[None]:
    """Name the task and the document of a question that the engine refuses, whatever the recipe.

    Raises:
        UserError: in place of QuestionRefused.
    """
    try:
        yield
    except QuestionRefused as error:
        for suite in evaluated.suites:
            for question, document in zip(suite.questions, suite.document_of, strict=True):
                if question.id == error.question_id:
                    raise UserError(
                        f"{suite.objective}: {suite.name}, document {document}: no recipe can answer it, because the "
                        f"engine refuses the question: {error.why}; change the task, gen_kwargs or workers.engine"
                    ) from None
        raise


def missing_blocks(sweep: Sweep, evaluated: Round) -> list[Block]:
    """List the questions of a round that have no answer yet, in blocks.

    Those of invalid recipes are left out; failed recipes are tried again.
    """
    invalid = known_invalid(sweep, evaluated.layout)
    recipe_ids = [recipe.id for recipe in evaluated.recipes if recipe.id not in invalid]
    return sweep.ledger.missing_of(recipe_ids, [suite.questions for suite in evaluated.suites], sweep.config.workers)


def _stored_texts(sweep: Sweep, evaluated: Round) -> Iterator[Answer]:
    """Yield the stored answers, where the round has generation tasks; otherwise the ledger is not read."""
    if generation_tasks(evaluated.suites):
        for recipe_id in sweep.ledger.ahead(recipe.id for recipe in evaluated.recipes):
            yield from sweep.ledger.answers(recipe_id).values()


@contextlib.contextmanager
def _logging(compute: Compute, log: Callable[[str], None]) -> Iterator[None]:
    """Send the pool's messages to `log` (the progress bar's) for as long as the context lasts."""
    compute.log = log
    try:
        yield
    finally:
        compute.log = say
