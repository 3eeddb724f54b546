"""The ids of the tokens at which a model ends a text, from its config, its generation config and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.core.errors import UserError
from orchestrator.models.formats import read_json
from orchestrator.models.resolve import Files


def stop_ids(files: Files, where: str) -> tuple[set[int], list[str]]:
    """Collect the ids that end a text, and the sentences on those that are left out because no weight belongs to them.

    Such ids are left over from another model, or are those of tokens that were added without a row in the embedding; an
    engine refuses them.

    Args:
        where: the sweep file's key of the model, for messages.

    Raises:
        UserError: an id is no whole number of at least 0, or an eos_token no text.
    """
    name, rows = files.source.name, files.read.sizes["vocab_size"]
    found: set[int] = set()
    notes = []
    for what, number in _named(files, where):
        if number is None:
            notes.append(f"{name}: {what} is not in its tokenizer and ends no text.")
        elif rows is not None and number >= rows:
            notes.append(f"{name}: {what} is beyond its vocabulary of {rows} and is left out of the stop ids.")
        else:
            found.add(number)
    return found, notes


def _named(files: Files, where: str) -> Iterator[tuple[str, int | None]]:
    """The ids that the model's files name, each in words; None for a token that its tokenizer does not have."""
    for file, value in (
        ("config.json", files.config.get("eos_token_id")),
        ("generation_config.json", _optional_json(files.folder / "generation_config.json").get("eos_token_id")),
    ):
        for number in value if isinstance(value, list) else [] if value is None else [value]:
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise UserError(
                    f"{where}: {files.folder / file}: eos_token_id is {value!r:.200}, not a token's id; correct it"
                )
            yield f"eos_token_id {number} of {file}", number
    eos = _optional_json(files.tokenizer_folder / "tokenizer_config.json").get("eos_token")
    text = eos.get("content") if isinstance(eos, dict) else eos
    if not isinstance(text, str | None):
        place = files.tokenizer_folder / "tokenizer_config.json"
        raise UserError(f"{where}: {place}: eos_token is {eos!r:.200}, not a token; correct it")
    tokenizer = files.tokenizer_folder / "tokenizer.json"
    if text is not None and tokenizer.exists():
        yield f"eos_token {text!r} of tokenizer_config.json", _id_of(read_json(where, tokenizer), text)


def _id_of(tokenizer: dict[str, Any], text: str) -> int | None:
    """The id of a token in a tokenizer.json; added tokens come before those of its model."""
    for token in tokenizer.get("added_tokens") or []:
        if isinstance(token, dict) and token.get("content") == text:
            return int(token["id"])
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list):  # Unigram's: pairs of a token and its score
        vocabulary = {pair[0]: number for number, pair in enumerate(vocabulary) if isinstance(pair, list) and pair}
    return vocabulary.get(text) if isinstance(vocabulary, dict) else None


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json("parents", path) if path.exists() else {}
