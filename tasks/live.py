"""Recipe → weights inside a running vLLM engine. No checkpoint is written.

mergekit stays the definition of every method: its planner resolves the recipe (gradients, filters and defaults
included) into one task per tensor, and those tasks merge. Where a method allows the same bytes for less work, its
arithmetic is done here instead: SLERP's angles do not depend on t and are measured once per pair of parents, and both
SLERP and Linear run over pieces that stay in the processor's cache. A contract suite holds every method against
`mergekit-yaml` and a fresh engine.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from orchestrator.recipe import Recipe
from tasks.merge import LINEAR_ABOVE, REFUSALS, MergeRefused, appearing, cosine, localise

PIECE = 1 << 16
"""Elements per piece: three float32 buffers of it fit a core's second-level cache."""
AHEAD = 8
"""Tensors that are merged while the engine still takes earlier ones."""

Tensors = dict[Any, torch.Tensor]


@dataclass
class Planned:
    """One tensor of a merged model."""

    name: str
    task: Any
    """mergekit's ExecuteMergeMethodTask, its parameters resolved for this tensor."""
    dtype: torch.dtype | None
    """To cast the result to, where the architecture or the recipe says so."""

    def inputs(self) -> Tensors:
        """mergekit's model reference → that parent's tensor, memory-mapped, in the recipe's dtype."""
        gather = self.task.gather_tensors
        found = {key: load.execute() for key, load in gather.arguments().items()}
        return dict(gather.execute(**found))


@dataclass
class Merger:
    """The parents, opened once, and what was measured about them."""

    scratch: Path
    cosines: dict[tuple[str, ...], torch.Tensor] = field(default_factory=dict)
    """(first, second, tensor) → cosine, shape (1, 1), float32."""

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
            architecture = get_architecture_info(config, options)
            planner = MergePlanner(config, architecture, options, _model_out_config(config, architecture))
            saves = planner.plan_to_disk(out_path="")
            for model in config.referenced_models():
                # Here and not on the merging thread: mergekit keeps where adapters are merged per thread.
                LoaderCache().get(model)
        except REFUSALS as error:
            raise MergeRefused(str(error) or type(error).__name__) from error
        # The plan for the disk, of which only the saving is left out: each entry knows its tensor's name and dtype.
        saves = [item for item in saves if isinstance(item, SaveTensor)]
        return [Planned(item.tensor_name, item.tensor_task, dtype_from_name(item.dtype)) for item in saves]

    def tensors(self, recipe: Recipe, planned: Iterable[Planned]) -> Iterator[tuple[str, torch.Tensor]]:
        """The merged tensors in the plan's order, merged some ahead of their use on a thread of their own.

        Raises:
            MergeRefused: mergekit refuses a tensor.
        """
        thread = ThreadPoolExecutor(1)
        try:
            waiting: list[tuple[str, Future[torch.Tensor | None]]] = []
            left = iter(planned)
            while True:
                for item in islice(left, AHEAD - len(waiting)):
                    waiting.append((item.name, thread.submit(self.merge, recipe, item)))
                if not waiting:
                    return
                name, future = waiting.pop(0)
                tensor = future.result()
                if tensor is not None:
                    yield name, tensor
        finally:
            thread.shutdown(cancel_futures=True)

    def merge(self, recipe: Recipe, item: Planned) -> torch.Tensor | None:
        """One tensor, of the recipe's dtype; None for an optional one that no parent has.

        Raises:
            MergeRefused: mergekit refuses it.
        """
        try:
            inputs = item.inputs()
            shortcut = SHORTCUTS.get(recipe.method)
            shapes = {tensor.shape for tensor in inputs.values()}
            # mergekit says what is wrong with tensors that are missing or do not fit one another.
            if shortcut is not None and len(inputs) == len(item.task.model_order) > 1 and len(shapes) == 1:
                tensor = shortcut(self, item, inputs)
            else:
                tensor = _by_mergekit(recipe, item, inputs)
        except REFUSALS as error:
            raise MergeRefused(f"{item.name}: {error or type(error).__name__}") from error
        return tensor if tensor is None or item.dtype is None else tensor.to(item.dtype)

    # ---------------------------------------------------------------- the same bytes for less work
    def _linear(self, item: Planned, inputs: Tensors) -> torch.Tensor:
        """mergekit's linear: float32 sums in the order of the models, divided by the sum of the weights."""
        task, tensors = item.task, [inputs[model] for model in item.task.model_order]
        weights = torch.tensor([[task.input_parameters[m]["weight"] for m in task.model_order]], dtype=torch.float32)
        total = weights.sum(dim=1) if task.parameters["normalize"] else None

        def piece(parts: list[torch.Tensor]) -> torch.Tensor:
            result = torch.zeros_like(parts[0], dtype=torch.float32)
            for part, weight in zip(parts, weights.unbind(1), strict=True):
                result.addcmul_(part, weight)
            # Dividing by one changes no bit, so it is left out.
            return result if total is None or total == 1 else result.div_(total)

        return _in_pieces(piece, tensors)

    def _slerp(self, item: Planned, inputs: Tensors) -> torch.Tensor:
        """mergekit's slerp: two coefficients from t and the angle between the tensors."""
        task, base = item.task, item.task.base_model
        (other,) = (model for model in task.model_order if model != base)
        first, second = inputs[base], inputs[other]
        key = (str(base), str(other), item.name)
        if key not in self.cosines:
            self.cosines[key] = cosine(first, second)
        dot = self.cosines[key]
        t = torch.tensor([[task.parameters["t"]]], dtype=torch.float32)
        linear = dot.abs() > LINEAR_ABOVE
        theta = torch.acos(torch.where(linear, 0, dot))
        sine = torch.sin(theta)
        a = torch.where(linear, 1 - t, torch.sin((1 - t) * theta) / sine).reshape(())
        b = torch.where(linear, t, torch.sin(t * theta) / sine).reshape(())
        return _in_pieces(lambda parts: (parts[0].float() * a).add_(parts[1].float() * b), [first, second])


