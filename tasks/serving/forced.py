"""Teacher forcing in vLLM: a request writes the tokens that it is given, and vLLM says how probable each was.

vLLM scores the tokens of a prompt only with its prefix cache switched off for that prompt, and computes the logits of
the whole context for it. A continuation that is written instead shares its context with the other choices of its
question, and with all questions that start with the same few-shot examples.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from tasks.serving.vllm_requests import FORCED


class Forced(AdapterLogitsProcessor):  # type: ignore[misc]
    """Registered with the engine (`logits_processors`); touches only requests that carry tokens under `FORCED`."""

    def is_argmax_invariant(self) -> bool:
        """Return False: forcing a token changes which one is the most probable."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Any:
        """Return the function that forces a request's tokens; None for a request that carries none."""
        tokens: list[int] | None = (params.extra_args or {}).get(FORCED)
        if tokens is None:
            return None

        def force(output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
            # vLLM has taken the log-probabilities by now: they are of the logits as the model computed them.
            logits[tokens[min(len(output_ids), len(tokens) - 1)]] = torch.inf
            return logits

        return force
