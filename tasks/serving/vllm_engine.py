"""One vLLM engine for a whole sweep: its weights are replaced in place, recipe after recipe.

`load(recipe)` merges straight into the running engine (`tasks.merging.live`, `tasks.serving.weights`), or, where
checkpoints are kept, by way of a checkpoint folder; `answer(questions)` generates and scores.

torch is imported with this module; vLLM only when an engine starts, because `prepare` has to come before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.core.records import Answer, Question, Serving
from orchestrator.recipes.recipe import Recipe
from tasks.merging.checkpoint import adapted, with_tokenizer
from tasks.merging.live import write_checkpoint
from tasks.serving.boot import Boot, prepare
from tasks.serving.engine import InvalidWeights, QuestionRefused
from tasks.serving.vllm_requests import Request, refusal, to_requests


class VllmEngine:
    """An engine that runs in this process (and in the ranks and stages that it starts).

    Args:
        boot: what vLLM starts with.
        scratch: folder of this worker alone, for parents with an adapter merged in.
        keep: folder to keep merged checkpoints in, or None to write none. The nodes of an engine's stages share it.
    """

    def __init__(self, boot: Boot, serving: Serving, scratch: Path, keep: Path | None = None) -> None:
        prepare(boot.workers)
        from vllm import LLM

        self.serving, self.scratch, self.keep, self.tokenizer = serving, scratch, keep, boot.tokenizer
        self.llm = LLM(**boot.arguments)
        self.llm.collective_rpc("open_parents", args=(str(scratch), boot.place))

    def load(self, recipe: Recipe) -> None:
        """Merge a recipe, and load its weights.

        Raises:
            InvalidWeights: mergekit refuses the recipe, or the merged tensors are not those of the model or not finite.
            MergeRefused: mergekit refuses the recipe, where checkpoints are kept.
            Exception: whatever else goes wrong: a full disk, a lack of memory, a parent that cannot be read.
        """
        if self.keep is None:
            # Here, and not in the ranks: see `merged_folder`.
            self._swap("merge", adapted(recipe, self.scratch))
        else:
            here = with_tokenizer(recipe, self.tokenizer)
            self.load_checkpoint(write_checkpoint(here, self.keep / recipe.id, self.scratch))
        self.llm.collective_rpc("suppress", args=(recipe.missing,))

    def load_checkpoint(self, folder: Path) -> None:
        """Load a checkpoint's weights into the running engine.

        Raises:
            InvalidWeights: its tensors are not those of the model, or not finite.
        """
        self._swap("load_checkpoint", str(folder))

    def checksums(self) -> list[dict[str, str]]:
        """Return the checksums of the loaded weights, a dictionary for each rank.

        See `tasks.serving.weights.Weights.checksums`.
        """
        return list(self.llm.collective_rpc("checksums"))

    def _swap(self, method: str, argument: object) -> None:
        for problems in self.llm.collective_rpc(method, args=(argument,)):
            if problems:
                more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
                raise InvalidWeights("; ".join(problems[:5]) + more)
        self._forget()

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Generate or score with the loaded recipe; the answers are in the order of the questions.

        They depend on the questions of this call, and on no earlier one: the prefix cache starts empty.

        Raises:
            QuestionRefused: vLLM refuses one of them.
        """
        self._forget()
        requests = to_requests(questions, self.serving)
        try:
            outputs = self.llm.generate(
                [{"prompt_token_ids": request.prompt} for request in requests],
                [request.sampling for request in requests],
                use_tqdm=False,
            )
        except refusal():  # it does not say which, and has taken back those that it had accepted
            for request in requests:
                self._try(request)
            raise
        found: dict[str, Answer] = {}
        for request, output in zip(requests, outputs, strict=True):
            found.update({answer.question_id: answer for answer in request.read(output)})
        return [found[question.id] for question in questions]

    def _try(self, request: Request) -> None:
        """Have vLLM accept a request, and take it back.

        Raises:
            QuestionRefused: it does not.
        """
        try:
            accepted = self.llm.enqueue([{"prompt_token_ids": request.prompt}], [request.sampling], use_tqdm=False)
        except refusal() as error:
            raise QuestionRefused(request.question_id, str(error)) from error
        self.llm.llm_engine.abort_request(accepted, internal=True)

    def _forget(self) -> None:
        """Empty the prefix cache; it is not keyed by the weights and would mix the answers of two recipes."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache: requests are still running in this engine")
