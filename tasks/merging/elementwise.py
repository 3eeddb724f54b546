"""The merge methods that work element by element, so that any shard of the parents gives that shard of the merge.

They are mergekit's own functions where those work so. Where those do not, because they measure whole tensors on the
way (SLERP's and NuSLERP's angles, what a sparse method keeps of a tensor), they are the same arithmetic after that.
Each gives mergekit's bytes on a CPU.

`FORMS` has one entry for each method of `orchestrator.config.methods` that is marked elementwise.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from tasks.merging.checkpoint import LINEAR_ABOVE, cosine
from tasks.merging.lazy import Tensors
from tasks.merging.sparse import Cast, Merge, kept_elements, measure, measured_together, merge_differences

Measured = Sequence[torch.Tensor]
KEPT_SHARE = 1 / 8
"""Of the models' bytes, for what is measured of them: what two of three models in bfloat16 keep at three densities."""


@dataclass(frozen=True)
class Measure:
    """What a method has to measure of whole tensors, whatever the weights or the ratio."""

    key: tuple[Any, ...]
    """What it depends on, besides the tensors; methods that measure alike share it."""
    measure: Callable[[Tensors, Cast], torch.Tensor]
    """Of the models' whole tensors and the function that casts (slices of) them as mergekit does: a CPU tensor."""


@dataclass
class Measurements:
    """What was measured, for the next recipes; what was not used for longest is dropped where all of it grows large."""

    found: OrderedDict[tuple[Any, ...], torch.Tensor] = field(default_factory=OrderedDict)
    """Key → CPU tensor, the one that was used last at the end. A key begins with the name of the merged tensor."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Name → bytes of the models' tensors."""

    def get(self, key: tuple[Any, ...]) -> torch.Tensor | None:
        """Return what was measured under a key; None where it was not, or was dropped."""
        if key in self.found:
            self.found.move_to_end(key)
        return self.found.get(key)

    def keep(self, key: tuple[Any, ...], value: torch.Tensor, size: int) -> None:
        """Keep what was measured.

        Args:
            size: bytes of the tensors that it was measured of.
        """
        self.found[key], self.sizes[key[0]] = value, size
        room = KEPT_SHARE * sum(self.sizes.values()) - sum(each.nbytes for each in self.found.values())
        while room < 0 and len(self.found) > 1:
            room += self.found.popitem(last=False)[1].nbytes


@dataclass(frozen=True)
class Form:
    """How a method merges a slice of every input into that slice of the merge, which is as in `Merged`.

    Each function takes mergekit's task for the tensor.
    """

    merge: Callable[[Any, Measured], Merge]
    """Given what was measured too."""
    measures: Callable[[Any], list[Measure]] = lambda task: []
    """What has to be measured of whole tensors first."""
    beside: Callable[[Any, Measured, torch.Size], Tensors] = lambda task, measured, shape: {}
    """Given what was measured and the tensor's shape: inputs of that shape besides the models' tensors."""
    applies: Callable[[Any, Tensors], bool] = lambda task, inputs: True
    """Whether the method is elementwise with the parameters of this task, over these inputs."""


def form_of(method: str, task: Any, inputs: Tensors) -> Form | None:
    """Return the form that merges this tensor slice by slice; None where the method has to see whole tensors.

    It is None too where tensors are missing or do not fit one another: mergekit has to say what is wrong with them.

    Args:
        task: mergekit's task for the tensor.
    """
    form = FORMS.get(method)
    tensors = list(inputs.values())
    if form is None or len(inputs) < len(task.model_order):
        return None
    if len({tensor.shape for tensor in tensors}) > 1 or not tensors[0].dim():
        return None
    floating = all(tensor.is_floating_point() for tensor in tensors)
    return form if floating and form.applies(task, inputs) else None


def _mergekits(task: Any, _: Measured) -> Merge:
    """Merge by mergekit's own function, which is elementwise as it is."""
    return lambda parts: task.execute(tensors=parts)


def _linear(task: Any, _: Measured) -> Merge:
    """Merge as mergekit's linear: float32 sums in the order of the models, divided by the sum of the weights."""
    weights = torch.tensor([task.input_parameters[m]["weight"] for m in task.model_order], dtype=torch.float32)
    total = weights.sum().item() if task.parameters["normalize"] else 1.0
    (first, share), *others = zip(task.model_order, weights.tolist(), strict=True)
    zero = torch.zeros(())

    def merge(parts: Tensors) -> torch.Tensor:
        result = parts[first].to(torch.float32, copy=True)
        torch.add(zero, result, alpha=share, out=result)  # not a product alone, which would keep the sign of a zero
        for model, weight in others:
            # A CPU adds tensors of one dtype in half the time; a GPU converts while it adds.
            result.add_(parts[model] if result.is_cuda else parts[model].float(), alpha=weight)
        # Dividing by one changes no bit, so it is left out.
        return result if total == 1 else result.div_(total)

    return merge


