"""A tensor of a merged model that is merged where, and as far as, it is copied."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from tasks.merging.checkpoint import MergeRefused, refused

PIECE = {"cpu": 1 << 17, "cuda": 1 << 26}
"""Elements per piece, by the device that merges it, and per thread on a CPU: so few that its float32 buffers stay in a
core's own cache (CPU) or are small beside the weights (GPU)."""
SURE = 65504.0**2
"""Elements whose squares add up to less than this are finite in every dtype of a sweep; float16 ends first."""

Tensors = dict[Any, torch.Tensor]
"""mergekit's model reference → that parent's tensor."""
Parts = Sequence[torch.Tensor]
"""The inputs of a merge, or the same slice of each."""

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
    inputs: Parts
    merge: Callable[[Parts], torch.Tensor]
    near: Callable[[int, torch.Tensor], torch.Tensor]
    tally: Tally

    @staticmethod
    def __new__(
        cls,
        title: str,
        inputs: Parts,
        merge: Callable[[Parts], torch.Tensor],
        near: Callable[[int, torch.Tensor], torch.Tensor],
        dtype: torch.dtype,
        tally: Tally,
    ) -> Merged:
        """Make a tensor of the inputs' shape, without data of its own.

        Args:
            title: the tensor's name in the checkpoint (torch has its own use for `name`).
            inputs: the parents' tensors, all of one shape with at least one dimension.
            merge: for a slice of every input, that slice of the result: of the result's dtype, or still in float32 if
                rounding to that is the last that mergekit does.
            near: for the place of an input and (a shard of) it, the same in the memory where it is kept.
            dtype: the result's.
            tally: where to note what was done, and what failed.
        """
        self: Merged = torch.Tensor._make_wrapper_subclass(cls, inputs[0].shape, dtype=dtype)
        self.title, self.inputs, self.merge, self.near, self.tally = title, inputs, merge, near, tally
        return self

    def __repr__(self, **_: Any) -> str:
        return f"Merged({self.title}, {list(self.shape)}, {self.dtype})"

    def pour(self, target: torch.Tensor) -> None:
        """Merge into `target`, of the same shape; the tally notes what fails."""
        if target.is_meta:
            return  # vLLM counts what a copy would fill before it makes room for it
        sure: list[torch.Tensor] = []
        try:
            inputs = [self.near(place, tensor) for place, tensor in enumerate(self.inputs)]
            rows = max(1, _piece(target.device) // max(1, math.prod(self.shape[1:])))
            for start in range(0, self.shape[0], rows):
                part = slice(start, start + rows)
                piece = self.merge([tensor[part].to(target.device) for tensor in inputs])
                sure.append(_surely_finite(piece))
                # A copy rounds; what is loaded in another dtype than the recipe's is rounded to that first.
                target[part].copy_(piece if target.dtype == self.dtype else piece.to(self.dtype))
            self.tally.elements += target.numel()
            self.tally.read += sum(tensor.nbytes for tensor in self.inputs)
        except Exception as error:
            self.tally.failures.append(refused(error, f"{self.title}: "))
        # Looked at once, for the first look at a result on a GPU waits for all that was started there.
        if sure and not torch.stack(sure).all() and not is_finite(target):
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
            inputs = [function(tensor, *where) for tensor in me.inputs]
            return cls(me.title, inputs, me.merge, me.near, me.dtype, me.tally)
        args, kwargs = tree_map_only(cls, cls.whole, (args, kwargs or {}))
        return function(*args, **kwargs)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    return bool(_finiteness(tensor))


def _finiteness(tensor: torch.Tensor) -> torch.Tensor:
    """Compute whether no element is NaN or infinite: one element, where the tensor is."""
    low, high = tensor.aminmax()  # one pass and no copy; NaN comes through
    return low.isfinite() & high.isfinite()


def _surely_finite(piece: torch.Tensor) -> torch.Tensor:
    """Compute whether a piece proves to be finite, rounded to any dtype of a sweep: one element, where the piece is."""
    if piece.dtype != torch.float32:
        return _finiteness(piece)
    flat = piece.reshape(-1)
    return torch.dot(flat, flat) < SURE  # three times as fast; NaN and infinity come through


def _piece(device: torch.device) -> int:
    """Count the elements of a piece that this device merges."""
    return PIECE[device.type] * (torch.get_num_threads() if device.type == "cpu" else 1)
