"""lm-eval's requests: by document, and what they carry beside it: what a prompt may lose, and what replies lose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
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


def group_by_document(instances: Sequence[Instance]) -> list[list[Instance]]:
    """Group requests by document, in the documents' order of appearance, each group in lm-eval's order."""
    found: dict[int, list[Instance]] = defaultdict(list)
    for instance in instances:
        found[instance.doc_id].append(instance)
    return [sorted(group, key=lambda instance: instance.idx) for group in found.values()]


THINK_END = "think_end_token"
"""The key, among the request's settings of generation, of the text that ends a reply's reasoning."""


def end_thinking(requests: Iterable[Instance], text: str) -> None:
    """Let the requests for generated text cut the reasoning that the text ends off their replies."""
    for request in requests:
        if request.request_type == "generate_until":
            context, settings = request.args
            request.arguments = (context, {**settings, THINK_END: text})


def think_end_of(request: Instance) -> str | None:
    """Return the text that ends the reasoning in a request's replies; None where they have none."""
    found: str | None = request.args[1].get(THINK_END)
    return found
