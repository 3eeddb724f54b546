"""The merge methods that work element by element, so that any shard of the parents gives that shard of the merge.

They are mergekit's own functions where those work so. Where those do not, because they measure whole tensors on the
way (SLERP's and NuSLERP's angles), they are the same arithmetic after that. Each gives mergekit's bytes on a CPU.

`FORMS` has one entry for each method of `orchestrator.config.methods` that is marked elementwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tasks.merging.checkpoint import LINEAR_ABOVE, cosine
from tasks.merging.lazy import Merge, Tensors
from tasks.merging.vocabulary import gathering


@dataclass(frozen=True)
class Angle:
    """What a method has to measure of two whole tensors, whatever the ratio."""

    first: Any
    second: Any
    """mergekit's references."""
    measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """The cosine, one element."""

    def key(self, task: Any, name: str) -> tuple[str, ...]:
        """Return what the cosine depends on; methods that measure alike share it.

        Args:
            task: mergekit's task for the tensor.
            name: the tensor's name.
        """
        dtype = str(gathering(task).dtype)
        return self.measure.__qualname__, str(self.first), str(self.second), dtype, name


@dataclass(frozen=True)
class Form:
    """How a method merges a slice of every input into that slice of the merge.

    Each function takes mergekit's task for the tensor.
    """

    merge: Callable[[Any, torch.Tensor | None], Merge]
    """Given the cosine too, where the form has an angle."""
    angle: Callable[[Any], Angle] | None = None
    """What has to be measured of whole tensors first."""
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


def _mergekits(task: Any, _: torch.Tensor | None) -> Merge:
    """Merge by mergekit's own function, which is elementwise as it is."""
    return lambda parts: task.execute(tensors=parts)


def _linear(task: Any, _: torch.Tensor | None) -> Merge:
    """Merge as mergekit's linear: float32 sums in the order of the models, divided by the sum of the weights."""
    weights = torch.tensor([task.input_parameters[m]["weight"] for m in task.model_order], dtype=torch.float32)
    total = weights.sum().item() if task.parameters["normalize"] else 1.0
    terms = list(zip(task.model_order, weights.tolist(), strict=True))

    def merge(parts: Tensors) -> torch.Tensor:
        first = parts[terms[0][0]]
        result = torch.zeros_like(first, dtype=torch.float32)
        for model, weight in terms:
            result.add_(parts[model], alpha=weight)
        # Dividing by one changes no bit, so it is left out.
        return (result if total == 1 else result.div_(total)).to(first.dtype)

    return merge


def _slerp_angle(task: Any) -> Angle:
    (other,) = (model for model in task.model_order if model != task.base_model)
    return Angle(task.base_model, other, cosine)


def _slerp(task: Any, dot: torch.Tensor | None) -> Merge:
    """Merge as mergekit's slerp: two coefficients from t and the angle between the tensors."""
    assert dot is not None, "slerp has an angle"
    base = task.base_model
    (other,) = (model for model in task.model_order if model != base)
    t = torch.tensor([[task.parameters["t"]]], dtype=torch.float32)
    linear = dot.abs() > LINEAR_ABOVE
    theta = torch.acos(torch.where(linear, 0, dot))
    sine = torch.sin(theta)
    a = torch.where(linear, 1 - t, torch.sin((1 - t) * theta) / sine).item()
    b = torch.where(linear, t, torch.sin(t * theta) / sine).item()
    return lambda parts: ((parts[base].float() * a).add_(parts[other].float() * b)).to(parts[base].dtype)


def _nuslerp_angle(task: Any) -> Angle:
    first, second = task.model_order
    return Angle(first, second, flat_cosine)


def _nuslerp(task: Any, dot: torch.Tensor | None) -> Merge:
    """Merge as mergekit's nuslerp, flattened and without a base: as `_slerp`, but in the tensors' own dtype."""
    assert dot is not None, "nuslerp has an angle"
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


FORMS = {
    "passthrough": Form(_mergekits),
    "linear": Form(_linear),
    "slerp": Form(_slerp, _slerp_angle),
    "nuslerp": Form(
        _nuslerp,
        _nuslerp_angle,
        applies=lambda task, _: bool(task.parameters["nuslerp_flatten"]) and task.base_model is None,
    ),
    # torch sums more task vectors than that in an order that depends on the shape.
    "task_arithmetic": Form(_mergekits, applies=lambda _, inputs: len(inputs) <= 5),
}
"""Method → its form."""
