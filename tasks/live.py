"""Recipe → weights inside a running vLLM engine. No checkpoint is written.

mergekit stays the definition of every method: its planner resolves the recipe (gradients, filters and defaults
included) into one task per tensor, and those tasks merge. Where a method works element by element, a tensor is merged
only when and where vLLM copies it (`Merged`): straight into its place in a fused parameter, only the shard of this
rank, in pieces that stay in the processor's cache. What those methods need to know of whole tensors, the angles of
SLERP and NuSLERP, does not depend on the ratio and is measured once per pair of parents. A contract suite holds every
method against `mergekit-yaml` and a fresh engine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch.utils._pytree import tree_map_only

from orchestrator.placement import Place
from orchestrator.recipe import Recipe
from tasks.merge import LINEAR_ABOVE, REFUSALS, MergeRefused, appearing, cosine, localise

PIECE = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Elements per piece, by where it is merged: large enough for all cores, small enough that its float32 buffers stay in
the last-level cache or are little beside the weights."""

Tensors = dict[Any, torch.Tensor]
"""mergekit's model reference → that parent's tensor."""
Merge = Callable[[Tensors], torch.Tensor]

aten = torch.ops.aten


class Merged(torch.Tensor):  # type: ignore[misc]
    """A tensor of a merged model that is merged where it is copied to, and only the part that is copied.

    vLLM's loaders narrow a tensor to the shard of their rank and copy that to its place. For a method that works
    element by element, narrowing the parents gives the same bytes. Anything else that is done to it makes it whole.

    Nothing raises: an exception inside vLLM's loading would leave it with half a model. `failures` tells.
    """

    title: str
    inputs: Tensors
    merge: Merge
    failures: list[Exception]

    @staticmethod
    def __new__(
        cls, title: str, inputs: Tensors, merge: Merge, dtype: torch.dtype, failures: list[Exception]
    ) -> Merged:
        """
        Args:
            title: the tensor's name in the checkpoint (torch has its own use for `name`).
            inputs: the parents' tensors, all of one shape with at least one dimension.
            merge: for a slice of every input, that slice of the result.
            dtype: the result's.
            failures: where to say what went wrong.
        """
        shape = next(iter(inputs.values())).shape
        self: Merged = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype)
        self.title, self.inputs, self.merge, self.failures = title, inputs, merge, failures
        return self

    def __repr__(self, **_: Any) -> str:
        return f"Merged({self.title}, {list(self.shape)}, {self.dtype})"

    def pour(self, target: torch.Tensor) -> None:
        """Merge into `target`, of the same shape."""
        if target.is_meta:
            return  # vLLM counts what a copy would fill before it makes room for it
        finite = True
        try:
            rows = max(1, PIECE[target.device.type] // max(1, math.prod(self.shape[1:])))
            for start in range(0, self.shape[0], rows):
                part = slice(start, start + rows)
                inputs = {model: tensor[part] for model, tensor in self.inputs.items()}
                piece = self.merge({model: tensor.to(target.device) for model, tensor in inputs.items()})
                finite = finite and is_finite(piece)
                target[part].copy_(piece)
        except Exception as error:
            self.failures.append(refusal(self.title, error))
        if not finite:
            self.failures.append(MergeRefused(f"{self.title} holds NaN or Inf"))

    def whole(self) -> torch.Tensor:
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
            return cls(me.title, inputs, me.merge, me.dtype, me.failures)
        args, kwargs = tree_map_only(cls, cls.whole, (args, kwargs or {}))
        return function(*args, **kwargs)


@dataclass
class Planned:
    """One tensor of a merged model."""

    name: str
    task: Any
    """mergekit's ExecuteMergeMethodTask, its parameters resolved for this tensor."""
    dtype: torch.dtype | None
    """To cast the result to, where the architecture or the recipe says so."""


@dataclass
class Merger:
    """The parents, opened once, and what was measured about them."""

    scratch: Path
    place: Place = "mapped"
    device: torch.device = torch.device("cpu")
    """The engine's, where elementwise methods merge; the others merge on the CPU."""
    parents: dict[Any, torch.Tensor | None] = field(default_factory=dict)
    """mergekit's task that loads a tensor → the tensor as it is stored; None for an optional one that is not there."""
    cosines: dict[tuple[str, ...], torch.Tensor] = field(default_factory=dict)
    """(method, first, second, dtype, tensor) → cosine, one element."""

    def plan(self, recipe: Recipe) -> list[Planned]:
        """
        Raises:
            MergeRefused: in mergekit's words.
            Exception: whatever else goes wrong, such as a parent that cannot be read.
        """
        from mergekit.common import dtype_from_name
        from mergekit.config import MergeConfiguration
        from mergekit.io.tasks import LoaderCache, SaveTensor
        from mergekit.merge import _model_out_config, get_architecture_info
        from mergekit.options import MergeOptions
        from mergekit.plan import MergePlanner

        logging.getLogger("mergekit").setLevel(logging.ERROR)
        options = MergeOptions(lora_merge_cache=str(self.scratch / "lora"), quiet=True)
        LoaderCache().setup(options=options)
        try:
            config = MergeConfiguration.model_validate(localise(recipe).to_mergekit())
            with FileLock(self.scratch / "lora.lock"):  # the ranks of an engine share what is merged here
                for model in config.referenced_models():
                    LoaderCache().get(model)
            architecture = get_architecture_info(config, options)
            planner = MergePlanner(config, architecture, options, _model_out_config(config, architecture))
            saves = planner.plan_to_disk(out_path="")
        except REFUSALS as error:
            raise MergeRefused(str(error) or type(error).__name__) from error
        # The plan for the disk, of which only the saving is left out: each entry knows its tensor's name and dtype.
        saves = [item for item in saves if isinstance(item, SaveTensor)]
        return [Planned(item.tensor_name, item.tensor_task, dtype_from_name(item.dtype)) for item in saves]

    def tensors(
        self, recipe: Recipe, planned: Iterable[Planned], failures: list[Exception]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """The merged tensors in the plan's order. Those of elementwise methods are merged when they are copied, and add
        to `failures` what goes wrong then.

        Raises:
            MergeRefused: mergekit refuses a tensor.
        """
        for item in planned:
            try:
                tensor = self._tensor(recipe, item, failures)
            except Exception as error:
                raise refusal(item.name, error) from error
            if tensor is not None:
                yield item.name, tensor

    def whole(self, recipe: Recipe) -> Iterator[tuple[str, torch.Tensor]]:
        """A recipe's tensors as plain ones.

        Raises:
            As `plan` and `tensors`.
        """
        failures: list[Exception] = []
        for name, tensor in self.tensors(recipe, self.plan(recipe), failures):
            plain = tensor.whole() if isinstance(tensor, Merged) else tensor
            if failures:
                raise failures[0]
            yield name, plain

    def _tensor(self, recipe: Recipe, item: Planned, failures: list[Exception]) -> torch.Tensor | None:
        """One tensor, of the recipe's dtype; None for an optional one that no parent has."""
        loads = {load.model: load for load in item.task.gather_tensors.arguments().values()}
        # A checkpoint that takes part as it is comes once, and is not kept.
        keep = recipe.method != "passthrough"
        stored = {model: self._stored(load, keep) for model, load in loads.items()}
        inputs = {model: tensor for model, tensor in stored.items() if tensor is not None}
        dtypes = {model: dtype_of(load, inputs[model]) for model, load in loads.items() if model in inputs}

        def cast(parts: Tensors) -> Tensors:
            return {model: part.to(dtypes[model]) for model, part in parts.items()}

        merge = self._elementwise(recipe.method, item, inputs, cast)
        if merge is not None:
            dtype = item.dtype or next(iter(dtypes.values()))
            return Merged(item.name, inputs, lambda parts: merge(cast(parts)), dtype, failures)
        result = _by_mergekit(recipe, item, on_cpu(cast(inputs)))
        return result if result is None or item.dtype is None else result.to(item.dtype)

    def _stored(self, load: Any, keep: bool) -> torch.Tensor | None:
        # Without the cast, which belongs to the recipe: the tensor stays a view of its file.
        key = load.model_copy(update={"dtype": None})
        if key in self.parents:
            return self.parents[key]
        tensor: torch.Tensor | None = key.execute()
        if keep:
            if tensor is not None and self.place != "mapped":
                tensor = tensor.to(dtype_of(load, tensor))
                tensor = tensor.to(self.device) if self.place == "gpu" else tensor.pin_memory()
            self.parents[key] = tensor
        return tensor

    # ---------------------------------------------------------------- the same bytes, piece by piece
    def _elementwise(
        self, method: str, item: Planned, inputs: Tensors, cast: Callable[[Tensors], Tensors]
    ) -> Merge | None:
        """What merges a slice of every input as the whole would be merged; None where the method has to see whole
        tensors, or where mergekit has to say what is wrong with tensors that are missing or do not fit one another."""
        tensors, task = list(inputs.values()), item.task
        if len(inputs) < len(task.model_order) or len({t.shape for t in tensors}) > 1 or not tensors[0].dim():
            return None
        if not all(tensor.is_floating_point() for tensor in tensors):
            return None
        match method:
            # From five task vectors on, torch sums them in an order that depends on the shape.
            case "task_arithmetic" if len(inputs) <= 5:
                return lambda parts: task.execute(tensors=parts)
            case "passthrough":
                return lambda parts: task.execute(tensors=parts)
            case "linear":
                return _linear(task)
            case "slerp":
                return self._slerp(item, lambda: cast(inputs))
            case "nuslerp" if task.parameters["nuslerp_flatten"] and task.base_model is None:
                return self._nuslerp(item, lambda: cast(inputs))
        return None

    def _slerp(self, item: Planned, inputs: Callable[[], Tensors]) -> Merge:
        """mergekit's slerp: two coefficients from t and the angle between the tensors."""
        task, base = item.task, item.task.base_model
        (other,) = (model for model in task.model_order if model != base)
        dot = self._cosine("slerp", item, base, other, inputs, cosine)
        t = torch.tensor([[task.parameters["t"]]], dtype=torch.float32)
        linear = dot.abs() > LINEAR_ABOVE
        theta = torch.acos(torch.where(linear, 0, dot))
        sine = torch.sin(theta)
        a = torch.where(linear, 1 - t, torch.sin((1 - t) * theta) / sine).item()
        b = torch.where(linear, t, torch.sin(t * theta) / sine).item()
        return lambda parts: ((parts[base].float() * a).add_(parts[other].float() * b)).to(parts[base].dtype)

    def _nuslerp(self, item: Planned, inputs: Callable[[], Tensors]) -> Merge:
        """mergekit's nuslerp over flattened tensors without a base: as `_slerp`, but in the tensors' own dtype."""
        task = item.task
        first, second = task.model_order
        weights = [task.input_parameters[model]["weight"] for model in task.model_order]
        t = 0.5 if abs(sum(weights)) < 1e-6 else weights[1] / sum(weights)
        dot = self._cosine("nuslerp", item, first, second, inputs, flat_cosine)
        colinear = bool((1 - dot.square()) <= 1e-8**2)
        theta = torch.acos(torch.where(dot.new_tensor(colinear, dtype=torch.bool), 0, dot))
        sine, a, b = torch.sin(theta), torch.sin((1 - t) * theta), torch.sin(t * theta)
        if colinear:
            return lambda parts: (1 - t) * parts[first] + t * parts[second]

        def merge(parts: Tensors) -> torch.Tensor:
            x, y = parts[first], parts[second]
            return (a.to(x.device) * x + b.to(x.device) * y) / sine.to(x.device)

        return merge

    def _cosine(
        self,
        method: str,
        item: Planned,
        first: Any,
        second: Any,
        inputs: Callable[[], Tensors],
        measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        key = (method, str(first), str(second), str(item.task.gather_tensors.dtype), item.name)
        if key not in self.cosines:
            tensors = on_cpu(inputs())
            self.cosines[key] = measure(tensors[first], tensors[second])
        return self.cosines[key]


def _linear(task: Any) -> Merge:
    """mergekit's linear: float32 sums in the order of the models, divided by the sum of the weights."""
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


def flat_cosine(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The cosine that mergekit's nuslerp finds over flattened tensors: one element, of their dtype."""
    a, b = first.reshape(-1), second.reshape(-1)
    a = a / torch.norm(a, dim=-1, keepdim=True).clamp(min=1e-7)
    b = b / torch.norm(b, dim=-1, keepdim=True).clamp(min=1e-7)
    return torch.sum(a * b, dim=-1, keepdim=True).clamp(-1, 1)


def materialise_random(recipe: Recipe, folder: Path, scratch: Path) -> Path:
    """A checkpoint of a recipe that draws random numbers: the tensors that would be served, not mergekit's own draw.

    Raises:
        As `Merger.whole`.
    """
    from mergekit.io.tensor_writer import TensorWriter

    with appearing(folder) as temporary:
        if temporary is not None:
            writer = TensorWriter(str(temporary), max_shard_size=5 * 10**9, safe_serialization=True)
            for name, tensor in Merger(scratch).whole(recipe):
                writer.save_tensor(name, tensor)
            writer.finalize()
            config = json.loads((Path(localise(recipe).models[0][0].model) / "config.json").read_text(encoding="utf-8"))
            (temporary / "config.json").write_text(json.dumps({**config, "dtype": recipe.dtype}, indent=2) + "\n")
    return folder


def _by_mergekit(recipe: Recipe, item: Planned, inputs: Tensors) -> torch.Tensor | None:
    """Any method, through mergekit's own function. A method that draws random numbers draws each tensor's from a seed
    of its own, so that the result does not depend on the order of the tensors."""
    if recipe.seed is None:
        result: torch.Tensor | None = item.task.execute(tensors=inputs)
        return result
    digest = hashlib.sha256(f"{recipe.seed}/{item.name}".encode()).digest()
    with torch.random.fork_rng():
        torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        result = item.task.execute(tensors=inputs)
        return result


def on_cpu(tensors: Tensors) -> Tensors:
    """Where mergekit works by itself: the order of its sums, and so the last bit, is that of a CPU."""
    return {model: tensor.cpu() for model, tensor in tensors.items()}


def dtype_of(load: Any, tensor: torch.Tensor) -> torch.dtype:
    """What mergekit casts a parent's tensor to before it merges."""
    from mergekit.common import dtype_from_name

    wanted: torch.dtype | None = dtype_from_name(load.dtype)
    return wanted or tensor.dtype


def refusal(name: str, error: Exception) -> Exception:
    """What mergekit refuses, with the tensor's name; anything else as it is."""
    if isinstance(error, MergeRefused) or not isinstance(error, REFUSALS):
        return error
    return MergeRefused(f"{name}: {error or type(error).__name__}")


def is_finite(tensor: torch.Tensor) -> bool:
    low, high = tensor.aminmax()  # one pass and no copy; NaN comes through
    return bool(low.isfinite() & high.isfinite())
