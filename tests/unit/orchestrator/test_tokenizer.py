"""The tokenizer that is opened without torch is AutoTokenizer's, class by class."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

from orchestrator.models.tokenizer import open_tokenizer
from tests.helpers.paths import DEMO, ROOT

CLASSES = [
    "CohereTokenizer",
    "GemmaTokenizer",
    "GPT2Tokenizer",
    "GPTNeoXTokenizer",
    "LlamaTokenizer",
    "PreTrainedTokenizerFast",
    "Qwen2Tokenizer",
]
TEXTS = [
    "",
    "Velmorin 5 mg,  twice\n\ta day; naïve café, 2.5 µg — 体温",
    " leading and trailing ",
    "<|im_start|>user\nHi<|im_end|>\n<|endoftext|>",
    "<s>[INST] I'm, you're 12345 </s>",
]
CHAT = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A beta agonist."}]
TEMPLATE = "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"


def served(folder: Path, source: Path) -> Path:
    """A tokenizer's files and nothing else, as a sweep serves them."""
    folder.mkdir()
    for pattern in ("*token*", "chat_template.jinja"):
        for file in source.glob(pattern):
            shutil.copy(file, folder)
    return folder


def saved(folder: Path, name: str, **settings: Any) -> Path:
    """A tokenizer of a class, with the demo's vocabulary, as save_pretrained writes it."""
    model = json.loads((DEMO / "parents" / "instruct" / "tokenizer.json").read_text())["model"]
    if name == "PreTrainedTokenizerFast":
        made = getattr(transformers, name)(tokenizer_file=str(DEMO / "parents" / "instruct" / "tokenizer.json"))
    else:
        special = {token: len(model["vocab"]) + i for i, token in enumerate(("<unk>", "<s>", "</s>", "<pad>"))}
        merges = [tuple(merge) for merge in model["merges"]]
        made = getattr(transformers, name)(vocab={**model["vocab"], **special}, merges=merges, **settings)
    made.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"})
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    return folder


def check_same(folder: Path) -> None:
    ours, theirs = open_tokenizer(folder), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    assert type(ours) is type(theirs)
    for text in TEXTS:
        for special in (True, False):
            ids = ours.encode(text, add_special_tokens=special)
            assert ids == theirs.encode(text, add_special_tokens=special)
            assert ours.decode(ids) == theirs.decode(ids)
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    for key in ("special_tokens_map", "all_special_ids", "bos_token_id", "eos_token_id", "added_tokens_decoder",
                "chat_template", "model_max_length", "padding_side", "truncation_side"):  # fmt: skip
        assert getattr(ours, key) == getattr(theirs, key), key
    if theirs.chat_template:
        assert ours.apply_chat_template(CHAT, tokenize=False) == theirs.apply_chat_template(CHAT, tokenize=False)


@pytest.mark.parametrize("parent", ["base", "clinical", "instruct"])
def test_the_demos_tokenizers_are_opened_as_auto_tokenizer_opens_them(tmp_path: Path, parent: str) -> None:
    check_same(served(tmp_path / "served", DEMO / "parents" / parent))


@pytest.mark.parametrize("name", CLASSES)
def test_a_saved_tokenizer_is_opened_as_auto_tokenizer_opens_it(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path / "saved", name)
    check_same(folder)
    assert type(open_tokenizer(folder)) is getattr(transformers, name)


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "edit",
    [
        lambda config: config.update(tokenizer_class="Qwen2TokenizerFast"),
        lambda config: config.update(tokenizer_class="TokenizersBackend"),
        lambda config: config.update(tokenizer_class="PythonBackend"),
        lambda config: config.update(tokenizer_class="BloomTokenizerFast"),
        lambda config: config.update(tokenizer_class="NoSuchTokenizer"),
        lambda config: config.pop("tokenizer_class"),
    ],
    ids=["fast", "backend", "python", "removed", "unknown", "none"],
)
def test_other_names_than_a_class_of_today_are_understood_alike(tmp_path: Path, edit: Edit) -> None:
    folder = saved(tmp_path / "saved", "Qwen2Tokenizer")
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    edit(config)
    file.write_text(json.dumps(config))
    check_same(folder)


def test_a_models_config_may_overrule_the_name(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", "LlamaTokenizer")
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    check_same(folder)
    assert type(open_tokenizer(folder)) is transformers.Qwen2Tokenizer


def test_every_class_that_auto_tokenizer_maps_is_the_one_of_that_name() -> None:
    """What `open_tokenizer` rests on; a new transformers may change it."""
    fast = transformers.PreTrainedTokenizerFast
    names = {str(name).removesuffix("Fast") for name in TOKENIZER_MAPPING_NAMES.values() if name}
    found = {name: getattr(transformers, name, None) for name in names}
    ours = {name: each for name, each in found.items() if isinstance(each, type) and issubclass(each, fast)}
    assert len(ours) > 50
    assert ours == {name: tokenizer_class_from_name(name) for name in ours}


LOADS = """
import sys
from pathlib import Path
from orchestrator.models.tokenizer import open_tokenizer
for folder in sys.argv[1:]:
    tokenizer = open_tokenizer(Path(folder))
    tokenizer.decode(tokenizer.encode("a b c"))
    tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    print(folder, sorted({"torch", "ray", "vllm"} & set(sys.modules)))
"""


def test_no_torch_is_loaded(tmp_path: Path) -> None:
    folders = [str(saved(tmp_path / name, name)) for name in CLASSES]
    folders.append(str(served(tmp_path / "served", DEMO / "parents" / "instruct")))
    run = subprocess.run([sys.executable, "-c", LOADS, *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [f"{folder} []" for folder in folders]
