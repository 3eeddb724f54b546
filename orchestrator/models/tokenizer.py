"""A model's tokenizer: its files, and the tokenizer that they make, opened without torch.

transformers' AutoTokenizer imports torch, which takes seconds, though no tokenizer needs it. For the folders that
mergefront serves from, which have a tokenizer's files and no model's config, the class that AutoTokenizer chooses is
the one that tokenizer_config.json names; it is looked up here, and AutoTokenizer opens what is not as simple.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line

TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip
WHOLE = {"tokenizer.json", "tokenizer.model", "vocab.json"}
"""Files of which a tokenizer has at least one."""

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
    import transformers  # here: the driver imports this module for commands that open no tokenizer

    fast = transformers.PreTrainedTokenizerFast
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
        return fast
    found = getattr(transformers, stem, None)
    return found if isinstance(found, type) and issubclass(found, fast) else None


@dataclass(frozen=True)
class Tokenizer:
    """What a tokenizer does: its tokens, and how it cuts texts into them."""

    opened: Any
    """transformers' tokenizer."""
    tokens: dict[str, int]
    """Token → id, the added tokens too."""
    added: dict[int, str]
    """Id → added token."""
    settings: dict[str, Any]
    """The rest of its tokenizer.json, as the library writes it with all defaults: `model` without the tokens,
    `normalizer`, `pre_tokenizer`, `decoder`, …; empty for a tokenizer that is written in Python."""


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """Read a tokenizer's files, by name; empty for a folder without a tokenizer."""
    found = {name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).exists()}
    return found if WHOLE & found.keys() else {}


def read_tokenizer(where: str, files: dict[str, bytes]) -> Tokenizer:
    """Open the tokenizer that some files make, with the class and settings that it would be served with.

    Args:
        where: the sweep file's key of the model, for messages.

    Raises:
        UserError: transformers cannot load it.
    """
    for name in files.keys() - {"tokenizer.model"}:  # which is no text
        try:
            files[name].decode()
        except UnicodeDecodeError:
            raise UserError(f"{where}: {name} is not UTF-8 text; download or save the model again") from None
    try:
        return _read(tuple(sorted(files.items())))
    except Exception as error:  # tokenizers raises nothing more specific
        raise UserError(
            f"{where}: its tokenizer cannot be loaded ({type(error).__name__}: {one_line(error)}); save it again with "
            "tokenizer.save_pretrained(folder)"
        ) from None


@lru_cache(maxsize=8)
def _read(files: tuple[tuple[str, bytes], ...]) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files:
            (Path(folder) / name).write_bytes(data)
        opened = open_tokenizer(Path(folder))
    added = {int(number): str(token) for number, token in opened.added_tokens_decoder.items()}
    backend = getattr(opened, "backend_tokenizer", None)
    settings = json.loads(backend.to_str()) if backend is not None else {}
    settings.pop("added_tokens", None)
    tokens = opened.get_vocab()
    return Tokenizer(opened, dict(sorted(tokens.items(), key=lambda item: item[1])), added, settings)
