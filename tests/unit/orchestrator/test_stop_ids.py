"""Stop ids from files as people have them: left over from another model, or of tokens that were never added."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.errors import UserError
from orchestrator.models.configs import read_model_config
from orchestrator.models.formats import read_json
from orchestrator.models.resolve import Files
from orchestrator.models.stop_ids import stop_ids
from orchestrator.recipes.recipe import Source
from tests.helpers.paths import INSTRUCT

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
OWN = {2}
"""The demo's instruct parent ends its turns with this token, by all three files."""


def files(folder: Path, config: dict[str, Any]) -> Files:
    # transformers refuses some ids in config.json itself, with another message.
    read = read_model_config("parents.b.model", {**config, "eos_token_id": None})
    return Files(Source("d", "b", str(folder), None, None), folder, config, read, 0)


def found(folder: Path, file: str, changes: dict[str, Any]) -> tuple[set[int], list[str]]:
    for each in (CONFIG, GENERATION, TOKENIZER, "tokenizer.json"):
        shutil.copy(INSTRUCT / each, folder)
    (folder / file).write_text(json.dumps({**read_json("parents", folder / file), **changes}))
    config = read_json("parents", folder / CONFIG)
    return stop_ids(files(folder, config), "parents.b.model")


@pytest.mark.parametrize(
    ("file", "changes", "ids", "note"),
    [
        (GENERATION, {"eos_token_id": [2, 1]}, {1, 2}, ""),
        (GENERATION, {"eos_token_id": [2, 128009]}, OWN, "b: eos_token_id 128009 of generation_config.json is beyond its"),
        (GENERATION, {"eos_token_id": 768}, OWN, "b: eos_token_id 768 of generation_config.json is beyond its vocabulary"),
        (CONFIG, {"eos_token_id": 128009}, OWN, "b: eos_token_id 128009 of config.json is beyond its vocabulary of 768"),
        (CONFIG, {"eos_token_id": None}, OWN, ""),
        (TOKENIZER, {"eos_token": "</s>"}, OWN, "b: eos_token '</s>' of tokenizer_config.json is not in its tokenizer"),
        (TOKENIZER, {"eos_token": {"content": "<|im_end|>", "special": True}}, OWN, ""),
        # Not among the added tokens, but in the vocabulary.
        (TOKENIZER, {"eos_token": "a"}, OWN | {67}, ""),
        (TOKENIZER, {"eos_token": None}, OWN, ""),
    ],
)  # fmt: skip
def test_ids_without_a_row_are_left_out_with_a_word(
    file: str, changes: dict[str, Any], ids: set[int], note: str, tmp_path: Path
) -> None:
    numbers, notes = found(tmp_path, file, changes)
    assert numbers == ids
    assert len(notes) == bool(note) and all(each.startswith(note) for each in notes)


def test_the_vocabulary_of_a_unigram_tokenizer_is_a_list(tmp_path: Path) -> None:
    pairs = {"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["</s>", 0.0]]}, "added_tokens": []}
    shutil.copy(INSTRUCT / TOKENIZER, tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(pairs))
    (tmp_path / TOKENIZER).write_text('{"eos_token": "</s>"}')
    config = {"model_type": "llama", "vocab_size": 2}
    assert stop_ids(files(tmp_path, config), "parents.b.model") == ({1}, [])


@pytest.mark.parametrize("value", ["2", "</s>", -1, True, 2.0, [2, "2"], {"id": 2}])
@pytest.mark.parametrize("file", [CONFIG, GENERATION])
def test_what_is_no_id_is_refused_with_its_file(file: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"parents.b.model: .*{file}: eos_token_id is .*, not a token's id; correct it"
    ):
        found(tmp_path, file, {"eos_token_id": value})


@pytest.mark.parametrize("value", [["</s>"], 2, True, {"content": 2}])
def test_an_end_of_text_that_is_no_token_is_refused(value: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"parents.b.model: .*tokenizer_config.json: eos_token is .*, not a token; correct"
    ):
        found(tmp_path, TOKENIZER, {"eos_token": value})
