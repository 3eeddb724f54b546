"""Speculative decoding in vLLM, with drafts from what other recipes wrote to the same prompt.

The recipes of one pair write nearly the same text, and the ledger has the parents' answers to every prompt. vLLM checks
a whole draft in one step, which takes hardly longer than the step of one token where reading the weights is what takes
the time. A greedy text is the one that would be written without drafts, except for near ties that the shape of a batch
decides; in float32 there are none in practice. Sampled texts get no drafts, since vLLM would draw other random numbers.

Where a step is bound by computation (large batches), drafts cost more than they save. So each engine times both ways
for each size of its batch, and keeps the faster (`Pace`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.config.backends import BACKENDS
from orchestrator.config.workers import Workers
from orchestrator.core.records import Drafted
from tasks.serving.suffixes import LONGEST, Alike, draft, longest

MOST = LONGEST - 1
"""Most tokens of a draft."""
TURN, TURNS = 8, 4
"""Steps in a row with drafts and then without them, and how often each has its turn before the faster is chosen."""


def has_drafts(workers: Workers) -> bool:
    """Whether the engines write greedy texts with drafts."""
    engine = workers.engine
    return bool(engine.drafts) and BACKENDS[workers.backend].loads_weights and engine.pipeline_parallel_size == 1


class Drafts:
    """The part of the worker extension that concerns drafts."""

    def begin_drafting(self, expected: Mapping[bytes, Sequence[bytes]], measure: bool) -> None:
        """Draft from now on; see `Drafter.begin`."""
        runner = self.model_runner  # type: ignore[attr-defined]
        runner.drafter.begin(expected, runner.input_batch, measure)

    def end_drafting(self) -> Drafted:
        """Draft no more; returns what came of it."""
        found: Drafted = self.model_runner.drafter.end()  # type: ignore[attr-defined]
        return found


class Drafter:
    """The proposer that vLLM starts (`speculative_config: {method: custom_class}`).

    Args:
        config: vLLM's VllmConfig.
    """

    def __init__(self, config: Any) -> None:
        self.pace = Pace()
        self._expected: Mapping[bytes, Sequence[bytes]] = {}
        self._batch: Any = None
        self._writing: dict[str, Writing] = {}
        self._measure = self._on = True
        self._tokens = self._steps = 0

    def load_model(self, model: Any) -> None:
        """Load nothing; vLLM calls this once it has loaded its own model."""

    def begin(self, expected: Mapping[bytes, Sequence[bytes]], batch: Any, measure: bool) -> None:
        """Draft from now on; all requests that run are for greedy texts.

        Args:
            expected: prompt → texts that its answer is expected to be like, both `packed`.
            batch: vLLM's InputBatch, whose rows are the requests.
            measure: whether to write without drafts where that is faster.
        """
        self._expected, self._batch, self._measure = expected, batch, measure
        self._writing, self._tokens, self._steps = {}, 0, 0
        self.pace.pause()

    def end(self) -> Drafted:
        """Draft no more; returns what came of it."""
        self._expected, self._batch, self._writing = {}, None, {}
        return Drafted(self._tokens, self._steps, self.pace.off_above)

    def propose(
        self, sampled_token_ids: list[list[int]], num_tokens_no_spec: np.ndarray, token_ids_cpu: np.ndarray, **_: Any
    ) -> list[list[int]]:
        """Propose the next tokens of each request; vLLM calls this after each step.

        Args:
            sampled_token_ids: the step's tokens of each request; none where its prompt is still being read.
            num_tokens_no_spec: number of tokens of each request, those included; shape (requests,).
            token_ids_cpu: the tokens of each request, int32, shape (requests, max_model_len).

        Returns:
            A draft for each request, empty where there is none.
        """
        if self._batch is None:
            return [[] for _ in sampled_token_ids]
        names = self._batch.req_ids[: len(sampled_token_ids)]
        begins = any(name not in self._writing for name in names)
        for row, name in enumerate(names):
            if name not in self._writing:
                self._writing[name] = self._open(token_ids_cpu[row, : self._batch.num_prompt_tokens[row]])
        if self._on and not begins:
            self._tokens += sum(map(len, sampled_token_ids))
            self._steps += len(names)
        on = self.pace.step(len(names), sum(map(len, sampled_token_ids)), begins)
        self._on = on or not self._measure
        if not self._on:
            return [[] for _ in sampled_token_ids]
        return [
            self._writing[name].draft(token_ids_cpu[row, : num_tokens_no_spec[row]]) if sampled_token_ids[row] else []
            for row, name in enumerate(names)
        ]

    def _open(self, prompt: np.ndarray) -> Writing:
        texts = self._expected.get(prompt.tobytes(), ())
        return Writing(len(prompt), [Alike(text) for text in texts])


@dataclass
class Writing:
    """A request that is being answered."""

    prompt: int
    """Number of its prompt's tokens."""
    alike: list[Alike]

    def draft(self, tokens: np.ndarray) -> list[int]:
        """Guess what comes next.

        Args:
            tokens: of the prompt and the text so far, int32.
        """
        written, text = tokens[self.prompt :].tobytes(), tokens.tobytes()
        for each in self.alike:
            each.follow(written)
        best = max(self.alike, key=lambda each: each.shared, default=None)
        # The prompt and the text themselves: they are quoted, and small models repeat them.
        place, shared = longest(text, text, end=len(tokens) - 1)
        if best is None or shared >= best.shared:
            return draft(text, place, shared)
        return draft(best.text, best.next, best.shared)


class Pace:
    """Whether drafts make an engine faster, by the size of its batch.

    Sizes are taken together up to each power of two. For each, both ways have their turns, and the one that wrote more
    tokens a second is kept.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._timed: dict[int, dict[bool, Timed]] = {}
        self._on = True
        self._since: float | None = None

    @property
    def off_above(self) -> int | None:
        """The largest size of a batch below the first at which drafts are slower; None where they are nowhere."""
        slower = [size for size, timed in self._timed.items() if _is_known(timed) and not _helps(timed)]
        return min(slower) // 2 if slower else None

    def pause(self) -> None:
        """Note that the time until the next step is no step's."""
        self._since = None

    def step(self, size: int, tokens: int, begins: bool) -> bool:
        """Note a step that has ended now.

        Args:
            size: number of requests in it.
            tokens: number of tokens that they wrote.
            begins: whether it read a prompt, which takes longer.

        Returns:
            Whether the next step is to have drafts.
        """
        now, since = self._clock(), self._since
        timed = self._timed.setdefault(1 << (size - 1).bit_length() if size else 0, {True: Timed(), False: Timed()})
        if since is not None and not begins:
            timed[self._on].add(tokens, now - since)
        self._since, self._on = now, _helps(timed) if _is_known(timed) else _turn(timed)
        return self._on


@dataclass
class Timed:
    """Steps of one kind."""

    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Add a step."""
        self.steps, self.tokens, self.seconds = self.steps + 1, self.tokens + tokens, self.seconds + seconds


def _is_known(timed: Mapping[bool, Timed]) -> bool:
    return min(each.steps for each in timed.values()) >= TURN * TURNS


def _helps(timed: Mapping[bool, Timed]) -> bool:
    return timed[True].tokens * timed[False].seconds >= timed[False].tokens * timed[True].seconds


def _turn(timed: Mapping[bool, Timed]) -> bool:
    """Whose turn it is."""
    return sum(each.steps for each in timed.values()) // TURN % 2 == 0
