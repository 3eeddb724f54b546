"""Weights into a running vLLM engine, checked on the way in.

This runs where the weights are, as a vLLM worker extension. Where the engine's parameters are as checkpoints have them
(CUDA), they are written in place; where vLLM has packed them (CPU), they go through its `reload_weights`.

vLLM only warns about a tensor that it did not get, and keeps the old one. So every tensor that it was started with must
arrive; and because a reload that is broken off leaves vLLM with half a model for good, every reload is completed: what
is missing or refused is filled from the parent that the engine was started with, and the recipe is reported as invalid.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from orchestrator.models.formats import read_json
from orchestrator.models.headers import read_headers, read_tensor
from orchestrator.models.tensors import empty_model, stored_form
from orchestrator.recipes.recipe import Recipe
from orchestrator.sizing.placement import Place
from tasks.merging.checkpoint import MergeRefused, with_tokenizer
from tasks.merging.lazy import Merged, Tally, is_finite
from tasks.merging.live import Merger
from tasks.merging.ranks import Ranks

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


class Weights:
    """The part of the worker extension that concerns weights."""

    def open_parents(self, scratch: str, place: Place) -> None:
        """Open the parents, once and before any other call.

        Args:
            scratch: a folder of this worker alone.
            place: where to keep the parents.
        """
        from vllm.model_executor.layers.logits_processor import LogitsProcessor

        keep_freed_memory()
        # By the path of this process's node, which may differ from that on the first stage's node.
        self._folder = Path(self.model_runner.model_config.model)  # type: ignore[attr-defined]
        known = read_headers("parents", self._folder).items()
        self._boot = {name: header for name, header in known if self._is_here(name)}
        self._merger = Merger(Path(scratch), place, self.device, _ranks())  # type: ignore[attr-defined]
        self._as_stored = _as_stored(self.model_runner.get_model())  # type: ignore[attr-defined]
        self._suppressed: torch.Tensor | None = None
        for module in self.model_runner.get_model().modules():  # type: ignore[attr-defined]
            if isinstance(module, LogitsProcessor):
                module.register_forward_hook(self._suppress)
        self._open_stage()

    def merge(self, recipe: Recipe) -> list[str]:
        """Merge a recipe straight into the engine.

        Returns:
            A phrase for each thing that makes the recipe invalid. The loaded weights are then of no use, but the
            engine can load the next recipe.
        """
        # By the path of this process's node, as in `open_parents`.
        recipe = with_tokenizer(recipe, Path(self.model_runner.model_config.tokenizer))  # type: ignore[attr-defined]
        try:
            planned = self._merger.plan(recipe)
        except MergeRefused as error:
            return [str(error)]  # returned and not raised: an exception that crosses vLLM's processes loses its class
        self._tally = Tally()
        here = [item for item in planned if self._is_here(item.name)]
        return self._pour(self._merger.tensors(recipe, here, self._tally), self._tally.failures)

    def work(self) -> tuple[int, int]:
        """Count the elements that this rank computed at the last merge, and the bytes of the parents that it read."""
        return self._tally.elements, self._tally.read

    def load_checkpoint(self, folder: str) -> list[str]:
        """Load a checkpoint folder into the engine; returns as `merge`."""
        path = Path(folder)
        here = {name: at for name, at in read_headers("checkpoint", path).items() if self._is_here(name)}
        return self._pour(((name, read_tensor(path / header.file, name)) for name, header in here.items()), [])

    def suppress(self, tokens: list[int]) -> None:
        """Give some tokens the probability 0, until the next call.

        Args:
            tokens: ids that the loaded models have no row for. mergekit writes zeros there, and so a logit of 0, which
                a model that lacks the token does not have.
        """
        self._suppressed = torch.tensor(tokens, dtype=torch.long, device=self.device) if tokens else None  # type: ignore[attr-defined]

    def _suppress(self, _: torch.nn.Module, __: object, logits: torch.Tensor | None) -> torch.Tensor | None:
        """Set logits of shape (positions, tokens) to -inf; a rank that vLLM gathers no logits on has none."""
        if logits is None or self._suppressed is None:
            return logits
        return logits.index_fill(-1, self._suppressed, -torch.inf)

    def checksums(self) -> dict[str, str]:
        """Return module or parameter → SHA-256 of the weights that are loaded there, in hex.

        Where vLLM has packed a layer's weight (CPU), it is that of the layer's output for a fixed input, which differs
        where the weights do.
        """
        found = {}
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        for name, module in model.named_modules():
            if hasattr(module, "cpu_linear"):
                found[name] = _digest(_probe(module))
            for key, parameter in module.named_parameters(recurse=False):
                if parameter.numel():
                    found[f"{name}.{key}"] = _digest(parameter)
        return found

    def _pour(self, tensors: Iterable[tuple[str, torch.Tensor]], failures: list[Exception]) -> list[str]:
        problems: list[str] = []
        left = {name: header.shape for name, header in self._boot.items()}

        def checked() -> Iterator[tuple[str, torch.Tensor]]:
            try:
                for name, tensor in self._by_files(tensors):
                    if left.get(name) == tuple(tensor.shape):
                        if not isinstance(tensor, Merged) and not is_finite(tensor):
                            problems.append(f"{name} has NaN or Inf")
                        yield name, tensor
                        del left[name]
                    else:
                        wanted = f"instead of {list(left[name])}" if name in left else "and is no tensor of the model"
                        problems.append(f"{name} has shape {list(tensor.shape)} {wanted}")
            except Exception as error:
                failures.append(error)
            if not problems and not failures:
                problems.extend([f"{name} is missing" for name in left])
            yield from ((name, read_tensor(self._folder / self._boot[name].file, name)) for name in left)

        if self._as_stored:
            self.model_runner.get_model().load_weights(checked())  # type: ignore[attr-defined]
        else:
            self.reload_weights(weights_iterator=checked(), is_checkpoint_format=True)  # type: ignore[attr-defined]
            self._retie()
            self._repack_experts()
        for failure in failures:
            if not isinstance(failure, MergeRefused):
                raise failure
        return [*problems, *dict.fromkeys(str(failure) for failure in failures)]

    def _by_files(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Convert tensors to those of the files that vLLM was started with, where they are others.

        mergekit merges the experts of a layer as one tensor, and vLLM loads a tensor an expert.
        """
        for name, tensor in tensors:
            if name in self._boot:
                yield name, tensor
                continue
            model = empty_model(json.dumps(read_json("parents", self._folder / "config.json"), sort_keys=True))
            whole = tensor.whole() if isinstance(tensor, Merged) else tensor
            yield from stored_form(model, {name: whole}).items()

    def _open_stage(self) -> None:
        """Make the buffers for the output of the stage before, where vLLM has not.

        vLLM makes them when it warms up, which it leaves out on the CPU without compilation: the first question would
        find none.
        """
        from vllm.distributed import get_pp_group

        runner = self.model_runner  # type: ignore[attr-defined]
        if not get_pp_group().is_first_rank and runner.intermediate_tensors is None:
            runner.intermediate_tensors = runner.get_model().make_empty_intermediate_tensors(
                runner.max_num_tokens, runner.model_config.dtype, runner.device
            )

    def _is_here(self, name: str) -> bool:
        """Whether the tensor is of this rank's stage, or of none: other stages' layers are placeholders here."""
        from vllm.model_executor.models.utils import is_pp_missing_parameter

        return not is_pp_missing_parameter(name, self.model_runner.get_model())  # type: ignore[attr-defined]

    def _retie(self) -> None:
        """Pack a tied head anew, where vLLM packs weights (CPU).

        A tied head shares the embedding's tensor, but a packed one is a copy, which a reload leaves as it was: the old
        recipe's head on the new recipe's body.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

        modules = list(self.model_runner.get_model().modules())  # type: ignore[attr-defined]
        embeddings = [m for m in modules if isinstance(m, VocabParallelEmbedding) and not isinstance(m, ParallelLMHead)]
        for head in (m for m in modules if isinstance(m, ParallelLMHead)):
            if self.model_runner.model_config.hf_config.tie_word_embeddings:  # type: ignore[attr-defined]
                head.tie_weights(embeddings[0])
                head.quant_method.process_weights_after_loading(head)

    def _repack_experts(self) -> None:
        """Pack a mixture's experts anew, where vLLM packs weights (CPU).

        vLLM packs them when it starts alone: after a reload they would be read as if they were packed.
        """
        from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod

        if self.device.type == "cpu":  # type: ignore[attr-defined]
            for module in self.model_runner.get_model().modules():  # type: ignore[attr-defined]
                method = getattr(module, "quant_method", None)
                if isinstance(method, UnquantizedFusedMoEMethod) and method.moe_kernel is not None:
                    method.moe_kernel.fused_experts.process_weights_after_loading(module)


def keep_freed_memory() -> None:
    """Let glibc keep freed buffers, to use them again.

    It returns buffers of some megabytes to the kernel as soon as they are freed, and gets them again page by page: most
    of the time that a merge takes on a CPU.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest that it accepts
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _ranks() -> Ranks:
    """The ranks of this rank's stage."""
    from vllm.distributed import get_tp_group

    group = get_tp_group()
    return Ranks(group.rank_in_group, group.world_size, group.cpu_group)


def _as_stored(model: torch.nn.Module) -> bool:
    """Whether the engine's parameters are as checkpoints have them, fused and cut into shards at most.

    They can then be written in place; otherwise (CPU, quantisation) vLLM has to prepare them anew after each load.
    """
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    methods = {type(module.quant_method) for module in model.modules() if hasattr(module, "quant_method")}
    packed = any(not parameter.numel() for parameter in model.parameters())
    return not packed and methods <= {UnquantizedLinearMethod, UnquantizedEmbeddingMethod}


def _probe(module: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(module, "params_dtype", torch.float32)
    # A head's width is its embedding's, and has that name in vLLM 0.26.
    names = ("input_size_per_partition", "input_size", "embedding_dim")
    size = next(getattr(module, name) for name in names if hasattr(module, name))
    probe = torch.randn(4, size, generator=generator).to(dtype)
    with torch.no_grad():
        made: torch.Tensor = module.cpu_linear(probe, module.weight, None)
    return made


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().cpu().contiguous().view(torch.uint8).numpy()).hexdigest()
