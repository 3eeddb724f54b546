"""The methods that add task vectors (differences from a base model) of which only some elements are kept.

Which elements are kept, and by how much the rest is scaled up for it, depends on the base, on a model and on its
density, not on the weights: it is measured of whole tensors, once, and kept as a bit for each element. With that the
methods work element by element.

mergekit defines what is kept, and this gives the same: among differences of equal size, of which bfloat16 has many, its
choice is whatever order torch's sort leaves them in. So where such a tie is cut, the whole tensor is sorted as mergekit
does it, without the copies; where none is, counting is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tasks.merging.lazy import Tensors

PIECE = 1 << 20
"""Elements whose differences are computed at a time."""
SCALE_BYTES = 8
"""A float64 behind the bits of a measured row."""
LEAST_NORM = 1e-7
"""mergekit does not scale a tensor whose norm, with all or with the kept elements, is below this."""
Cast = Callable[[Tensors], Tensors]
Merge = Callable[[Tensors], torch.Tensor]


@dataclass(frozen=True)
class Difference:
    """A model's difference from the base, and how mergekit's method makes it sparse."""

    base: Any
    model: Any
    """mergekit's references."""
    kind: str | None
    """mergekit's name of how elements are chosen; None where all are kept."""
    density: float
    gamma: float
    """Share of the largest elements that `magnitude_outliers` leaves out."""
    epsilon: float
    """Spread of the probabilities of `della_magprune`."""
    rescale: bool
    """Whether the kept elements are scaled to the sum of magnitudes that all had."""

    @property
    def draws(self) -> bool:
        """Whether elements are drawn from torch's global random state."""
        return self.kind in ("random", "della_magprune")

    @property
    def is_whole(self) -> bool:
        """Whether every element is kept."""
        return self.kind is None or self.density >= 1

    @property
    def is_nothing(self) -> bool:
        """Whether mergekit puts zeros in its place, without looking at it."""
        return self.kind in ("magnitude", "della_magprune") and self.density <= 0

    @property
    def is_measured(self) -> bool:
        """Whether what is kept has to be measured."""
        return not (self.is_whole or self.is_nothing)

    def work_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype that mergekit masks and scales a difference of some dtype in, on a CPU."""
        return torch.float32 if self.draws and dtype != torch.bfloat16 else dtype

    def thin(self, delta: torch.Tensor, kept: torch.Tensor, scale: torch.Tensor) -> None:
        """Make a slice of the difference sparse, in place.

        Args:
            delta: the slice.
            kept: booleans of its shape.
            scale: one float64.
        """
        work = self.work_dtype(delta.dtype)
        masked = delta.to(work) * kept  # not masked_fill: what is dropped keeps its sign, as mergekit's zeros do
        delta.copy_(masked.mul_(scale.to(work)) if self.rescale else masked)


@dataclass(frozen=True)
class Kept:
    """The key of the booleans of a model among a form's inputs."""

    model: Any


def differences(task: Any) -> list[Difference]:
    """List the differences that a task adds, in mergekit's order."""
    kind = _method(task).sparsification_method
    found = []
    for model in task.model_order:
        if model != task.base_model:
            own = dict(task.input_parameters[model].items())
            amounts = (own["density"], own.get("gamma", 0), own.get("epsilon", 0))
            rescale = bool(task.parameters["rescale"])
            found.append(Difference(task.base_model, model, kind and str(kind.value), *amounts, rescale))
    return found


def measured_together(task: Any) -> list[tuple[Difference, ...]]:
    """Group the differences that have to be measured: a random choice follows on those before it."""
    measured = [difference for difference in differences(task) if difference.is_measured]
    if any(difference.draws for difference in measured):
        return [tuple(measured)]
    return [(difference,) for difference in measured]


def measure(group: Sequence[Difference], tensors: Tensors, cast: Cast) -> torch.Tensor:
    """Choose the elements that are kept of whole tensors.

    Args:
        group: the differences.
        tensors: the models', on the CPU.
        cast: makes slices of them those that mergekit merges.

    Returns:
        uint8 of shape (differences, bytes): a bit for each element, the first in the highest, and the scale.

    Raises:
        ValueError: mergekit refuses the parameters, in its own words.
    """
    rows = []
    for difference in group:
        pair = {model: tensors[model] for model in (difference.base, difference.model)}
        kept = _drawn(difference, pair, cast) if difference.draws else _ranked(difference, pair, cast)
        scale = _scale(difference, pair, cast, kept) if difference.rescale else torch.ones((), dtype=torch.float64)
        bits = torch.from_numpy(np.packbits(kept.reshape(-1).numpy()))
        rows.append(torch.cat([bits, scale.reshape(1).view(torch.uint8)]))
    return torch.stack(rows)


