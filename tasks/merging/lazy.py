"""A tensor of a merged model that is merged where, and as far as, it is copied."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from tasks.merging.checkpoint import MergeRefused, refused

PIECE = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Elements per piece, by the device that merges it: large enough for all cores, small enough that its float32 buffers
stay in the last-level cache (CPU) or are small beside the weights (GPU)."""

Tensors = dict[Any, torch.Tensor]
"""mergekit's model reference → that parent's tensor."""
Merge = Callable[[Tensors], torch.Tensor]

aten = torch.ops.aten


@dataclass
class Tally:
    """What a merge did on this rank."""

    failures: list[Exception] = field(default_factory=list)
    elements: int = 0
    """Elements of the merged model that this rank computed."""
    read: int = 0
    """Bytes of the parents that it read for that, what it measured included."""


class Merged(torch.Tensor):  # type: ignore[misc]
    """A tensor that is merged when it, or a shard of it, is copied.

    vLLM's loaders narrow a tensor to the shard of their rank and copy that to its place. For a method that works
    element by element, narrowing the parents gives the same bytes. Any other operation first merges all of it.

    Nothing raises: an exception inside vLLM's loading would leave it with half a model. The tally has what failed.
    """

    title: str
    inputs: Tensors
    merge: Merge
    near: Callable[[Any, torch.Tensor], torch.Tensor]
    tally: Tally

    @staticmethod
    def __new__(
        cls,
        title: str,
        inputs: Tensors,
        merge: Merge,
        near: Callable[[Any, torch.Tensor], torch.Tensor],
        dtype: torch.dtype,
        tally: Tally,
    ) -> Merged:
        """Make a tensor of the inputs' shape, without data of its own.

        Args:
            title: the tensor's name in the checkpoint (torch has its own use for `name`).
            inputs: the parents' tensors, all of one shape with at least one dimension.
            merge: for a slice of every input, that slice of the result.
            near: for a model and (a shard of) its tensor, the same in the memory where it is kept.
            dtype: the result's.
            tally: where to note what was done, and what failed.
        """
        shape = next(iter(inputs.values())).shape
        self: Merged = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype)
        self.title, self.inputs, self.merge, self.near, self.tally = title, inputs, merge, near, tally
        return self

    def __repr__(self, **_: Any) -> str:
        return f"Merged({self.title}, {list(self.shape)}, {self.dtype})"

    def pour(self, target: torch.Tensor) -> None:
        """Merge into `target`, of the same shape; the tally notes what fails."""
        if target.is_meta:
            return  # vLLM counts what a copy would fill before it makes room for it
        finite: list[torch.Tensor] = []
        try:
            inputs = {model: self.near(model, tensor) for model, tensor in self.inputs.items()}
            rows = max(1, PIECE[target.device.type] // max(1, math.prod(self.shape[1:])))
            for start in range(0, self.shape[0], rows):
                part = slice(start, start + rows)
                piece = self.merge({model: tensor[part].to(target.device) for model, tensor in inputs.items()})
                finite.append(finiteness(piece))
                target[part].copy_(piece)
            self.tally.elements += target.numel()
            self.tally.read += sum(tensor.nbytes for tensor in self.inputs.values())
        except Exception as error:
            self.tally.failures.append(refused(error, f"{self.title}: "))
        # Looked at once, for the first look at a result on a GPU waits for all that was started there.
        if finite and not torch.stack(finite).all():
            self.tally.failures.append(MergeRefused(f"{self.title} has NaN or Inf"))

    def whole(self) -> torch.Tensor:
        """Merge all of it, and return it as a plain tensor."""
        result = torch.empty(self.shape, dtype=self.dtype)
        self.pour(result)
        return result

    @classmethod
    def __torch_dispatch__(cls, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is aten.copy_.default and isinstance(args[1], cls):
            args[1].pour(args[0])
            return args[0]
        if function in (aten.slice.Tensor, aten.detach.default):
            me, *where = args
            inputs = {model: function(tensor, *where) for model, tensor in me.inputs.items()}
            return cls(me.title, inputs, me.merge, me.near, me.dtype, me.tally)
        args, kwargs = tree_map_only(cls, cls.whole, (args, kwargs or {}))
        return function(*args, **kwargs)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(finiteness(tensor))


def finiteness(tensor: torch.Tensor) -> torch.Tensor:
    """Compute whether no element is NaN or infinite: one element, where the tensor is."""
    low, high = tensor.aminmax()  # one pass and no copy; NaN comes through
    return low.isfinite() & high.isfinite()