def materialise_random(recipe: Recipe, folder: Path, scratch: Path) -> Path:
    """A checkpoint of a recipe that draws random numbers: the tensors that would be served, not mergekit's own draw.

    Raises:
        As `Merger.plan` and `Merger.tensors`.
    """
    from mergekit.io.tensor_writer import TensorWriter

    with appearing(folder) as temporary:
        if temporary is not None:
            merger = Merger(scratch)
            writer = TensorWriter(str(temporary), max_shard_size=5 * 10**9, safe_serialization=True)
            for name, tensor in merger.tensors(recipe, merger.plan(recipe)):
                writer.save_tensor(name, tensor)
            writer.finalize()
            config = json.loads((Path(localise(recipe).models[0][0].model) / "config.json").read_text(encoding="utf-8"))
            (temporary / "config.json").write_text(json.dumps({**config, "dtype": recipe.dtype}, indent=2) + "\n")
    return folder


SHORTCUTS: dict[str, Callable[[Merger, Planned, Tensors], torch.Tensor]] = {
    "linear": Merger._linear,
    "slerp": Merger._slerp,
}


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


def _in_pieces(merge: Callable[[list[torch.Tensor]], torch.Tensor], tensors: list[torch.Tensor]) -> torch.Tensor:
    """Apply an elementwise float32 function piece by piece; the result has the first tensor's dtype and shape."""
    result = torch.empty(tensors[0].shape, dtype=tensors[0].dtype, device=tensors[0].device)
    flat = [tensor.reshape(-1) for tensor in tensors]
    out = result.view(-1)
    for start in range(0, out.numel(), PIECE):
        out[start : start + PIECE] = merge([tensor[start : start + PIECE] for tensor in flat])
    return result
