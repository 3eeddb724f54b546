"""Random models whose vocabularies differ, as fine-tunes' do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[dict[str, Any]], None]
"""Changes the content of a tokenizer.json in place."""


def with_tokens(source: Path, folder: Path, tokens: list[str], rows: int | None = None) -> Path:
    """A copy of a model with added tokens, and rows for them; or with this many rows."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.add_tokens(tokens, special_tokens=True)
    model = AutoModelForCausalLM.from_pretrained(source)
    old = model.config.vocab_size
    model.resize_token_embeddings(rows or len(tokenizer), mean_resizing=False)
    torch.manual_seed(len(tokens))
    with torch.no_grad():
        for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
            embedding.weight[old:] = torch.randn_like(embedding.weight[old:])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(source: Path, folder: Path, change: Change) -> Path:
    """A copy of a model with another tokenizer.json."""
    shutil.copytree(source, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder
