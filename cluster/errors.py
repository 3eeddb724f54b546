"""What can go wrong in other processes, and how it is said here.

Ray pickles what an actor or a task raises, and replaces what cannot be pickled (pydantic's errors, for one) by words
about pickling. So everything of ours that runs in a Ray process is `portable`: what it raises arrives as a
`RemoteError`, with the whole message.
"""

from __future__ import annotations

import errno
import functools
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pydantic import ValidationError

from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from tasks.serving.engine import QuestionRefused

FULL = (errno.ENOSPC, errno.EDQUOT)
"""A disk is full, or its quota is."""
LONGEST = 2000
"""Most characters of a message; all of an error is in its traceback."""

Given = ParamSpec("Given")
Returned = TypeVar("Returned")


class EngineStartError(UserError):
    """There are no workers, and none can be started; `detail` is the whole error, for a file."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class TooLarge(Exception):
    """The block did not fit into the worker's memory; a smaller one may."""


class RemoteError(Exception):
    """An error of another process, as texts and numbers.

    Args:
        message: the class and the whole message of the error, and of those that caused it, on one line.
        detail: its traceback.
        is_final: the same would happen in another attempt.
        number: of an OSError, else None.
        filename: of an OSError; may be empty.
    """

    def __init__(
        self, message: str, detail: str = "", is_final: bool = False, number: int | None = None, filename: str = ""
    ) -> None:
        super().__init__(message, detail, is_final, number, filename)  # pickle makes it of these again
        self.message, self.detail, self.is_final, self.number, self.filename = self.args

    def __str__(self) -> str:
        return str(self.message)

    @classmethod
    def of(cls, error: BaseException, is_final: bool = False) -> RemoteError:
        """Describe an error; one that has crossed from a further process stays as it is."""
        error = cause_of(error)
        if isinstance(error, RemoteError):
            return error
        number, filename = (error.errno, error.filename) if isinstance(error, OSError) else (None, None)
        return cls(words(error), trace(error), is_final, number, str(filename or ""))


def portable(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """Make a function that runs in a Ray process raise what Ray can send, and nothing else."""

    @functools.wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        try:
            return function(*args, **kwargs)
        except (RemoteError, TooLarge, QuestionRefused):
            raise
        except (Exception, SystemExit) as error:  # Ray would take SystemExit for the wish to end the actor
            raise RemoteError.of(error) from None

    return call


def cause_of(error: BaseException) -> BaseException:
    """Find what was raised behind Ray's and Ray Train's errors about it."""
    if not any(each.__module__.startswith("ray.") for each in type(error).__mro__):
        return error
    failures = getattr(error, "worker_failures", None) or {}
    inner = (
        getattr(error, "cause", None)
        or getattr(error, "controller_failure", None)
        or next(iter(failures.values()), None)
    )
    return cause_of(inner) if isinstance(inner, BaseException) else error


def words(error: BaseException) -> str:
    """Say on one line what went wrong: the class and the message of an error, and of those that it was raised from."""
    said = _words(error)
    seen = {id(error)}
    while (error := error.__cause__) is not None and id(error) not in seen:  # type: ignore[assignment]
        seen.add(id(error))
        said += f", because of {_words(error)}"
    return said[:LONGEST]


def _words(error: BaseException) -> str:
    if isinstance(error, RemoteError):
        return str(error)
    if isinstance(error, ValidationError):  # its own text is a table over several lines, with the whole input
        problems = (f"{'.'.join(map(str, each['loc']))} {each['msg']}".strip() for each in error.errors())
        text = one_line("; ".join(problems), LONGEST)
    else:
        text = one_line("".join(traceback.format_exception_only(error)), LONGEST)
        text = text.removeprefix(f"{type(error).__module__}.").removeprefix(type(error).__qualname__).removeprefix(": ")
    said = [text] if isinstance(error, UserError) else [type(error).__name__, *([text] if text else [])]
    return _printable(": ".join(said))


def trace(error: BaseException) -> str:
    """Return an error's traceback, with those of the errors that it was raised from."""
    return _printable("".join(traceback.format_exception(error)))


def _printable(text: str) -> str:
    """Replace what no file can have: half a character (a lone surrogate)."""
    return text.encode("utf-8", "backslashreplace").decode()


def described(error: BaseException) -> RemoteError:
    """Say what one of Ray's errors is about."""
    from ray.exceptions import RayActorError  # here: the driver imports this module for every command

    cause = cause_of(error)
    if isinstance(cause, RemoteError):
        return cause
    if isinstance(error, RayActorError):
        # The indented lines name the actor; what happened to it comes after them.
        lines = [line for line in str(error).splitlines() if not line.startswith("\t")]
        return RemoteError(one_line(" ".join(lines), LONGEST), str(error))
    return RemoteError(words(cause), str(error))


def is_final(error: BaseException) -> bool:
    """Whether an engine that raised this at its start would raise it again: its settings do not go together.

    vLLM says that memory is lacking by a ValueError, too; there may be more of it in a while.
    """
    refusals = (UserError, ValueError, TypeError, NotImplementedError)
    refuses = isinstance(error, refusals) or any(each.__name__ == "VLLMClientError" for each in type(error).__mro__)
    return refuses and "memory" not in str(error).lower()
