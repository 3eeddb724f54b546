"""A request of lm-eval's that marks the part of its prompt that may be shortened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from lm_eval.api.instance import Instance

Edge = Literal["left", "right"]


class Cut(NamedTuple):
    """What a prompt loses where it is too long for the model's context."""

    part: str
    """Text that is in the prompt word for word; the rest of the prompt is never shortened."""
    side: Edge
    """The side of the part from which characters are taken."""

    def kept(self, count: int) -> str:
        """Return the part with `count` of its characters left."""
        return self.part[len(self.part) - count :] if self.side == "left" else self.part[:count]


@dataclass(kw_only=True)
class CuttableInstance(Instance):  # type: ignore[misc]
    """lm-eval's instance, with the part of its prompt that may be shortened.

    A plain instance's prompt loses its beginning, as in lm-eval.
    """

    cut: Cut


def cut_of(request: Instance) -> Cut | None:
    """Return the part of a request's prompt that may be shortened; None for a request of lm-eval's own tasks."""
    return request.cut if isinstance(request, CuttableInstance) else None
