"""Recipe → weights inside a running vLLM engine, without a checkpoint on disk.

mergekit stays the definition of every method: its planner resolves the recipe (gradients, filters and defaults
included) into one task per tensor, and those tasks merge. Where a method works element by element, a tensor is merged
only when and where vLLM copies it (`tasks.merging.lazy`): straight into its place in a fused parameter, only the shard
of this rank, in pieces that stay in the processor's cache. What those methods need to know of whole tensors
(`tasks.merging.elementwise`) is measured once per pair of parents. Where a method has to see whole tensors, the ranks
of an engine share them out. A contract suite compares every method with `mergekit-yaml` and a fresh engine.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from orchestrator.models.headers import EMBEDDING, read_headers
from orchestrator.recipes.recipe import Recipe
from orchestrator.sizing.placement import Place
from tasks.merging.checkpoint import localise, materialise, refused
from tasks.merging.elementwise import Angle, Form, form_of
from tasks.merging.lazy import Merged, Tally, Tensors
from tasks.merging.plain import appearing
from tasks.merging.ranks import Ranks
from tasks.merging.vocabulary import Alignment, aligns, gathering

WINDOW = 4
"""Whole tensors for each rank that are computed before the next are started: enough to share them evenly, few enough
that the results are small beside a model."""


@dataclass
class Planned:
    """One tensor of a merged model."""

    name: str
    task: Any
    """mergekit's ExecuteMergeMethodTask, its parameters resolved for this tensor."""
    dtype: torch.dtype | None
    """To cast the result to, where the architecture or the recipe says so."""


@dataclass
class Opened:
    """A planned tensor with its parents' tensors: views of their files."""

    item: Planned
    inputs: Tensors
    dtypes: dict[Any, torch.dtype]
    """What mergekit casts each to before it merges."""
    form: Form | None
    """How it is merged shard by shard; None where the method has to see all of it."""

    @property
    def angle(self) -> Angle | None:
        """What has to be measured of the whole tensors first."""
        return self.form.angle(self.item.task) if self.form and self.form.angle else None

    def cast(self, parts: Tensors) -> Tensors:
        """Cast the parents' tensors, or the same shard of each, to the dtypes that mergekit merges in."""
        return {model: part.to(self.dtypes[model]) for model, part in parts.items()}

    @property
    def key(self) -> tuple[str, ...]:
        """The key of its angle in `Merger.cosines`."""
        angle = self.angle
        assert angle is not None, "its form has an angle"
        return angle.key(self.item.task, self.item.name)

    @property
    def size(self) -> int:
        """Bytes of the parents' tensors, as they are stored."""
        return sum(tensor.nbytes for tensor in self.inputs.values())

    @property
    def whole(self) -> Tensors:
        """The parents' tensors, cast and on the CPU.

        mergekit by itself merges there, and the order of its sums, and so the last bit, is that of a CPU.
        """
        return {model: tensor.cpu() for model, tensor in self.cast(self.inputs).items()}


