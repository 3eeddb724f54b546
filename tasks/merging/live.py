"""Recipe → weights inside a running vLLM engine, without a checkpoint on disk.

mergekit stays the definition of every method: its planner resolves the recipe (gradients, filters and defaults
included) into one task per tensor, and those tasks merge. Where a method works element by element, a tensor is merged
only when and where vLLM copies it (`tasks.merging.lazy`): straight into its place in a fused parameter, only the shard
of this rank, in pieces that stay in the processor's cache. What those methods need to know of whole tensors
(`tasks.merging.elementwise`) is measured once per pair of parents. Where a method has to see whole tensors, the ranks
of an engine share them out. A contract suite compares every method with `mergekit-yaml` and a fresh engine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from orchestrator.models.headers import EMBEDDING, read_headers
from orchestrator.recipes.recipe import Recipe
from orchestrator.sizing.placement import Place
from tasks.merging.checkpoint import localise, materialise, refused
from tasks.merging.elementwise import Form, Measure, Measurements, form_of
from tasks.merging.lazy import Merged, Parts, Tally, Tensors
from tasks.merging.plain import appearing
from tasks.merging.ranks import Ranks
from tasks.merging.vocabulary import Alignment, aligns, gathering

Models = tuple[Any, ...]
"""What of a recipe decides which tensors its merge reads, and in which dtype: see `_models`."""
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

    @cached_property
    def measures(self) -> list[Measure]:
        """What has to be measured of the whole tensors first."""
        return self.form.measures(self.item.task) if self.form else []

    def cast(self, parts: Tensors) -> Tensors:
        """Cast the parents' tensors, or the same shard of each, to the dtypes that mergekit merges in."""
        return {model: part.to(self.dtypes.get(model, part.dtype)) for model, part in parts.items()}

    def key(self, measure: Measure, seed: int | None) -> tuple[Any, ...]:
        """Return the key of what is measured in `Merger.measured`.

        Args:
            measure: one of `measures`.
            seed: the recipe's.
        """
        # What mergekit fills a model's embedding with depends on the models beside it.
        beside = tuple(self.inputs) if aligns(self.item.task) else ()
        return self.item.name, seed, beside, tuple(self.dtypes.values()), *measure.key

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
    architectures: dict[Models, tuple[Any, Any]] = field(default_factory=dict)
    """Models → mergekit's architecture for their merges, and the config of these."""
    opened: dict[tuple[Models, str], tuple[Tensors, dict[Any, torch.dtype]]] = field(default_factory=dict)
    """Models and the name of a merged tensor → what `Opened` has of their tensors, where those are views of files."""
    kept: dict[tuple[Any, ...], torch.Tensor] = field(default_factory=dict)
    """(parent, tensor, dtype, shard) → that shard in the memory that `place` names."""
    alignment: Alignment = field(default_factory=Alignment)
    """The embeddings of recipes that name a tokenizer."""
    measured: Measurements = field(default_factory=Measurements)
    """What was measured of whole tensors, by `Opened.key`."""

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
            models = _models(recipe)
            if models not in self.architectures:  # they are read from the models' configs
                architecture = get_architecture_info(config, options)
                self.architectures[models] = architecture, _model_out_config(config, architecture)
            planner = MergePlanner(config, self.architectures[models][0], options, self.architectures[models][1])
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
            for each, found in zip(some, seen, strict=True):
                tensor = self._lazy(recipe, each, each.form, found, tally) if each.form else found[0]
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
        key = _models(recipe), item.name
        try:
            if key in self.opened:
                inputs, dtypes = self.opened[key]
            else:
                inputs, dtypes = self._read(key, recipe, item)
            return Opened(item, inputs, dtypes, form_of(recipe.method, item.task, inputs))
        except Exception as error:
            raise refused(error, f"{item.name}: ") from error

    def _read(self, key: tuple[Models, str], recipe: Recipe, item: Planned) -> tuple[Tensors, dict[Any, torch.dtype]]:
        """Return the models' tensors as they are stored, and what mergekit casts them to; optional ones may be missing.

        Views of files take no memory, and are kept for other recipes of the same models.
        """
        # A checkpoint that is evaluated unchanged is read once, and not kept.
        keep = not recipe.is_copy
        loads = {load.model: load for load in gathering(item.task).arguments().values()}
        # Without the cast, the tensors stay views of their files.
        stored = {model: load.model_copy(update={"dtype": None}).execute() for model, load in loads.items()}
        inputs = {model: tensor for model, tensor in stored.items() if tensor is not None}
        dtypes = {model: dtype_of(loads[model], tensor) for model, tensor in inputs.items()}
        if aligns(item.task):
            inputs = self.alignment.align(item.task, inputs, dtypes, keep=keep)
            dtypes = {model: tensor.dtype for model, tensor in inputs.items()}
        if keep and all(_is_view(loads[model]) for model in inputs):
            self.opened[key] = inputs, dtypes
        return inputs, dtypes

    def _look(self, recipe: Recipe, some: Sequence[Opened], tally: Tally) -> list[list[Any]]:
        """Compute what takes whole tensors: merges that are not elementwise, and what is measured for those that are.

        Each is computed by one of the ranks.

        Returns:
            For each the merged tensor, None for an optional one that no parent has; or what was measured.
        """
        keys = [[each.key(one, recipe.seed) for one in each.measures] for each in some]
        known = {key: value for key in chain.from_iterable(keys) if (value := self.measured.get(key)) is not None}
        jobs: list[tuple[Opened, tuple[Any, ...], Measure | None]] = [
            (each, key, measure)
            for each, own in zip(some, keys, strict=True)
            for key, measure in (zip(own, each.measures, strict=True) if each.form else [((each.item.name,), None)])
            if key not in known
        ]

        def look(job: tuple[Opened, tuple[Any, ...], Measure | None]) -> torch.Tensor | None:
            each, _, measure = job
            tally.read += each.size
            try:
                with _drawing(recipe, each.item.name):
                    if measure is not None:
                        return measure.measure(each.inputs, each.cast)
                    merged = _by_mergekit(each)
            except Exception as error:
                raise refused(error, f"{each.item.name}: ") from error
            tally.elements += 0 if merged is None else merged.numel()
            return merged

        found = self.ranks.share(jobs, [each.size for each, _, _ in jobs], look) if jobs else []
        for (each, key, measure), value in zip(jobs, found, strict=True):
            known[key] = value
            if measure is not None:
                self.measured.keep(key, value, each.size)
        return [
            [known[key] for key in own] if each.form else [known[each.item.name,]]
            for each, own in zip(some, keys, strict=True)
        ]

    def _lazy(self, recipe: Recipe, each: Opened, form: Form, measured: Sequence[torch.Tensor], tally: Tally) -> Merged:
        task, own = each.item.task, next(iter(each.dtypes.values()))  # the recipe's, which all are cast to
        dtype = each.item.dtype or own
        merge, shape = form.merge(task, measured), next(iter(each.inputs.values())).shape
        inputs = {**each.inputs, **form.beside(task, measured, shape)}
        casts = [each.dtypes.get(model, tensor.dtype) for model, tensor in inputs.items()]

        def merged(parts: Parts) -> torch.Tensor:
            found = merge({model: part.to(cast) for model, part, cast in zip(inputs, parts, casts, strict=True)})
            return found if dtype == own else found.to(own)

        near = (lambda _, tensor: tensor) if recipe.is_copy else self._near(each)
        return Merged(each.item.name, [*inputs.values()], merged, near, dtype, tally)

    def _near(self, each: Opened) -> Callable[[int, torch.Tensor], torch.Tensor]:
        """Return the function that keeps this rank's shards of the parents in the memory that `place` names."""
        models = [*each.inputs]

        def near(place: int, tensor: torch.Tensor) -> torch.Tensor:
            if self.place == "mapped" or place >= len(models):
                return tensor
            model = models[place]
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


@contextlib.contextmanager
def _drawing(recipe: Recipe, name: str) -> Iterator[None]:
    """Seed the random numbers of a tensor, where the recipe has a seed, and leave everybody else's as they are.

    The numbers of each tensor follow from a seed of its own, so that the merge depends neither on the order of the
    tensors nor on the rank that computes it.
    """
    with torch.random.fork_rng(enabled=recipe.seed is not None):
        if recipe.seed is not None:
            digest = hashlib.sha256(f"{recipe.seed}/{name}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield


def _by_mergekit(each: Opened) -> torch.Tensor | None:
    """Merge by any method, through mergekit's own function."""
    item = each.item
    result: torch.Tensor | None = item.task.execute(tensors=each.whole)
    return result if result is None or item.dtype is None else result.to(item.dtype)


def _models(recipe: Recipe) -> Models:
    return recipe.dtype, recipe.base_model, tuple(source for source, _ in recipe.models)


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