def kept_elements(task: Any, measured: Sequence[torch.Tensor], shape: torch.Size) -> Tensors:
    """Return the booleans of each difference that was measured.

    Args:
        task: mergekit's task for the tensor.
        measured: what `measure` returned for each group of `measured_together`.
        shape: the tensor's.
    """
    found: Tensors = {}
    for difference, row in _rows(task, measured):
        bits = np.unpackbits(row[:-SCALE_BYTES].numpy(), count=shape.numel())
        found[Kept(difference.model)] = torch.from_numpy(bits).view(torch.bool).view(shape)
    return found


def merge_differences(task: Any, measured: Sequence[torch.Tensor]) -> Merge:
    """Return mergekit's arithmetic for a slice of the models' tensors and of `kept_elements`.

    Args:
        task: mergekit's task for the tensor.
        measured: what `measure` returned for each group of `measured_together`.
    """
    from mergekit.merge_methods.generalized_task_arithmetic import get_mask

    method, parameters, added = _method(task), dict(task.parameters.items()), differences(task)
    weights = [task.input_parameters[difference.model]["weight"] for difference in added]
    scales = {each.model: row[-SCALE_BYTES:].clone().view(torch.float64) for each, row in _rows(task, measured)}

    def merge(parts: Tensors) -> torch.Tensor:
        base = parts[task.base_model]
        deltas = base.new_empty((len(added), *base.shape))
        for delta, difference in zip(deltas, added, strict=True):
            torch.sub(parts[difference.model], base, out=delta)
            if difference.is_nothing:
                delta.zero_()
            elif difference.is_measured:
                model = difference.model
                difference.thin(delta, parts[Kept(model)], scales[model].to(base.device))
        factors = torch.tensor(weights, dtype=base.dtype, device=base.device).view(-1, *[1] * base.dim())
        deltas.mul_(factors)
        if method.consensus_method:
            mask_dtype = torch.int8 if parameters["int8_mask"] else base.dtype
            agrees = get_mask(deltas, method=method.consensus_method, mask_dtype=mask_dtype)
            mixed, divisor = deltas.mul_(agrees).sum(dim=0), (factors * agrees).sum(dim=0)
            divisor[divisor == 0] = 1
        else:
            mixed, divisor = deltas.sum(dim=0), factors.sum(dim=0)
            divisor[divisor.abs() < 1e-8] = 1
        if parameters["normalize"]:
            mixed /= divisor
        if parameters["lambda"] != 1:
            mixed *= parameters["lambda"]
        return mixed.add_(base)

    return merge


def _method(task: Any) -> Any:
    from mergekit import merge_methods

    return merge_methods.get(task.method_name)


def _rows(task: Any, measured: Sequence[torch.Tensor]) -> Iterator[tuple[Difference, torch.Tensor]]:
    """Yield each difference that was measured with its row."""
    for group, rows in zip(measured_together(task), measured, strict=True):
        yield from zip(group, rows, strict=True)


