"""Wrong and hostile sweep files, tasks and texts: refused with exit code 2 and one message, nothing run and nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from tests.helpers.hostile import LAUGHS, MARKER, TOUCH
from tests.helpers.sweeps import content, own_task

MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))

GRIDS = {"grid": {"start": 0, "stop": 1, "step": 0.001}}

TEXTS: dict[str, tuple[bytes | str | dict[str, Any], str]] = {
    "billion laughs": (LAUGHS, "its aliases expand it to more than 100000 values"),
    "billion merges": (MERGES, "its aliases expand it to more than 100000 values"),
    "alias in itself": ("parents: &p {a: *p}\n", "an alias is inside the value that it refers to"),
    "deep lists": ("a: " + "[" * 50_000, "is nested too deep"),
    "deep keys": ("{a: " * 20_000, "is nested too deep"),
    "integer of 10,000 digits": (f"seed: {'9' * 10_000}\n", "is not valid YAML: Exceeds the limit"),
    "seed beyond numpy's": (content(seed=2**32), "seed: input should be less than 4294967296"),
    "python object": (f"!!python/object/apply:builtins.eval [\"{TOUCH}\"]\n", "could not determine a constructor"),
    "python object as a value": (
        f"parents: !!python/object/apply:os.system ['touch {MARKER}']\n",
        "could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'",
    ),
    "python name": ("parents: !!python/name:os.system\n", "could not determine a constructor"),
    "python module": ("parents: !!python/module:antigravity\n", "could not determine a constructor"),
    "lm-eval's function": ("parents: !function os.system\n", "could not determine a constructor for the tag '!function'"),
    "key twice, deep down": ("workers: {engine: {max_model_len: 1, max_model_len: 2}}\n", "the key 'max_model_len' appears twice"),
    "key of lists": ("? [a, b]\n: c\n", "found unhashable key"),
    "NUL byte": (b"parents: a\x00b\n", "is not valid YAML"),
    "not UTF-8": (b"parents: \xff\xfe\n", "is not UTF-8 text"),
    "two documents": ("a: 1\n---\nb: 2\n", "expected a single document"),
    "date that is none": (content(seed="2001-99-99"), "seed: takes a whole number, but got '2001-99-99'"),
    "empty": ("", "contains NoneType, not keys"),
    "larger than a file": (b"#" * 2_000_000, "is larger than 1048576 bytes"),
    "infinite seconds": (
        content(workers={"backend": "fake", "fake_seconds": float("inf")}),
        "workers.fake_seconds: input should be a finite number, but got inf",
    ),
    "NaN": (
        content(workers={"engine": {"kv_cache_gib": float("nan")}}),
        "workers.engine.kv_cache_gib: input should be a finite number, but got nan",
    ),
    "infinite range": (
        content(search={"space": [{"method": "ties", "base_model": "clinical", "models": {"instruct": {"weight": {"low": 0, "high": float("inf")}}}}], "budget": {"candidates": 9}}),
        "a range is written {low: 0.1, high: 0.9}, of two finite numbers (with knots or modules), but got {'low': 0, 'high': inf}",
    ),
    "NaN ratio": (content(recipes=[{"method": "linear", "alpha": [float("nan")]}]), "recipes[0].alpha"),
    "span of 1e300 values": (
        content(recipes=[{"method": "linear", "alpha": {"start": 0, "stop": 1, "step": 1e-300}}]),
        "at most 10000 are taken: use a larger step",
    ),
    "10^9 combinations": (
        content(
            recipes=[
                {
                    "method": "ties",
                    "base_model": "clinical",
                    "models": {"clinical": {"weight": GRIDS, "density": GRIDS}, "instruct": {"weight": GRIDS}},
                }
            ]
        ),
        "these grids have 1003003001 combinations; at most 1000000 are taken",
    ),
    "parent's name that climbs": (
        content(parents={"../../etc": {"model": "x"}, "b": {"model": "y"}}),
        "'../../etc' is not a name; use letters, digits",
    ),
    "parent's name of dots": (content(parents={"..": {"model": "x"}, "b": {"model": "y"}}), "'..' is not a name"),
    "candidate's name that climbs": (content(candidates={"a/../../b": {"model": "x"}}), "'a/../../b' is not a name"),
    "objective's name with NUL": (content(objectives={"a\0b": {"tasks": ["x"]}}), "'a\\x00b' is not a name"),
    "task's name that climbs": (
        content(generation={"own": {"../x": {"file": "f", "prompt": "{{input}}"}}}),
        "'../x' is not a name",
    ),
    "model that is NUL": (content(parents={"a": {"model": "a\0b"}, "b": {"model": "y"}}), "'a\\x00b' is not a path"),
    "model of nobody's home": (
        content(parents={"a": {"model": "~nobody-of-that-name/x"}, "b": {"model": "y"}}),
        "'~nobody-of-that-name/x' is not a path",
    ),
    "model that is a file": (
        content(parents={"a": {"model": "/etc/passwd"}, "b": {"model": "y"}}),
        "parents.a.model: the folder /etc/passwd does not exist",
    ),
    "model that climbs out of the hub": (
        content(parents={"a": {"model": "org/../../../etc"}, "b": {"model": "y"}}),
        "parents.a.model: 'org/../../../etc' is no folder here, and the hub does not give it",
    ),
    "model from anywhere": (
        content(parents={"a": {"model": "https://example.org/model"}, "b": {"model": "y"}}),
        "parents.a.model: https:// is not supported; give a folder, or an address with s3:// or gs://",
    ),
    "parents that are a list": (content(parents=[1, 2]), "parents: takes names with values, such as {NAME: {model: …}}, but got [1, 2]"),
    "objectives that are a text of megabytes": (content(objectives="x" * 900_000), "objectives: takes names with values"),
    "token of the hub": (
        content(parents={"a": {"model": "x", "revision": "hf_" + "A1" * 17}, "b": {"model": "y"}}),
        "parents.a.revision: contains a Hugging Face token",
    ),
    "password in a URL": (content(data_root="s3://key:secret@bucket/data"), "data_root: contains a password in a URL"),
    "AWS key": (content(tokenizer="AKIAABCDEFGHIJKLMNOP"), "tokenizer: contains an AWS key"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_sweep_file(name: str, write: Callable[..., Path], refuses: Callable[..., str]) -> None:
    text, expected = TEXTS[name]
    message = refuses(expected, "plan", write(text))
    assert "hf_A1" not in message and "secret@" not in message and "AKIA" not in message


@pytest.mark.parametrize("place", ["/dev/zero", "/", "link"])
def test_sweep_file_that_is_none(place: str, tmp_path: Path, refuses: Callable[..., str]) -> None:
    (tmp_path / "link").symlink_to("link")
    refuses("give the path of a YAML file", "plan", place if place != "link" else tmp_path / "link")


def test_task_files_run_only_for_who_trusts_them(
    tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "task: mine\ncustom_dataset: !function mine.load\noutput_type: multiple_choice\ntest_split: test\n"
        "num_fewshot: 0\ndoc_to_text: q\ndoc_to_choice: c\ndoc_to_target: a\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    (folder / "mine.py").write_text(
        f"from datasets import Dataset\n{TOUCH}.close()\n"
        "def load(**_): return {'test': Dataset.from_list([{'q': 'Q', 'c': ['x', 'y'], 'a': 0}])}\n"
    )
    objectives = {"mine": {"tasks": ["mine"]}}
    path = write(content(include_path=[str(folder)], objectives=objectives))
    refuses(f"a sweep file alone must not; if you trust them, say so: export MERGEFRONT_TRUST={folder}", "plan", path)
    assert not (tmp_path / MARKER).exists()
    monkeypatch.setenv("MERGEFRONT_TRUST", str(folder))
    assert main(["plan", str(path)]) == 0
    assert (tmp_path / MARKER).exists()


OWN: dict[str, tuple[str | bytes, str]] = {
    "not JSON": ('{"input": "a", "reference": "b"}\n{"input": \n', "line 2: is not valid JSON"),
    "no objects": ("[1, 2]\n", "element 1 (line 1): is no object"),
    "not UTF-8": (b"\xff\xfe\n", "line 1: is not UTF-8 text"),
    "no such field": ('{"text": "a"}\n', "line 1"),
    "no text": ('{"input": "a", "reference": null}\n', "line 1: has no text in the field 'reference'"),
    "parquet": (b"PAR1\x15\x04\x15\x00", "cannot be read as Parquet"),
    "nothing": ("", "is empty; write an object per line"),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_texts(name: str, tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., str]) -> None:
    text, expected = OWN[name]
    (tmp_path / "own.jsonl").write_bytes(text.encode() if isinstance(text, str) else text)
    refuses(expected, "plan", write(own_task(tmp_path / "own.jsonl", "{{input}}")))


@pytest.mark.parametrize(
    "prompt",
    [
        "{{input}}{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{input}}{{ input|attr('__class__') }}",
        "{{input}}{{ cycler.__init__.__globals__.os.system('touch " + MARKER + "') }}",
        "{{input}}{% for i in range(1000000000) %}x{% endfor %}",
        "{{input}}{{ 'x'.format.__globals__ }}",
    ],
)
def test_prompts(prompt: str, tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., str]) -> None:
    (tmp_path / "own.jsonl").write_text('{"input": "a", "reference": "b"}\n')
    refuses("generation.own.own.prompt: ", "plan", write(own_task(tmp_path / "own.jsonl", prompt)))
    assert not (tmp_path / MARKER).exists()
