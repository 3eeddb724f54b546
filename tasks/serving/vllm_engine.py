"""One vLLM engine for a whole sweep: its weights are replaced in place, recipe after recipe.

`load(recipe)` merges straight into the running engine (`tasks.merging.live`, `tasks.serving.weights`), or, where
checkpoints are kept, by way of a checkpoint folder; `answer(questions)` generates and scores.

torch is imported with this module; vLLM only when an engine starts, because `prepare` has to come before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from orchestrator.core.records import Answer, Drafted, Question, Serving
from orchestrator.recipes.recipe import Recipe
from tasks.merging.checkpoint import adapted, with_tokenizer
from tasks.merging.live import write_checkpoint
from tasks.serving.boot import Boot, prepare
from tasks.serving.engine import Expected, InvalidWeights, QuestionRefused
from tasks.serving.scoring import Scores
from tasks.serving.suffixes import TOKEN_BYTES, packed
from tasks.serving.vllm_requests import Kind, Request, refusal, to_requests


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
        self.drafts, self.measure = boot.drafts, boot.workers.engine.drafts == "auto"
        self._drafted: Drafted | None = None
        self.llm = LLM(**boot.arguments)
        self.llm.collective_rpc("open_parents", args=(str(scratch), boot.place))
        self.llm.collective_rpc("open_scoring")

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

    def answer(self, questions: Sequence[Question], expected: Expected = MappingProxyType({})) -> list[Answer]:
        """Generate or score with the loaded recipe; the answers are in the order of the questions.

        They depend on the questions of this call, and on no earlier one: the prefix cache starts empty.

        Raises:
            QuestionRefused: vLLM refuses one of them.
        """
        self._forget()
        self._drafted = Drafted(0, 0) if self.drafts else None
        requests, found = to_requests(questions, self.serving), dict[str, Answer]()
        for kind in dict.fromkeys(request.kind for request in requests):
            some = [request for request in requests if request.kind == kind]
            if kind == Kind.SCORED:
                outputs, scores = self._score(some)
            elif kind == Kind.GREEDY and self.drafts:
                outputs, scores = self._draft(some, self._texts(questions, expected)), {}
            else:
                outputs, scores = self._generate(some), {}
            for request, output in zip(some, outputs, strict=True):
                found |= {answer.question_id: answer for answer in request.read(output, scores)}
        return [found[question.id] for question in questions]

    def drafted(self) -> Drafted | None:
        """Return what drafts did for the last `answer`; None for an engine without them."""
        return self._drafted

    def _score(self, requests: list[Request]) -> tuple[list[Any], Scores]:
        scores: Scores = {}
        self.llm.collective_rpc("begin_scoring")
        try:
            outputs = self._generate(requests)
        finally:
            for each in self.llm.collective_rpc("end_scoring"):
                scores |= each
        return outputs, scores

    def _draft(self, requests: list[Request], texts: dict[bytes, list[bytes]]) -> list[Any]:
        """Generate with drafts; the requests are sorted first, so that no long text is left for the end."""

        def length(request: Request) -> int:
            known = [len(text) // TOKEN_BYTES for text in texts[packed(request.prompt)]]
            return max(known, default=int(request.sampling.max_tokens))

        requests.sort(key=length, reverse=True)
        self.llm.collective_rpc("begin_drafting", args=(texts, self.measure))
        try:
            return self._generate(requests)
        finally:
            self._drafted = self.llm.collective_rpc("end_drafting")[0]

    def _texts(self, questions: Sequence[Question], expected: Expected) -> dict[bytes, list[bytes]]:
        """Return prompt → texts that its answer is expected to be like, as tokens."""
        tokenizer, texts = self.llm.get_tokenizer(), dict[bytes, list[bytes]]()
        for question in questions:
            tokens = [tokenizer.encode(text, add_special_tokens=False) for text in expected.get(question.id, ())]
            texts.setdefault(packed(question.context), []).extend(map(packed, tokens))
        return texts

    def _generate(self, requests: list[Request]) -> list[Any]:
        """Run requests of one kind; returns vLLM's RequestOutputs."""
        try:
            outputs: list[Any] = self.llm.generate(
                [{"prompt_token_ids": request.prompt} for request in requests],
                [request.sampling for request in requests],
                use_tqdm=False,
            )
        except refusal():  # it does not say which, and has taken back those that it had accepted
            for request in requests:
                self._try(request)
            raise
        return outputs

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