@dataclass
class Merger:
    """The parents, opened once, and what was measured about them."""

    scratch: Path
    """Folder for parents with an adapter merged in."""
    place: Place = "mapped"
    """The memory that the parents are kept in."""
    device: torch.device = torch.device("cpu")
    """The engine's, where elementwise methods merge; the others merge on the CPU."""
    ranks: Ranks = Ranks()
    """The ranks that share the work on whole tensors."""
    parents: dict[Any, torch.Tensor | None] = field(default_factory=dict)
    """mergekit's task that loads a tensor → the tensor as it is stored; None for an optional one that is not there."""
    kept: dict[tuple[Any, ...], torch.Tensor] = field(default_factory=dict)
    """(parent, tensor, dtype, shard) → that shard in the memory that `place` names."""
    alignment: Alignment = field(default_factory=Alignment)
    """The embeddings of recipes that name a tokenizer."""
    cosines: dict[tuple[str, ...], torch.Tensor] = field(default_factory=dict)
    """`Angle.key` → cosine, one element."""

    def plan(self, recipe: Recipe) -> list[Planned]:
        """Resolve the recipe into one task for each tensor, by mergekit's planner.

        Raises:
            MergeRefused: mergekit refuses the recipe, in its own words, or its models' files are not those of their
                configs.
            Exception: whatever else goes wrong, such as a parent that cannot be read.
        """
        from mergekit.common import dtype_from_name
        from mergekit.config import MergeConfiguration
        from mergekit.io.tasks import LoaderCache, SaveTensor
        from mergekit.merge import _model_out_config, get_architecture_info
        from mergekit.options import MergeOptions
        from mergekit.plan import MergePlanner

        logging.getLogger("mergekit").setLevel(logging.ERROR)
        options = MergeOptions(quiet=True)
        LoaderCache().setup(options=options)
        local = localise(recipe, self.scratch)
        try:
            config = MergeConfiguration.model_validate(local.to_mergekit())
            architecture = get_architecture_info(config, options)
            planner = MergePlanner(config, architecture, options, _model_out_config(config, architecture))
            saves = planner.plan_to_disk(out_path="")
        except Exception as error:
            raise refused(error) from error
        # The plan for the disk, of which only the saving is left out: each entry knows its tensor's name and dtype.
        saves = [item for item in saves if isinstance(item, SaveTensor)]
        return [Planned(item.tensor_name, item.tensor_task, dtype_from_name(item.dtype)) for item in saves]

    def tensors(self, recipe: Recipe, planned: Sequence[Planned], tally: Tally) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the merged tensors with their names, in the plan's order.

        Those of elementwise methods are merged when they are copied, and add to the tally what goes wrong then. All
        ranks have to iterate over them together.

        Raises:
            MergeRefused: mergekit refuses a tensor.
        """
        window = 1 if self.ranks.size == 1 else WINDOW * self.ranks.size
        for start in range(0, len(planned), window):
            some = [self._open(recipe, item) for item in planned[start : start + window]]
            seen = self._look(recipe, some, tally)
            for each in some:
                tensor = self._lazy(recipe, each, each.form, tally) if each.form else seen[each.item.name]
                if tensor is not None:
                    yield each.item.name, tensor

    def whole(self, recipe: Recipe) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield a recipe's tensors as plain ones, with their names.

        Raises:
            As `plan` and `tensors`.
        """
        tally = Tally()
        for name, tensor in self.tensors(recipe, self.plan(recipe), tally):
            plain = tensor.whole() if isinstance(tensor, Merged) else tensor
            if tally.failures:
                raise tally.failures[0]
            yield name, plain

    def _open(self, recipe: Recipe, item: Planned) -> Opened:
        # A checkpoint that is evaluated unchanged is read once, and not kept.
        keep = not recipe.is_copy
        loads = {load.model: load for load in gathering(item.task).arguments().values()}
        try:
            stored = {model: self._stored(load, keep) for model, load in loads.items()}
            inputs = {model: tensor for model, tensor in stored.items() if tensor is not None}
            dtypes = {model: dtype_of(loads[model], tensor) for model, tensor in inputs.items()}
            if aligns(item.task):
                inputs = self.alignment.align(item.task, inputs, dtypes, keep=keep)
                dtypes = {model: tensor.dtype for model, tensor in inputs.items()}
            return Opened(item, inputs, dtypes, form_of(recipe.method, item.task, inputs))
        except Exception as error:
            raise refused(error, f"{item.name}: ") from error

    def _stored(self, load: Any, keep: bool) -> torch.Tensor | None:
        # Without the cast, which belongs to the recipe: the tensor stays a view of its file.
        key = load.model_copy(update={"dtype": None})
        if key in self.parents:
            return self.parents[key]
        tensor: torch.Tensor | None = key.execute()
        if keep and (tensor is None or _is_view(key)):
            self.parents[key] = tensor
        return tensor

    def _look(self, recipe: Recipe, some: Sequence[Opened], tally: Tally) -> dict[str, torch.Tensor | None]:
        """Compute what takes whole tensors: merges that are not elementwise, and angles that are not known yet.

        Each is computed by one of the ranks.

        Returns:
            The merged tensors by name; None for an optional one that no parent has.
        """

        def is_open(each: Opened) -> bool:
            return each.form is None or (each.angle is not None and each.key not in self.cosines)

        def look(each: Opened) -> torch.Tensor | None:
            tally.read += each.size
            try:
                if (angle := each.angle) is not None:
                    whole = each.whole
                    return angle.measure(whole[angle.first], whole[angle.second])
                merged = _by_mergekit(recipe, each)
            except Exception as error:
                raise refused(error, f"{each.item.name}: ") from error
            tally.elements += 0 if merged is None else merged.numel()
            return merged

        wanted = [each for each in some if is_open(each)]
        found = self.ranks.share(wanted, [each.size for each in wanted], look) if wanted else []
        seen = {}
        for each, value in zip(wanted, found, strict=True):
            if each.form is None:
                seen[each.item.name] = value
            else:
                self.cosines[each.key] = value
        return seen

    def _lazy(self, recipe: Recipe, each: Opened, form: Form, tally: Tally) -> Merged:
        dtypes = each.dtypes
        merge = form.merge(each.item.task, self.cosines[each.key] if form.angle else None)
        dtype = each.item.dtype or next(iter(dtypes.values()))
        near = (lambda _, tensor: tensor) if recipe.is_copy else self._near(each)
        return Merged(each.item.name, each.inputs, lambda parts: merge(each.cast(parts)), near, dtype, tally)

    def _near(self, each: Opened) -> Callable[[Any, torch.Tensor], torch.Tensor]:
        """Return the function that keeps this rank's shards of the parents in the memory that `place` names."""

        def near(model: Any, tensor: torch.Tensor) -> torch.Tensor:
            if self.place == "mapped":
                return tensor
            # What mergekit fills a model's embedding with depends on the models beside it.
            beside = tuple(map(str, each.inputs)) if aligns(each.item.task) else ()
            key = (str(model), each.item.name, beside, each.dtypes[model], tensor.storage_offset(), tuple(tensor.shape))
            if key not in self.kept:
                cast = tensor.to(each.dtypes[model]).contiguous()
                self.kept[key] = cast.to(self.device) if self.place == "gpu" else cast.pin_memory()
            return self.kept[key]

        return near


