"""Errors as libraries raise them, planted in Ray processes: what pickles badly, has many lines or ends the process."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import Any

import ray
from pydantic import TypeAdapter
from ray.train import WorkerGroupError

from cluster.errors import portable
from orchestrator.core.errors import UserError


class Unpicklable(Exception):
    """An error that has something which cannot be sent."""

    def __init__(self) -> None:
        super().__init__("the lock is held", threading.Lock())


class Demanding(Exception):
    """An error that pickle cannot make again."""

    def __init__(self, first: str, *, second: str) -> None:
        super().__init__(f"{first} and {second}")


class Mute(Exception):
    """An error whose text raises."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def chained() -> None:
    try:
        raise KeyError("lm_head.weight")
    except KeyError as error:
        raise RuntimeError("Engine core initialization failed") from error


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


PLANTED: dict[str, tuple[Callable[[], Any], str]] = {
    "pydantic": (
        lambda: TypeAdapter(dict[str, int]).validate_python({"max_model_len": "x"}),
        "ValidationError: max_model_len Input should be a valid integer, unable to parse string as an integer",
    ),
    "unpicklable": (lambda: raising(Unpicklable())(), "Unpicklable: ('the lock is held', <unlocked"),
    "demanding": (lambda: raising(Demanding("one", second="two"))(), "Demanding: one and two"),
    "lines": (raising(ValueError("the first\n  the second\nthe third")), "ValueError: the first the second the third"),
    "letters": (raising(ValueError("Ärzte: „größer“ 数")), "ValueError: Ärzte: „größer“ 数"),
    "surrogate": (raising(ValueError("half \ud83d")), r"ValueError: half \ud83d"),
    "chained": (chained, "RuntimeError: Engine core initialization failed, because of KeyError: 'lm_head.weight'"),
    "exit": (raising(SystemExit("no such flag")), "SystemExit: no such flag"),
    "no words": (raising(AssertionError()), "AssertionError"),
    "mute": (lambda: raising(Mute())(), "Mute: <exception str() failed>"),
    "ours": (raising(UserError("parents.a: no such folder")), "parents.a: no such folder"),
    "disk": (raising(OSError(errno.ENOSPC, "No space left on device", "/x")), "OSError: [Errno 28] No space left"),
    "training": (
        raising(WorkerGroupError("a table", {0: RuntimeError("out of luck")})),
        "RuntimeError: out of luck",
    ),
}
"""Name → what raises, and how its message starts where it arrives."""


class Raising:
    """An actor whose methods raise, as a worker's engine does."""

    @portable
    def fail(self, name: str) -> None:
        """Raise what was planted under a name."""
        PLANTED[name][0]()

    @portable
    def pass_on(self, other: Any, name: str) -> None:
        """Have another actor raise, so that the error crosses twice."""
        ray.get(other.fail.remote(name))
