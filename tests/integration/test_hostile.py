"""Wrong, hostile and broken input: refused with exit code 2 and one message, nothing run and nothing changed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli.main import main
from tests.helpers.hostile import LAUGHS, folder_instead, put
from tests.helpers.paths import CLINICAL, INSTRUCT, ROOT
from tests.helpers.results import state
from tests.helpers.sweeps import content, own_task

MARKER = "it-ran"
"""A file that no test may find: every payload tries to create it in the working directory."""
TOUCH = f"open({MARKER!r}, 'w')"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(text: bytes | str | dict[str, Any]) -> Path:
        path = tmp_path / "sweep.yaml"
        text = yaml.safe_dump(text, sort_keys=False) if isinstance(text, dict) else text
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# -------------------------------------------------------------------- the sweep file
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))
GRIDS = {"grid": {"start": 0, "stop": 1, "step": 0.001}}
TEXTS: dict[str, tuple[bytes | str | dict[str, Any], str]] = {
    "billion laughs": (LAUGHS, "its aliases make more than 100000 values of it"),
    "billion merges": (MERGES, "its aliases make more than 100000 values of it"),
    "alias in itself": ("parents: &p {a: *p}\n", "an alias stands inside what it names"),
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
    "key twice, deep down": ("workers: {engine: {max_model_len: 1, max_model_len: 2}}\n", "the key 'max_model_len' stands twice"),
    "key of lists": ("? [a, b]\n: c\n", "found unhashable key"),
    "NUL byte": (b"parents: a\x00b\n", "is not valid YAML"),
    "not UTF-8": (b"parents: \xff\xfe\n", "is not UTF-8 text"),
    "two documents": ("a: 1\n---\nb: 2\n", "expected a single document"),
    "date that is none": ("seed: 2001-99-99\n", "is not valid YAML: month must be in 1..12"),
    "empty": ("", "holds NoneType, not keys"),
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
        "takes a value, {low, high} (with knots or modules) or mergekit's lists and filters, but got {'low': 0, 'high': inf}",
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
        "'../../etc' is no name; use letters, digits",
    ),
    "parent's name of dots": (content(parents={"..": {"model": "x"}, "b": {"model": "y"}}), "'..' is no name"),
    "candidate's name that climbs": (content(candidates={"a/../../b": {"model": "x"}}), "'a/../../b' is no name"),
    "objective's name with NUL": (content(objectives={"a\0b": {"tasks": ["x"]}}), "'a\\x00b' is no name"),
    "task's name that climbs": (
        content(generation={"own": {"../x": {"file": "f", "prompt": "{{input}}"}}}),
        "'../x' is no name",
    ),
    "model that is NUL": (content(parents={"a": {"model": "a\0b"}, "b": {"model": "y"}}), "'a\\x00b' is no path"),
    "model of nobody's home": (
        content(parents={"a": {"model": "~nobody-of-that-name/x"}, "b": {"model": "y"}}),
        "'~nobody-of-that-name/x' is no path",
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
    "parents that are a list": (content(parents=[1, 2]), "parents: input should be a valid dictionary"),
    "objectives that are a text of megabytes": (content(objectives="x" * 900_000), "objectives: input should be"),
    "token of the hub": (
        content(parents={"a": {"model": "x", "revision": "hf_" + "A1" * 17}, "b": {"model": "y"}}),
        "parents.a.revision: holds a Hugging Face token",
    ),
    "password in a URL": (content(data_root="s3://key:secret@bucket/data"), "data_root: holds a password in a URL"),
    "AWS key": (content(tokenizer="AKIAABCDEFGHIJKLMNOP"), "tokenizer: holds an AWS key"),
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


# -------------------------------------------------------------------- texts of the user's own
OWN = {
    "not JSON": ('{"input": "a", "reference": "b"}\n{"input": \n', "line 2: is not valid JSON"),
    "no objects": ("[1, 2]\n", "line 1: is no object"),
    "not UTF-8": (b"\xff\xfe\n", "line 1: is not UTF-8 text"),
    "no such field": ('{"text": "a"}\n', "line 1"),
    "no text": ('{"input": "a", "reference": null}\n', "line 1 has no text in the field 'reference'"),
    "parquet": (b"PAR1\x15\x04\x15\x00", "line 1"),
    "nothing": ("", "is empty; write an object a line"),
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


# -------------------------------------------------------------------- a model's folder
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def tensors(header: dict[str, Any] | list[Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with a header that may lie."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def tensor(start: int, end: int, **changes: Any) -> dict[str, Any]:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [start, end], **changes}}


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARKER}",)


def only(name: str) -> Callable[[Path], None]:
    """Pickled weights, and no others."""

    def change(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps(Payload()))

    return change


def edit(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), **changes}))

    return change


def link(name: str, target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def sparse(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.write(struct.pack("<Q", 100_000_001))
        stream.truncate(100_000_100)


AUTO = {"AutoModelForCausalLM": "evil.Model"}
MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickled weights": (only("pytorch_model.bin"), "holds no *.safetensors file; only safetensors are read"),
    "pickled .pt": (only("model.pt"), "holds no *.safetensors file"),
    "pickle named safetensors": (put(WEIGHTS, pickle.dumps(Payload())), "model.safetensors is damaged or cut off"),
    "index names a pickle": (put(INDEX, {"weight_map": {"x": "pytorch_model.bin"}}), "which is no safetensors file of this"),
    "index climbs": (put(INDEX, {"weight_map": {"x": "../../a.safetensors"}}), "names '../../a.safetensors', which is no"),
    "index is absolute": (put(INDEX, {"weight_map": {"x": "/tmp/a.safetensors"}}), "names '/tmp/a.safetensors', which is no"),
    "index without a map": (put(INDEX, {}), "does not say which tensor is in which file"),
    "index with a list": (put(INDEX, {"weight_map": ["a"]}), "does not say which tensor is in which file"),
    "index of numbers": (put(INDEX, {"weight_map": {"x": 1}}), "does not say which tensor is in which file"),
    "index nested deep": (put(INDEX, "[" * 100_000), "does not say which tensor is in which file"),
    "shard that is missing": (put(INDEX, {"weight_map": {"x": "gone.safetensors"}}), "gone.safetensors is damaged or cut off"),
    "empty weights": (put(WEIGHTS, b""), "model.safetensors is damaged or cut off"),
    "length beyond the file": (put(WEIGHTS, tensors(tensor(0, 8), b"\0" * 8, 2**40)), "is damaged or cut off"),
    "length beyond the numbers": (put(WEIGHTS, tensors(tensor(0, 8), b"\0" * 8, 2**64 - 1)), "is damaged or cut off"),
    "header of 100 MB": (sparse, "is damaged or cut off"),
    "header that is no JSON": (put(WEIGHTS, tensors(b"x" * 64)), "is damaged or cut off"),
    "header that is a list": (put(WEIGHTS, tensors([1, 2, 3])), "is damaged or cut off"),
    "offsets beyond the end": (put(WEIGHTS, tensors(tensor(0, 2**50), b"\0" * 8)), "is damaged or cut off"),
    "offsets backwards": (put(WEIGHTS, tensors(tensor(8, 0), b"\0" * 8)), "is damaged or cut off"),
    "negative offsets": (put(WEIGHTS, tensors(tensor(-8, 0), b"\0" * 8)), "is damaged or cut off"),
    "shape that does not fit": (put(WEIGHTS, tensors(tensor(0, 8, shape=[2**40, 2**40]), b"\0" * 8)), "is damaged or cut off"),
    "negative shape": (put(WEIGHTS, tensors(tensor(0, 8, shape=[-2]), b"\0" * 8)), "is damaged or cut off"),
    "unknown dtype": (put(WEIGHTS, tensors(tensor(0, 8, dtype="PICKLE"), b"\0" * 8)), "is damaged or cut off"),
    "more than the header says": (put(WEIGHTS, tensors(tensor(0, 8), b"\0" * 80)), "is damaged or cut off"),
    "code of its own": (edit("config.json", auto_map=AUTO), "config.json asks for code of its own"),
    "tokenizer's own code": (
        edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}),
        "tokenizer_config.json asks for code of its own",
    ),
    "config that is a list": (put("config.json", []), "config.json holds no JSON object"),
    "config nested deep": (put("config.json", '{"a": ' * 100_000), "config.json is nested too deep"),
    "config of 10,000 digits": (put("config.json", '{"a": ' + "9" * 10_000 + "}"), "config.json is not valid JSON"),
    "config that is not UTF-8": (put("config.json", b"\xff"), "config.json is not valid JSON"),
    "config that is a folder": (folder_instead("config.json"), "config.json cannot be read (Is a directory)"),
    "heads that are words": (edit("config.json", num_attention_heads="many"), "config.json is no model's config"),
    "RoPE that is words": (edit("config.json", rope_parameters={"rope_theta": "far"}), "config.json is no model's config"),
    "RoPE that is a list": (edit("config.json", rope_parameters=[1]), "config.json is no model's config"),
    "end of text that is a word": (edit("config.json", eos_token_id="end"), "eos_token_id is 'end', not a token's id"),
    "vocabulary of another": (edit("config.json", vocab_size=10**18), "vocab_size is 1000000000000000000, but"),
    "tokenizer that is garbage": (put("tokenizer.json", {"version": 3}), "its tokenizer cannot be loaded"),
    "template that is not UTF-8": (put("chat_template.jinja", b"\xff\xfe"), "chat_template.jinja is not UTF-8 text"),
    "template that reaches out": (
        put("chat_template.jinja", "{{ messages.__class__.__mro__[1].__subclasses__() }}"),
        "access to attribute '__class__' of 'list' object is unsafe",
    ),
    "template without end": (
        put("chat_template.jinja", "{% for i in range(1000000000) %}x{% endfor %}"),
        "objectives.chat.tasks[0]",
    ),
    "link to a secret": (link("tokenizer_config.json", "/etc/passwd"), "links to a file outside"),
    "link that climbs": (link("config.json", "../../config.json"), "links to a file outside"),
    "weights that are a link": (link(WEIGHTS, "/dev/zero"), "links to a file outside"),
    "link to itself": (link("config.json", "config.json"), "config.json cannot be read (Too many levels of symbolic links)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., str]) -> None:
    change, expected = MODELS[name]
    folder = tmp_path / "models" / "bad"
    shutil.copytree(INSTRUCT, folder)
    change(folder)
    objectives = {"chat": {"tasks": ["demo_instructions"], "limit": 1, "apply_chat_template": True}}
    parents = {"good": {"model": str(CLINICAL)}, "bad": {"model": str(folder)}}
    refuses(expected, "plan", write(content(parents=parents, objectives=objectives)))
    assert not (tmp_path / MARKER).exists()


def test_adapter_that_is_pickled(tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., str]) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(Payload()))
    parents = content()["parents"]
    parents["instruct"]["lora"] = str(tmp_path / "adapter")
    refuses("parents.instruct.lora", "plan", write(content(parents=parents)))
    assert not (tmp_path / MARKER).exists()


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """A hub that knows one gated model and no token."""

    class Gated(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("authorization") is None
            self.send_response(401 if known else 403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("X-Error-Message", "Access to this model is restricted")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Gated)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("token", [None, "hf_" + "Wrong1" * 6])
def test_gated_model(token: str | None, hub: str, tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(content(parents={"a": {"model": "org/gated"}, "b": {"model": str(CLINICAL)}}))
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    environment |= {"HF_TOKEN": token} if token else {}
    command = [sys.executable, "-m", "orchestrator", "plan", str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "parents.a.model: 'org/gated' is no folder here, and the hub does not give it" in done.stderr
    assert "log in with `hf auth login` if it is gated" in done.stderr
    assert "Traceback" not in done.stderr
    assert token is None or token not in done.stdout + done.stderr


# -------------------------------------------------------------------- the results folder
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("file", "--out {}/file: cannot be written (File exists)"),
        ("file/below", "--out {}/file/below: cannot be written (File exists)"),
        ("dangling/below", "--out {}/dangling/below: cannot be written"),
        ("itself", "--out {}/itself: cannot be written"),
        ("x" * 300, "cannot be written (File name too long)"),
        ("/proc/mergefront", "--out /proc/mergefront: cannot be written"),
        ("locked", "--out {}/locked: cannot be written (Is a directory)"),
    ],
)
def test_out(
    place: str, expected: str, tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "locked" / ".lock").mkdir(parents=True)
    refuses(expected.format(tmp_path), "run", write(content()), "--out", tmp_path / place)


def test_a_lock_that_is_a_link_costs_nobody_a_file(
    tmp_path: Path, write: Callable[..., Path], refuses: Callable[..., str]
) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to("../precious")
    parents = {"a": {"model": "./gone"}, "b": {"model": "./gone"}}
    refuses("gone does not exist", "run", write(content(parents=parents)), "--out", tmp_path / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read a folder")
def test_folders_of_somebody_else(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "sweep.yaml").write_text(
            yaml.safe_dump(content(parents={"a": {"model": f"{home}/shut"}, "b": {"model": f"{home}/shut"}}))
        )
        (home / "sweep.yaml").chmod(0o644)
        (home / "shut").mkdir(mode=0o700)
        before = state(home)
        os.seteuid(65534)
        try:
            assert main(["plan", f"{home}/sweep.yaml"]) == 2
            assert main(["run", f"{home}/sweep.yaml", "--out", f"{home}/shut/out"]) == 2
            assert main(["report", f"{home}/shut"]) == 2
        finally:
            os.seteuid(0)
        message = capsys.readouterr().err
        assert message.count("mergefront: error:") == 3 and message.count("Permission denied") == 3
        assert "Traceback" not in message
        assert state(home) == before


# -------------------------------------------------------------------- which Ray
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ray://head:10001", "RAY_ADDRESS=ray://head:10001: a sweep's driver runs on a node of the cluster"),
        ("http://127.0.0.1:8265", "a sweep's driver runs on a node of the cluster; submit it there"),
        ("nonsense", "RAY_ADDRESS=nonsense: is no address"),
    ],
)
def test_ray_address(address: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    from cluster.session import find
    from orchestrator.core.errors import UserError

    with pytest.raises(UserError, match=expected.replace(".", r"\.")):
        find()
