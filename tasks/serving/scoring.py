"""Scoring in vLLM: the log-probabilities of given tokens, read off the logits as the model computes them.

vLLM's own ways lack something here. It scores the tokens of a prompt only with its prefix cache switched off for that
prompt, and with the logits of the whole context; and an engine that drafts (`tasks.serving.drafts`) returns no
log-probabilities of given tokens and takes no logits processors. So a request names the tokens that it wants scored at
each place of its text, and those that it has to write there. Choices share their context, and with it the prefix cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

SCORED = "scored"
"""The key in a request's `extra_args` of what is to be scored; see `Wanted`."""


@dataclass(frozen=True)
class Wanted:
    """What a request has scored, as `extra_args` have it."""

    key: str
    """Unlike that of any other request of the call."""
    tokens: list[list[int]]
    """At each place of its text the tokens whose log-probability is wanted."""
    forced: list[int]
    """The token that is written at each place; empty for the most probable."""


Scores = dict[str, list[list[tuple[float, bool]]]]
"""Key → at each place of the text, each wanted token's log-probability, and whether no token is more probable."""


class Scoring:
    """The part of the worker extension that scores."""

    def open_scoring(self) -> None:
        """Watch the logits; called once, after `Weights.open_parents`, whose changes to the logits come first."""
        from vllm.model_executor.layers.logits_processor import LogitsProcessor

        self._scores: Scores | None = None
        for module in self.model_runner.get_model().modules():  # type: ignore[attr-defined]
            if isinstance(module, LogitsProcessor):
                module.register_forward_hook(self._score)

    def begin_scoring(self) -> None:
        """Score requests from now on; all that run must have their `SCORED`."""
        self._scores = {}

    def end_scoring(self) -> Scores:
        """Return what was scored since `begin_scoring`; nothing on a rank that has no logits."""
        scores, self._scores = self._scores or {}, None
        return scores

    def _score(self, _: torch.nn.Module, __: object, logits: torch.Tensor | None) -> torch.Tensor | None:
        """Score what is wanted of a step's logits, shape (requests, tokens), and force what is to be written.

        Raises:
            RuntimeError: vLLM has computed others too.
        """
        if logits is None or self._scores is None:
            return logits
        runner = self.model_runner  # type: ignore[attr-defined]
        batch, ends = runner.input_batch, runner.query_start_loc.np
        if len(logits) != len(batch.req_ids):
            raise RuntimeError(f"vLLM computed {len(logits)} rows of logits for {len(batch.req_ids)} requests")
        rows, places, wanted = [], [], []
        for row, name in enumerate(batch.req_ids):
            read = int(batch.num_computed_tokens_cpu[row] + ends[row + 1] - ends[row])
            place = read - int(batch.num_prompt_tokens[row])
            if place >= 0:  # below: a part of a prompt, after which vLLM samples for nothing
                rows.append(row)
                places.append(place)
                wanted.append(Wanted(**runner.requests[name].sampling_params.extra_args[SCORED]))
        logprobs = logits[rows].log_softmax(-1, dtype=torch.float32)
        tops = logprobs.argmax(-1).tolist()
        for number, (row, place, each) in enumerate(zip(rows, places, wanted, strict=True)):
            ids = each.tokens[place]
            values = logprobs[number, ids].tolist()
            found = [(value, token == tops[number]) for token, value in zip(ids, values, strict=True)]
            self._scores.setdefault(each.key, [[] for _ in each.tokens])[place] = found
            if each.forced:
                logits[row, each.forced[place]] = torch.inf
        return logits