def _angle(first: Any, second: Any, cosine_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> list[Measure]:
    """Measure the angle between two models' tensors: a cosine, one element."""

    def measured(tensors: Tensors, cast: Cast) -> torch.Tensor:
        whole = cast(tensors)
        return cosine_of(whole[first], whole[second])

    return [Measure((cosine_of.__qualname__, first, second), measured)]


def _slerp_angle(task: Any) -> list[Measure]:
    (other,) = (model for model in task.model_order if model != task.base_model)
    return _angle(task.base_model, other, cosine)


def _slerp(task: Any, measured: Measured) -> Merge:
    """Merge as mergekit's slerp: two coefficients from t and the angle between the tensors."""
    (dot,) = measured
    base = task.base_model
    (other,) = (model for model in task.model_order if model != base)
    t = torch.tensor([[task.parameters["t"]]], dtype=torch.float32)
    linear = dot.abs() > LINEAR_ABOVE
    theta = torch.acos(torch.where(linear, 0, dot))
    sine = torch.sin(theta)
    a = torch.where(linear, 1 - t, torch.sin((1 - t) * theta) / sine).item()
    b = torch.where(linear, t, torch.sin(t * theta) / sine).item()

    def merge(parts: Tensors) -> torch.Tensor:
        first, second = (parts[model].to(torch.float32, copy=True) for model in (base, other))
        return first.mul_(a).add_(second.mul_(b))

    return merge


def _nuslerp_angle(task: Any) -> list[Measure]:
    first, second = task.model_order
    return _angle(first, second, flat_cosine)


def _nuslerp(task: Any, measured: Measured) -> Merge:
    """Merge as mergekit's nuslerp, flattened and without a base: as `_slerp`, but in the tensors' own dtype."""
    (dot,) = measured
    first, second = task.model_order
    weights = [task.input_parameters[model]["weight"] for model in task.model_order]
    t = 0.5 if abs(sum(weights)) < 1e-6 else weights[1] / sum(weights)
    colinear = bool((1 - dot.square()) <= 1e-8**2)
    theta = torch.acos(torch.where(dot.new_tensor(colinear, dtype=torch.bool), 0, dot))
    sine, a, b = torch.sin(theta), torch.sin((1 - t) * theta), torch.sin(t * theta)
    if colinear:
        return lambda parts: (1 - t) * parts[first] + t * parts[second]

    def merge(parts: Tensors) -> torch.Tensor:
        x, y = parts[first], parts[second]
        return (a.to(x.device) * x + b.to(x.device) * y) / sine.to(x.device)

    return merge


def flat_cosine(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compute the cosine that mergekit's nuslerp finds over flattened tensors: one element, of their dtype."""
    a, b = first.reshape(-1), second.reshape(-1)
    a = a / torch.norm(a, dim=-1, keepdim=True).clamp(min=1e-7)
    b = b / torch.norm(b, dim=-1, keepdim=True).clamp(min=1e-7)
    return torch.sum(a * b, dim=-1, keepdim=True).clamp(-1, 1)


def _kept(task: Any) -> list[Measure]:
    """Measure which elements of the models' differences from the base are kept."""
    return [Measure(group, partial(measure, group)) for group in measured_together(task)]


def _few(_: Any, inputs: Tensors) -> bool:
    """Whether torch adds up the models' differences from the base in an order that does not depend on the shape."""
    return len(inputs) <= 5


_SPARSE = Form(
    merge_differences,
    _kept,
    kept_elements,
    # mergekit ranks magnitudes in float32.
    applies=lambda task, inputs: _few(task, inputs) and all(t.dtype != torch.float64 for t in inputs.values()),
)
FORMS = {
    "passthrough": Form(_mergekits),
    "linear": Form(_linear),
    "slerp": Form(_slerp, _slerp_angle),
    "nuslerp": Form(
        _nuslerp,
        _nuslerp_angle,
        applies=lambda task, _: bool(task.parameters["nuslerp_flatten"]) and task.base_model is None,
    ),
    "nearswap": Form(_mergekits),
    "ram": Form(_mergekits, applies=_few),
    "task_arithmetic": Form(_mergekits, applies=_few),
    **dict.fromkeys(
        ("ties", "breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties", "della", "della_linear"), _SPARSE
    ),
}
"""Method → its form."""
