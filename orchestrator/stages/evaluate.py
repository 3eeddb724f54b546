"""What the ledger does not know yet, evaluated: blocks of questions to the workers, their answers into the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from cluster.slerp_pairs import slerp_shares, unknown_shares
from cluster.text_metrics import unmeasured
from orchestrator.core.progress import Progress, say
from orchestrator.core.records import Answer, Block
from orchestrator.recipes.recipe import Recipe
from orchestrator.results.failures import read_failures
from orchestrator.stages.compute import Compute
from orchestrator.stages.open import Round, Sweep
from orchestrator.stages.record import invalid_context, recording
from tasks.evaluation.suites import generation_tasks


def evaluate(sweep: Sweep, evaluated: Round, compute: Compute) -> None:
    """Get the answers that a round lacks. Where it lacks none, nothing is started.

    Raises:
        UserError: no engine can be started, or a disk is full.
        StorageError: object storage was away for too long.
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
        if blocks:
            for result in compute.pool(len(blocks)).run(recipes, blocks, stop=compute.is_exhausted):
                record(result)


def missing_blocks(sweep: Sweep, evaluated: Round) -> list[Block]:
    """The questions of a round that have no answer yet. A recipe stays invalid under the serving, profile and mergekit
    that found it so; failed ones are tried again."""
    failures, now = read_failures(evaluated.layout), invalid_context(sweep)

    def is_invalid(recipe: Recipe) -> bool:
        failure = failures.get(recipe.id)
        return failure is not None and failure.status == "invalid" and failure.context == now

    recipe_ids = [recipe.id for recipe in evaluated.recipes if not is_invalid(recipe)]
    return sweep.ledger.missing_of(recipe_ids, [suite.questions for suite in evaluated.suites], sweep.config.workers)


def _stored_texts(sweep: Sweep, evaluated: Round) -> Iterator[Answer]:
    """Answers to generation tasks; the ledgers of sweeps without any are not read for it."""
    if generation_tasks(evaluated.suites):
        for recipe_id in sweep.ledger.ahead(recipe.id for recipe in evaluated.recipes):
            yield from sweep.ledger.answers(recipe_id).values()


@contextlib.contextmanager
def _logging(compute: Compute, log: Callable[[str], None]) -> Iterator[None]:
    """What happens to workers is said beside the progress bar while there is one."""
    compute.log = log
    try:
        yield
    finally:
        compute.log = say