def write_checkpoint(recipe: Recipe, folder: Path, scratch: Path) -> Path:
    """Write the tensors that are served as a checkpoint to `folder`; keep it if it is there already.

    Args:
        scratch: folder for parents with an adapter merged in.

    Raises:
        MergeRefused: an impossible recipe, in mergekit's own words.
        Exception: whatever else goes wrong: a full disk, a lack of memory, a damaged file.
    """
    write = materialise if recipe.seed is None else materialise_random
    return write(recipe, folder, scratch)


def materialise_random(recipe: Recipe, folder: Path, scratch: Path) -> Path:
    """Write a checkpoint of a recipe that draws random numbers; keep it if it is there already.

    It has the tensors that would be served, not mergekit's own draw.

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
            first = Path(localise(recipe, scratch).models[0][0].model)
            config = json.loads((first / "config.json").read_text(encoding="utf-8"))
            if any(source.rows for source in recipe.sources):
                written = read_headers("checkpoint", temporary).items()
                rows = [header.shape[0] for name, header in written if EMBEDDING.search(name)]
                config["vocab_size"] = rows[0]
            (temporary / "config.json").write_text(json.dumps({**config, "dtype": recipe.dtype}, indent=2) + "\n")
    return folder


def _by_mergekit(recipe: Recipe, each: Opened) -> torch.Tensor | None:
    """Merge by any method, through mergekit's own function.

    A method that draws random numbers draws each tensor's from a seed of its own, so that the result depends neither on
    the order of the tensors nor on the rank that computes it.
    """
    item = each.item
    with torch.random.fork_rng(enabled=recipe.seed is not None):
        if recipe.seed is not None:
            digest = hashlib.sha256(f"{recipe.seed}/{item.name}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        result: torch.Tensor | None = item.task.execute(tensors=each.whole)
    return result if result is None or item.dtype is None else result.to(item.dtype)


def _is_view(load: Any) -> bool:
    """Whether a parent has the tensor as it is merged, so that it is a view of its file and takes no memory.

    The experts of a layer are joined to one tensor for each merge; all of them together would not fit.
    """
    from mergekit.io.tasks import LoaderCache

    names = (load.tensor, *(load.aliases or ()), *(load.tied_names or ()))
    return any(name in LoaderCache().get(load.model).index.tensor_paths for name in names)


def dtype_of(load: Any, tensor: torch.Tensor) -> torch.dtype:
    """Return the dtype that mergekit casts a parent's tensor to before it merges."""
    from mergekit.common import dtype_from_name

    wanted: torch.dtype | None = dtype_from_name(load.dtype)
    return wanted or tensor.dtype
