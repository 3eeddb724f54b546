"""A tokenizer opened without torch.

transformers' AutoTokenizer imports torch, which takes seconds, though no tokenizer needs it. For the folders that
mergefront serves from, which have a tokenizer's files and no model's config, the class that AutoTokenizer chooses is
the one that tokenizer_config.json names; it is looked up here, and AutoTokenizer opens what is not as simple.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedTokenizerFast

GENERIC = {"PreTrainedTokenizer", "PythonBackend", "TokenizersBackend"}
"""Names, without their Fast, under which a tokenizer is all in its tokenizer.json."""


def open_tokenizer(folder: Path) -> Any:
    """Open the Hugging Face tokenizer in a folder, with the class and settings that AutoTokenizer would choose.

    Raises:
        Exception: whatever transformers and tokenizers raise on damaged files; they have no more specific one.
    """
    found = _named_class(folder)
    if found is None:
        from transformers import AutoTokenizer  # loads torch

        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return found.from_pretrained(folder)


def _named_class(folder: Path) -> Any:
    """The class that tokenizer_config.json names; None where AutoTokenizer considers more than that name."""
    settings = folder / "tokenizer_config.json"
    # A model's config may overrule the name; without a tokenizer.json, files of other forms are converted.
    if (folder / "config.json").exists() or not (folder / "tokenizer.json").exists() or not settings.exists():
        return None
    config = json.loads(settings.read_text(encoding="utf-8"))
    name = config.get("tokenizer_class")
    if not isinstance(name, str) or "auto_map" in config:
        return None
    stem = name.removesuffix("Fast")
    if stem in GENERIC:
        return PreTrainedTokenizerFast
    found = getattr(transformers, stem, None)
    return found if isinstance(found, type) and issubclass(found, PreTrainedTokenizerFast) else None