def _pieces(difference: Difference, pair: Tensors, cast: Cast, *, flat: bool) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield slices of the first dimension, all of it where that has to be, with the difference there.

    Args:
        pair: the base's tensor and the model's.
        flat: whether the tensors are taken as flat ones.
    """
    pair = {model: tensor.reshape(-1) for model, tensor in pair.items()} if flat else pair
    length, width = len(pair[difference.base]), pair[difference.base][:1].numel()
    rows = max(1, PIECE // max(1, width))
    for start in range(0, length, rows):
        part = slice(start, min(start + rows, length))
        cut = cast({model: tensor[part] for model, tensor in pair.items()})
        yield part, cut[difference.model] - cut[difference.base]


def _drawn(difference: Difference, pair: Tensors, cast: Cast) -> torch.Tensor:
    """Draw the kept elements as mergekit does, by its own functions, some rows at a time.

    They draw in the order of the elements, and rank elements within a row. A row that is the whole tensor stays whole.
    """
    from mergekit.sparsify import SparsificationMethod, sparsify

    kept = torch.empty(pair[difference.base].shape, dtype=torch.bool)
    method, amounts = SparsificationMethod(difference.kind), (difference.gamma, difference.epsilon)
    if kept.dim() == 1:
        pair, kept = {model: tensor[None] for model, tensor in pair.items()}, kept[None]
    for part, delta in _pieces(difference, pair, cast, flat=False):
        # A difference of zero stays zero, kept or not.
        kept[part] = sparsify(delta, difference.density, method, *amounts) != 0
    return kept


def _ranked(difference: Difference, pair: Tensors, cast: Cast) -> torch.Tensor:
    """Choose the elements by the rank of their magnitude."""
    size = pair[difference.base].numel()
    magnitudes = torch.empty(size, dtype=torch.float32)
    for part, delta in _pieces(difference, pair, cast, flat=True):
        magnitudes[part] = delta.abs_()
    target = int(difference.density * size)
    if difference.kind == "magnitude":
        return between_ranks(magnitudes, 0, max(1, target), descending=True)
    first = max(0, size - target - int(difference.gamma * size))
    return between_ranks(magnitudes, first, first + target, descending=False)


def between_ranks(magnitudes: torch.Tensor, start: int, stop: int, *, descending: bool) -> torch.Tensor:
    """Choose the elements that torch's sort puts at the places from `start` to `stop`; zeros may be chosen or not.

    Args:
        magnitudes: float32 of shape (elements,), none below 0; may be overwritten.
        start: the first place.
        stop: the place behind the last.
        descending: whether the largest is first.

    Returns:
        Booleans of shape (elements,).
    """
    size = len(magnitudes)
    first, behind = (size - stop, size - start) if descending else (start, min(stop, size))
    if first >= behind:
        return torch.zeros(size, dtype=torch.bool)
    # Floats above 0 are in the order of their bits, which can be counted.
    bits = magnitudes.view(torch.int32)
    (low, is_cut), (high, is_cut_too) = _boundary(bits, first), _boundary(bits, behind)
    if not (is_cut or is_cut_too):
        return (bits >= low) & (bits < high)
    order = torch.empty(size, dtype=torch.int64)
    torch.sort(magnitudes, descending=descending, out=(magnitudes, order))  # in place: two thirds of the memory
    return torch.zeros(size, dtype=torch.bool).index_fill_(0, order[start:stop], True)


def _boundary(bits: torch.Tensor, rank: int) -> tuple[int, bool]:
    """Find the bits from which on the elements have an ascending rank, from 0, of at least `rank`.

    Returns:
        The bits, and whether elements above zero with the same bits are on both sides: then none separates them.
    """
    if rank == 0:
        return 0, False
    if rank == len(bits):
        return torch.iinfo(torch.int32).max, False
    # In two steps of 16 bits: the tables stay small.
    upper, before = _bin(_counts(bits, lambda piece: piece >> 16), rank)
    lower, below = _bin(_counts(bits, lambda piece: piece[piece >> 16 == upper] & 0xFFFF), rank - before)
    found = upper << 16 | lower
    return found, below < rank - before and found != 0


def _counts(bits: torch.Tensor, bins: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Count the elements in each of 2^16 bins."""
    return sum(
        (torch.bincount(bins(piece), minlength=1 << 16) for piece in bits.split(PIECE)),
        start=torch.zeros(1 << 16, dtype=torch.int64),
    )


def _bin(counts: torch.Tensor, rank: int) -> tuple[int, int]:
    """Return the bin that has the element of a rank, and the number of elements in the bins before."""
    total = counts.cumsum(0)
    found = int(torch.searchsorted(total, rank, right=True))
    return found, int(total[found] - counts[found])


def _scale(difference: Difference, pair: Tensors, cast: Cast, kept: torch.Tensor) -> torch.Tensor:
    """Compute what mergekit scales the kept elements by: one float64 that its own dtype can hold.

    Args:
        kept: booleans, as many as the tensors have elements.
    """
    some = cast({model: tensor[:0] for model, tensor in pair.items()})[difference.base]
    sizes = torch.empty(pair[difference.base].shape, dtype=difference.work_dtype(some.dtype))
    for part, delta in _pieces(difference, pair, cast, flat=False):
        sizes[part] = delta
    sizes.abs_()
    before = sizes.sum()
    after = sizes.mul_(kept.view(sizes.shape)).sum()
    scale = torch.ones_like(before) if before < LEAST_NORM or after < LEAST_NORM else before / after
    return scale.to(torch.float64)
