"""Models that are broken, hostile or behind a gate: refused with exit code 2 and one message, and nothing of them run."""

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

from tests.helpers.hostile import MARKER, folder_instead, put
from tests.helpers.paths import CLINICAL, INSTRUCT, ROOT
from tests.helpers.sweeps import content

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
    "pickled weights": (only("pytorch_model.bin"), "has no *.safetensors file; only safetensors are read"),
    "pickled .pt": (only("model.pt"), "has no *.safetensors file"),
    "pickle named safetensors": (put(WEIGHTS, pickle.dumps(Payload())), "model.safetensors is damaged or cut off"),
    "index names a pickle": (put(INDEX, {"weight_map": {"x": "pytorch_model.bin"}}), "which is no safetensors file of this"),
    "index climbs": (put(INDEX, {"weight_map": {"x": "../../a.safetensors"}}), "names '../../a.safetensors', which is no"),
    "index is absolute": (put(INDEX, {"weight_map": {"x": "/tmp/a.safetensors"}}), "names '/tmp/a.safetensors', which is no"),
    "index without a map": (put(INDEX, {}), "does not say which tensor is in which file"),
    "index with a list": (put(INDEX, {"weight_map": ["a"]}), "does not say which tensor is in which file"),
    "index of numbers": (put(INDEX, {"weight_map": {"x": 1}}), "does not say which tensor is in which file"),
    "index nested deep": (put(INDEX, "[" * 100_000), "does not say which tensor is in which file"),
    "shard that is missing": (put(INDEX, {"weight_map": {"x": "gone.safetensors"}}), "names gone.safetensors, which is not there"),
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
    "code of its own": (
        edit("config.json", auto_map=AUTO, architectures=["EvilForCausalLM"]),
        "config.json needs custom code",
    ),
    "tokenizer's own code": (
        edit("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}),
        "tokenizer_config.json needs custom code",
    ),
    "config that is a list": (put("config.json", []), "config.json has no JSON object"),
    "config nested deep": (put("config.json", '{"a": ' * 100_000), "config.json is nested too deep"),
    "config of 10,000 digits": (put("config.json", '{"a": ' + "9" * 10_000 + "}"), "config.json is not valid JSON"),
    "config that is not UTF-8": (put("config.json", b"\xff"), "config.json is not valid JSON"),
    "config that is a folder": (folder_instead("config.json"), "config.json cannot be read (Is a directory)"),
    "heads that are words": (edit("config.json", num_attention_heads="many"), "config.json is none of a llama model"),
    "RoPE that is words": (edit("config.json", rope_parameters={"rope_theta": "far"}), "rope_parameters.rope_theta is 'far', but"),
    "RoPE that is a list": (edit("config.json", rope_parameters=[1]), "config.json is none of a llama model"),
    "end of text that is a word": (edit("config.json", eos_token_id="end"), "'eos_token_id' with value 'end'"),
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
