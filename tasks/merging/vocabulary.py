"""The embeddings of a merge whose recipe names a tokenizer: a row for each of its tokens, as mergekit aligns them.

mergekit's task for such a tensor first gathers the models' tensors, then gives each the rows of the served tokenizer:
the model's own, or what mergekit fills in for a token that the model lacks. That depends on the models of the recipe,
not on their weights in it, so it is done once for the recipes of a sweep that have the same models.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, field
from typing import Any

import torch

from tasks.merging.lazy import Tensors


@dataclass
class Alignment:
    """The embeddings that were aligned, and the tokenizers that mergekit aligned them by."""

    tokenizers: dict[Any, Any] = field(default_factory=dict)
    """mergekit's task that opens the recipe's tokenizers → what it made."""
    kept: dict[Any, Tensors] = field(default_factory=dict)
    """mergekit's task that aligns a tensor → the models' aligned tensors."""

    def align(self, task: Any, tensors: Tensors, dtypes: dict[Any, torch.dtype], *, keep: bool) -> Tensors:
        """Give the models' tensors the rows of the served tokenizer.

        Args:
            task: mergekit's task for the tensor, of which `aligns` is true.
            tensors: the models' own.
            dtypes: what mergekit casts each to before it aligns and merges.
            keep: whether other recipes will need them.
        """
        key = task.gather_tensors
        if key in self.kept:
            return self.kept[key]
        info = key.tokenizer_task
        if info not in self.tokenizers:
            with contextlib.redirect_stderr(io.StringIO()):  # a progress bar
                self.tokenizers[info] = info.execute()
        cast = {model: tensor.to(dtypes[model]) for model, tensor in tensors.items()}
        aligned: Tensors = key.execute(tokenizer_info=self.tokenizers[info], tensors=cast)
        if keep:
            self.kept[key] = aligned
        return aligned


def gathering(task: Any) -> Any:
    """Return mergekit's task that gathers the models' own tensors for a tensor of the merge."""
    return task.gather_tensors.gather_tensors if aligns(task) else task.gather_tensors


def aligns(task: Any) -> bool:
    """Whether the tensor has a row for each token, and the recipe names the tokenizer."""
    return hasattr(task.gather_tensors, "tokenizer_task")
