"""mergekit's `tokenizer_source`: one tokenizer for models whose vocabularies differ, and which rows each has for it.

The tokenizer is built once per sweep, by mergekit, over all parents. Every recipe then names it as its
`tokenizer_source`, so that each merge, and each model alone, has one row for each of its tokens.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.config.sweep import SweepConfig
from orchestrator.core.errors import UserError
from orchestrator.core.text import one_line
from orchestrator.models.tokenizer import read_tokenizer, tokenizer_files
from orchestrator.models.vocabulary import Vocabulary, differences
from orchestrator.recipes.recipe import Rows


def build_tokenizer(config: SweepConfig, own: dict[str, Vocabulary], chosen: str) -> dict[str, bytes]:
    """Build the served tokenizer as mergekit does, with the chat template of the chosen parent.

    Args:
        own: name → vocabulary, of the parents and candidates.

    Returns:
        Its files, by name.

    Raises:
        UserError: a model has no tokenizer, or one with tokens beyond its rows, or mergekit cannot merge them.
    """
    for vocabulary in own.values():
        _check_rows(vocabulary)
    named = source_parent(config)
    made = own[named].tokenizer.opened if named else _union([own[name] for name in config.parents])
    with tempfile.TemporaryDirectory() as folder:
        made.chat_template = own[chosen].tokenizer.opened.chat_template
        made.save_pretrained(folder)
        files = tokenizer_files(Path(folder))
    settings = json.loads(files["tokenizer_config.json"])
    # How it was opened here is no part of it.
    settings = {key: value for key, value in settings.items() if key not in ("is_local", "local_files_only")}
    files["tokenizer_config.json"] = json.dumps(settings, indent=2).encode()
    ids = sorted(read_tokenizer("tokenizer_source", files).tokens.values())
    if ids != list(range(len(ids))):
        raise UserError(
            f"tokenizer_source: {config.tokenizer_source} has {len(ids):,} tokens with ids up to {ids[-1]:,}; mergekit "
            "needs ids without gaps: name a parent whose tokenizer has none"
        )
    return files


def source_parent(config: SweepConfig) -> str | None:
    """Return the parent whose tokenizer `tokenizer_source` names; a parent may be called `base` or `union` too."""
    source = config.tokenizer_source
    return source if source in config.parents else next(iter(config.parents)) if source == "base" else None


def _check_rows(vocabulary: Vocabulary) -> None:
    if not vocabulary.files:
        raise UserError(
            f"{vocabulary.where}: has no tokenizer, and tokenizer_source matches rows by their tokens; save its "
            "tokenizer beside the model"
        )
    if beyond := vocabulary.beyond:
        token, row = next(iter(beyond.items()))
        raise UserError(
            f"{vocabulary.where}: its tokenizer has {token!r} with id {row}"
            + (f" and {len(beyond) - 1} more" if len(beyond) > 1 else "")
            + f", but its embedding {vocabulary.rows} rows; give it the rows with model.resize_token_embeddings("
            "len(tokenizer)), or save the tokenizer from before the tokens were added"
        )


def _union(parents: list[Vocabulary]) -> Any:
    """Build mergekit's union of tokenizers, the first as its base."""
    from mergekit.common import ModelPath, ModelReference
    from mergekit.tokenizer.build import build_union_tokenizer

    logging.getLogger("mergekit").setLevel(logging.ERROR)
    # mergekit asks the model's config how many rows there are, and of the tokenizer the tokens.
    tokenizers = {
        ModelReference(model=ModelPath(path=str(each.folder))): _Ordered(each.tokenizer.opened) for each in parents
    }
    try:
        made = build_union_tokenizer(parents[0].tokenizer.opened, tokenizers)
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"tokenizer_source: mergekit cannot unite the parents' tokenizers ({one_line(error)}); name the parent "
            "whose tokenizer is to serve every recipe"
        ) from None
    known = made.get_vocab()
    for each in parents:
        lost = [token for token in each.tokens if token not in known]
        if lost:
            raise UserError(
                f"tokenizer_source: mergekit's union leaves out {len(lost):,} tokens of {each.where}, such as "
                f"{lost[0]!r}; name the parent whose tokenizer is to serve every recipe"
            )
    return made


class _Ordered:
    """A tokenizer that lists its tokens by their ids.

    The library lists them in another order in every process, and mergekit gives new tokens their ids in that order.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def get_vocab(self) -> dict[str, int]:
        """Return token → id, by id."""
        return dict(sorted(self._tokenizer.get_vocab().items(), key=lambda item: item[1]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def rows_of(own: Vocabulary, folder: Path) -> Rows | None:
    """Return how a model's rows become those of the served tokenizer; None where they are those already.

    Args:
        folder: of the served tokenizer.
    """
    rows = _rows(own, tokenizer_files(folder))
    if rows == list(range(own.rows or 0)):
        return None
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:20]
    return Rows(digest, str(folder), tuple(served for served, row in enumerate(rows) if row < 0))


def _rows(own: Vocabulary, served: dict[str, bytes]) -> list[int]:
    """Return the model's own row for each id of the served tokenizer; -1 where it has none."""
    here = own.tokenizer.tokens
    return [here.get(token, -1) for token in read_tokenizer("tokenizer_source", served).tokens]


def served_ids(own: Vocabulary, served: dict[str, bytes]) -> dict[int, int]:
    """Return a model's own id → the id in the served tokenizer, of the tokens that both have."""
    return {row: number for number, row in enumerate(_rows(own, served)) if row >= 0}


def other_tokenizers(own: dict[str, Vocabulary], served: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """Yield each model that may answer otherwise here than with its own tokenizer, and why, in words."""
    for name, vocabulary in own.items():
        if vocabulary.cutting != {key: data for key, data in served.items() if key != "chat_template.jinja"}:
            found = differences(vocabulary, read_tokenizer("tokenizer", served)) if vocabulary.files else []
            if found or not vocabulary.files:
                yield name, "; ".join(found) or "it has none of its own"
