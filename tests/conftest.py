"""Real parts, made small: random Llama-architecture parents with the demo's tokenizer, and sweeps over them."""

from __future__ import annotations

import os
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli.main import main
from tests.helpers.models import make_model
from tests.helpers.paths import DATA, DEMO, ROOT
from tests.helpers.results import state
from tests.helpers.storage import Bucket, Door, moto

# Tests beside this one have clusters of their own on this machine.
os.environ["RAY_ADDRESS"] = "local"
os.environ.setdefault("MERGEFRONT_DATA", str(DATA))
for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TQDM_DISABLE"):
    os.environ[name] = "1"  # nothing here may reach for the network


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left with one of them when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
    from tests.helpers.swaps import open_engine

    started = []

    def start(folder: Path, dtype: str, **settings: Any) -> VllmEngine:
        started.append(open_engine(folder, dtype, tmp_path_factory.mktemp("scratch"), **settings))
        return started[-1]

    yield start


@pytest.fixture(scope="session")
def vllm(parents: dict[str, Path], start_engine: Callable[..., Any]) -> Any:
    """One engine for all tests, started with parent `a` in float32; its batches are smaller than its longest prompts."""
    return start_engine(parents["a"], "float32", max_num_batched_tokens=64)


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


@pytest.fixture
def old_results(tmp_path: Path) -> Path:
    """Two results folders of an earlier mergefront and their sweep files, as if they had been made here: see
    tests/integration/test_old_results.py."""
    with tarfile.open(ROOT / "tests" / "data" / "results-0.1.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    for file in tmp_path.rglob("*"):
        if file.suffix in {".json", ".yaml"}:
            file.write_text(file.read_text().replace("@ROOT@", str(ROOT)).replace("@OUT@", str(tmp_path)))
    return tmp_path
