"""The Ray actor with one engine for the whole sweep, on the GPU (or CPU share) that Ray gave it."""

from __future__ import annotations

import math
import os
import socket
import time
from pathlib import Path
from typing import Literal

import ray

from cluster.errors import FULL, LONGEST, RemoteError, TooLarge, is_final, portable, trace, words
from cluster.nodes import oom_kills
from cluster.pipeline import boot_of, open_stages
from cluster.spec import Place, WorkerSpec
from orchestrator.core.packages import check_packages
from orchestrator.core.records import Answered, Block, Failure
from orchestrator.core.text import one_line
from orchestrator.recipes.recipe import Recipe
from tasks.device import device_name
from tasks.merging.checkpoint import MergeRefused
from tasks.serving.backends import Opening, open_engine
from tasks.serving.boot import Boot
from tasks.serving.engine import Engine, Expected, InvalidWeights, QuestionRefused


class Worker:
    """One engine, and the recipe whose weights are loaded in it.

    Args:
        index: of its slot; it names its scratch folder.
    """

    def __init__(self, spec: WorkerSpec, index: int) -> None:
        self.spec = spec
        name = f"{socket.gethostname()}:{os.getpid()}"
        self.place = Place(ray.get_runtime_context().get_node_id(), name, os.getpid(), oom_kills())
        self.scratch = Path(spec.scratch) / str(index)
        self.loaded: str | None = None
        self.engine: Engine | None = None
        self.device = ""

    def where(self) -> Place:
        """Return the node and the process that Ray started this worker in."""
        return self.place

    @portable
    def start(self) -> None:
        """Start the engine.

        Raises:
            RemoteError: a parent is not available on this node, or is not what the driver resolved; or whatever vLLM
                raises when the model does not fit or the settings do not go together.
        """
        check_packages()
        own, keep = self.scratch / "stage-0", Path(self.spec.keep) if self.spec.keep else None
        try:
            self.engine = open_engine(Opening(self.spec.workers, self.spec.serving, lambda: self._boot(own), own, keep))
            self.device = device_name(self.spec.workers.gpus > 0)
        except Exception as error:
            raise RemoteError.of(error, is_final(error)) from None

    @portable  # here too, because bringing the files may go well at another time or on another node
    def _boot(self, scratch: Path) -> Boot:
        span = open_stages(self.spec, self.scratch)
        return boot_of(self.spec, scratch, span)

    @portable
    def evaluate(self, recipe: Recipe, block: Block, expected: Expected) -> Answered | Failure:
        """Load the recipe, if it is not loaded yet, and answer a block of questions.

        Args:
            expected: see `Engine.answer`.

        Raises:
            TooLarge: there was too little memory to answer.
            QuestionRefused: the engine refuses a question, whatever the recipe.
            RemoteError: a disk is full, which is no fault of the block and would meet the next one too.
        """
        assert self.engine is not None, "start() comes first"
        stage: Literal["merge", "answer"] = "merge"
        try:
            swapped = 0.0
            if self.loaded != recipe.id:
                self.loaded = None
                start = time.perf_counter()
                self.engine.load(recipe)
                self.loaded, swapped = recipe.id, time.perf_counter() - start
            stage = "answer"
            start = time.perf_counter()
            answers = self.engine.answer(block.questions, expected)
            spent = time.perf_counter() - start
            if any(answer.logprob is not None and math.isnan(answer.logprob) for answer in answers):
                raise InvalidWeights("the model's log-probabilities are NaN: it overflows in this dtype")
            drafted = self.engine.drafted()
            return Answered(block, tuple(answers), swapped, spent, self.place.name, self.device, drafted)
        except (MergeRefused, InvalidWeights) as error:
            return Failure(recipe.id, "invalid", stage, one_line(error, LONGEST), trace(error))
        except QuestionRefused:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            # A worker must survive what one recipe does to it; the pool decides where it is tried again.
            if stage == "answer" and is_memory(error):
                raise TooLarge(words(error)) from None
            return Failure(recipe.id, "failed", stage, words(error), trace(error))


def is_memory(error: Exception) -> bool:
    """Whether the memory ran out: Python's error, PyTorch's (which vLLM wraps in others), or a CUDA library's."""
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()
