"""Real parts, made small: random Llama-architecture parents with the demo's tokenizer, and sweeps over them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli.main import main
from orchestrator.config.workers import Engine, Workers
from orchestrator.core.records import Serving
from tasks.serving.boot import Boot

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "tasks" / "demo"
# Tests beside this one have clusters of their own on this machine.
os.environ["RAY_ADDRESS"] = "local"
os.environ.setdefault("MERGEFRONT_DATA", str(ROOT.parent / "shared" / "data"))
for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
    os.environ[name] = "1"  # nothing here may reach for the network


ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    # Its embedding and projections have more elements than a piece of a live merge.
    "llama-wide": ("Llama", {"hidden_size": 2048, "num_hidden_layers": 1}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    # vLLM pads the vocabulary (768 needs none), and the checkpoint is in several files.
    "mistral": ("Mistral", {"sliding_window": None, "vocab_size": 771, "max_shard_size": "50KB"}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": False}),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left with one of them when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def make_model(folder: Path, seed: int, dtype: str = "float32", architecture: str = "llama") -> Path:
    """A random two-layer model with the demo's vocabulary and tokenizer."""
    import torch
    import transformers

    family, changes = ARCHITECTURES[architecture]
    changes = {"max_shard_size": "5GB", **changes}
    shards = changes.pop("max_shard_size")
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / "parents" / "clinical")
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes["vocab_size"] = len(tokenizer)
    config = getattr(transformers, f"{family}Config")(
        num_key_value_heads=1,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        **{**sizes, **changes},
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(getattr(torch, dtype))
    with torch.no_grad():
        for parameter in model.parameters():
            # Wider than the default, so that the two parents' greedy answers differ.
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    model.save_pretrained(folder, max_shard_size=shards)
    for file in (DEMO / "parents" / "clinical").glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Path]]:
    """Random models of an architecture and dtype, `a` to `e` and `base`; nobody may change their files."""
    folder = tmp_path_factory.mktemp("models")

    def make(architecture: str, dtype: str) -> dict[str, Path]:
        home = folder / f"{architecture}-{dtype}"
        names = {"a": 0, "b": 1, "base": 2, "c": 3, "d": 4, "e": 5}
        if not home.exists():
            for name, seed in names.items():
                make_model(home / name, seed, dtype, architecture)
        return {name: home / name for name in names}

    return make


@pytest.fixture(scope="session")
def parents(models: Callable[[str, str], dict[str, Path]]) -> dict[str, Path]:
    """Two random Llama parents, `a` and `b`; nobody may change their files."""
    return {name: folder for name, folder in models("llama", "float32").items() if name in ("a", "b")}


@pytest.fixture(scope="session")
def start_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Start a real engine on a model; it serves 256 tokens and stops at id 0. All live to the end of the session: the
    first that ended would take vLLM's process groups, and so the others, with it."""
    from tasks.serving.vllm_engine import VllmEngine  # a guard: it imports torch, which most tests do without

    started = []

    def start(folder: Path, dtype: str, **settings: Any) -> VllmEngine:
        engine = Engine(max_model_len=256, enforce_eager=True, max_num_seqs=16, kv_cache_gib=1 / 16, **settings)
        workers = Workers(gpus=0.0, engine=engine)
        serving = Serving("t", None, (0,), 256, "x", (), "a", str(folder))
        scratch = tmp_path_factory.mktemp("scratch")
        started.append(VllmEngine(Boot(folder, folder, dtype, workers, 3), serving, scratch))
        return started[-1]

    yield start


@pytest.fixture(scope="session")
def vllm(parents: dict[str, Path], start_engine: Callable[..., Any]) -> Any:
    """One engine for all tests, started with parent `a` in float32."""
    return start_engine(parents["a"], "float32")


@pytest.fixture
def sweep(tmp_path: Path, parents: dict[str, Path]) -> Callable[..., Path]:
    """Write a sweep file over the two random parents, asking the demo's questions of the fake backend; keyword
    arguments replace top-level keys."""

    def write(name: str = "sweep.yaml", **changes: Any) -> Path:
        content = {
            "parents": {name: {"model": str(folder)} for name, folder in parents.items()},
            "recipes": [{"method": "linear", "alpha": [0.0, 0.5, 1.0]}, {"method": "slerp", "t": [0.0, 0.5]}],
            "objectives": {
                "clinical": {"tasks": ["demo_formulary"], "limit": 20},
                "instruction": {
                    "tasks": ["demo_instructions"],
                    "limit": 10,
                    "metric": ["prompt_level_strict_acc", "inst_level_strict_acc"],
                },
            },
            "include_path": [str(DEMO / "lm_eval")],
            "dtype": "float32",
            "workers": {"backend": "fake", "block": 16, "engine": {"max_model_len": 512, "enforce_eager": True}},
        }
        content.update(changes)
        path = tmp_path / name
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


def state(folder: Path) -> dict[str, str]:
    """Every file below a folder with what it is, its mode and a digest; the lock and the sign of life that a refused run
    leaves do not count."""
    found = {}
    for path in sorted(folder.rglob("*")):
        data = b"" if path.is_dir() or path.is_symlink() or not path.is_file() else path.read_bytes()
        if path.name not in (".lock", "driver.json"):
            found[str(path)] = f"{path.lstat().st_mode:o} {hashlib.sha256(data).hexdigest()}"
    return found


@pytest.fixture
def mergefront(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run a command in this process, which has everything imported already; gives what it wrote to stdout and stderr."""

    def run(*command: object, expect: int = 0) -> tuple[str, str]:
        capfd.readouterr()
        code = main([str(part) for part in command])
        out, err = capfd.readouterr()
        assert code == expect, out + err
        return out, err

    return run


@pytest.fixture
def refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command and check that it is refused as promised; gives the message on one line."""
    monkeypatch.chdir(tmp_path)

    def run(expected: str, *command: object, untouched: Path = tmp_path) -> str:
        before = state(untouched)
        assert main([str(part) for part in command]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert said.count("mergefront: error: ") == 1
        message = said[said.index("mergefront: error: ") :]  # lm-eval's bar may stand before it
        assert "Traceback" not in message and len(message) < 2500
        assert expected in message
        assert state(untouched) == before
        return message

    return run


class Door:
    """A port of our own in front of a server, that can be shut: how storage goes away and comes back."""

    def __init__(self, server: int) -> None:
        self.server, self.port = server, 0
        self._connections: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", self.server))
                self._connections += [here, there]
                for source, target in ((here, there), (there, here)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def moto(log: Path, **environment: str) -> Iterator[int]:
    """A local S3 server; yields its port. Its log has a line a request."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("moto_server")), "-p", str(port)]
    with log.open("w") as stream:
        server = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **environment})
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(log.read_text())
        yield port
    finally:
        server.terminate()
        server.wait()


@dataclasses.dataclass
class Bucket:
    """A bucket behind a door of its own."""

    door: Door
    log: Path
    """The server's, of all buckets; a line a request."""

    def __call__(self, prefix: str) -> str:
        return f"s3://bucket/{prefix}?scheme=http&endpoint_override=127.0.0.1:{self.door.port}&region=us-east-1"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_EC2_METADATA_DISABLED="true")
    log = tmp_path_factory.mktemp("moto") / "log"
    with moto(log) as port:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")
        urllib.request.urlopen(request).close()
        yield port, log


@pytest.fixture
def bucket(s3_server: tuple[int, Path]) -> Iterator[Bucket]:
    """Prefix → its address in a bucket of a local S3 server."""
    port, log = s3_server
    door = Door(port)
    yield Bucket(door, log)
    door.shut()
